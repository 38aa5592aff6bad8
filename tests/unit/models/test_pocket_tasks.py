"""The pocket model's documents and tasks: deterministic, split cleanly, of the asked length, and judged rightly."""

import json
import random

import pytest

from speciate.models.pocket.documents import ADAPTER_KINDS, FIELDS, KINDS, SCHEMAS, estimate_tokens, make_document
from speciate.models.pocket.evaluate import evaluate_held_out
from speciate.models.pocket.tasks import (
    EXERCISE_KINDS,
    TASK_KINDS,
    Task,
    extraction_request,
    is_correct,
    make_task,
    sample_tasks,
)
from speciate.models.pocket.words import WordSource, is_held_out

ALL_KINDS = (*KINDS, *ADAPTER_KINDS)
CHOSEN_FROM_A_SHORT_LIST = {"priority", "device"}


def test_equal_seeds_give_equal_tasks() -> None:
    assert sample_tasks(5, 60) == sample_tasks(5, 60)
    assert sample_tasks(5, 60) != sample_tasks(6, 60)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_document_holds_its_fields_word_for_word(kind: str) -> None:
    for seed in range(50):
        document = make_document(kind, random.Random(seed), 150)
        assert tuple(document.fields) == FIELDS[kind]
        assert all(value in document.text for value in document.fields.values())


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("target_tokens", [100, 300, 700])
def test_a_document_reaches_its_length(kind: str, target_tokens: int) -> None:
    for seed in range(20):
        text = make_document(kind, random.Random(seed), target_tokens).text
        assert target_tokens - 2 <= estimate_tokens(text) <= target_tokens + 45


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_no_field_value_is_in_both_splits(kind: str) -> None:
    seen = _field_values(kind, "train")
    unseen = _field_values(kind, "held_out")
    assert seen.isdisjoint(unseen)


def _field_values(kind: str, split: str) -> set[str]:
    rng = random.Random(3)
    documents = [make_document(kind, rng, 60, split) for _ in range(400)]  # type: ignore[arg-type]
    return {
        value
        for document in documents
        for name, value in document.fields.items()
        if name not in CHOSEN_FROM_A_SHORT_LIST
    }


def test_names_of_the_held_out_split_are_made_of_held_out_words() -> None:
    words = WordSource(random.Random(1), "held_out")
    assert all(is_held_out(word) for _ in range(50) for word in words.person().split())


def test_sums_of_the_held_out_split_were_never_trained() -> None:
    trained = {_sum(task) for task in sample_tasks(1, 3000, "train", ("arithmetic",))}
    asked = {_sum(task) for task in sample_tasks(1, 1000, "held_out", ("arithmetic",))}
    assert not {pair for pair in trained & asked if pair[1] != "*"}


def _sum(task: Task) -> tuple[int, str, int]:
    text = str(task.messages[0]["content"]).replace("plus", "+").replace("minus", "-").replace("times", "*")
    words = text.strip("?=. ").split()
    first, sign, second = words[-3:]
    return int(first), sign, int(second)


@pytest.mark.parametrize("kind", [*TASK_KINDS, *EXERCISE_KINDS, *ADAPTER_KINDS])
def test_the_right_answer_is_correct_and_a_changed_one_is_not(kind: str) -> None:
    rng = random.Random(9)
    for num_turns in (1, 3):
        task = make_task(kind, rng, 100, "held_out", num_turns)
        assert is_correct(task, task.answer)
        assert not is_correct(task, task.answer + "x")
        assert not is_correct(task, "")


def test_json_answers_are_judged_by_value_not_by_spacing() -> None:
    task = extraction_request("invoice", random.Random(2), 80)
    assert is_correct(task, json.dumps(json.loads(task.answer), separators=(",", ":")))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_demo_asks_for_the_whole_schema(kind: str) -> None:
    task = extraction_request(kind, random.Random(2), 80)
    assert task.schema == SCHEMAS[kind]
    answer = json.loads(task.answer)
    assert list(answer) == SCHEMAS[kind]["required"]
    assert all(isinstance(value, str) for value in answer.values())


def test_answers_with_a_schema_follow_it() -> None:
    for task in sample_tasks(4, 120, "train", ALL_KINDS):
        if task.schema is not None:
            assert list(json.loads(task.answer)) == task.schema["required"]


def test_a_tool_call_names_a_given_tool_and_fills_its_parameters() -> None:
    for task in sample_tasks(4, 200, "held_out", ("tool_call",)):
        if task.kind != "tool_call":
            continue
        call = json.loads(task.answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in task.tools}
        assert sorted(call["arguments"]) == sorted(functions[call["name"]]["required"])


def test_an_oracle_scores_all_and_a_mute_scores_nothing() -> None:
    tasks = sample_tasks(1, 44, "held_out")
    answers = iter([task.answer for task in tasks])
    right = evaluate_held_out(lambda prompt, max_tokens: next(answers), 44)
    wrong = evaluate_held_out(lambda prompt, max_tokens: "", 44)
    assert all(score.share == 1.0 for score in right.values())
    assert all(score.share == 0.0 for score in wrong.values())
