"""The skills of the pocket model: draw a task, and judge an answer.

Pure Python; equal seeds give equal tasks. Knows nothing of the model.
"""

import json
import random
from typing import Any

from speciate.models.pocket.documents import ADAPTER_KINDS, KINDS
from speciate.models.pocket.extraction import extraction_task, whole_extraction_task
from speciate.models.pocket.paragraphs import paragraph_task
from speciate.models.pocket.small_tasks import arithmetic_task, count_task, lookup_task, repeat_task, small_talk_task
from speciate.models.pocket.task import Task
from speciate.models.pocket.tool_tasks import tool_result_task, tool_task
from speciate.models.pocket.words import Split, WordSource

__all__ = ["EXERCISE_KINDS", "TASK_KINDS", "Task", "extraction_request", "is_correct", "make_task", "sample_tasks"]

TASK_KINDS = (*KINDS, "paragraph", "arithmetic", "tool_call", "tool_result", "small_talk")
"""What the base model is for. `ADAPTER_KINDS` and `EXERCISE_KINDS` may be asked for besides."""

EXERCISE_KINDS = ("repeat", "count", "lookup")
"""What it was also trained on to learn copying, without learning to do it to the end without a slip."""

_LONGEST_LIST_TOKENS = 150


def make_task(
    kind: str, rng: random.Random, target_tokens: int = 120, split: Split = "train", num_turns: int = 1
) -> Task:
    """A task of the kind, whose document (if it has one) is about `target_tokens` long.

    With several turns the conversation holds `num_turns - 1` answered questions before the one to answer. Texts to
    repeat and lists to look up in stay under 150 tokens. Raises KeyError for an unknown kind.
    """
    words = WordSource(rng, split)
    if kind in (*KINDS, *ADAPTER_KINDS):
        return extraction_task(kind, words, target_tokens, num_turns)
    if kind == "paragraph":
        return paragraph_task(words, target_tokens, num_turns)
    if kind in ("lookup", "repeat"):
        make_list = lookup_task if kind == "lookup" else repeat_task
        return make_list(words, min(target_tokens, _LONGEST_LIST_TOKENS), num_turns)
    if kind == "tool_result":
        return tool_result_task(words)
    make_short = {
        "arithmetic": arithmetic_task,
        "tool_call": tool_task,
        "small_talk": small_talk_task,
        "count": count_task,
    }[kind]
    return make_short(words, num_turns)


def extraction_request(kind: str, rng: random.Random, target_tokens: int, split: Split = "held_out") -> Task:
    """The task of extracting all fields of one document, in one fixed wording: what the demo sends."""
    return whole_extraction_task(kind, WordSource(rng, split), target_tokens)


def sample_tasks(
    seed: int,
    num_tasks: int,
    split: Split = "train",
    kinds: tuple[str, ...] = TASK_KINDS,
    target_tokens: tuple[int, int] = (40, 700),
) -> list[Task]:
    """Tasks of the kinds in turn, with document lengths drawn evenly from the range."""
    rng = random.Random(seed)
    return [make_task(kinds[i % len(kinds)], rng, rng.randint(*target_tokens), split) for i in range(num_tasks)]


def is_correct(task: Task, answer_text: str) -> bool:
    """Whether the answer is exactly right: as JSON where the task's answer is JSON or a tool call, else as text."""
    if task.schema is not None:
        return bool(_parsed(answer_text) == _parsed(task.answer))
    if task.kind == "tool_call":
        return bool(_parsed(_inside_call(answer_text)) == _parsed(_inside_call(task.answer)))
    return answer_text.strip() == task.answer


def _parsed(text: str) -> Any:
    """The JSON value, or the text itself where it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _inside_call(text: str) -> str:
    return text.strip().removeprefix("<tool_call>").removesuffix("</tool_call>").strip()
