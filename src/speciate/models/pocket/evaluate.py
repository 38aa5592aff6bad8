"""Scores anything that turns a prompt into text on held-out tasks. Torch-free; knows no engine."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from speciate.models.pocket.documents import estimate_tokens
from speciate.models.pocket.prompts import render_prompt
from speciate.models.pocket.tasks import Task, is_correct, sample_tasks

Generate = Callable[[str, int], str]
"""`generate(prompt_text, max_tokens) -> text`: greedy decoding of the rendered prompt, ending at <|im_end|>."""

BUCKET_EDGES_TOKENS = (100, 200, 400, 800)
_ANSWER_ROOM_TOKENS = 16


@dataclass(slots=True)
class Score:
    """How many answers of a group were right, with the first few wrong ones as (answer, given)."""

    num_right: int = 0
    num_tasks: int = 0
    mistakes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Between 0 and 1; 0 when nothing was asked."""
        return self.num_right / self.num_tasks if self.num_tasks else 0.0

    def add(self, task: Task, given: str) -> None:
        self.num_tasks += 1
        if is_correct(task, given):
            self.num_right += 1
        elif len(self.mistakes) < 5:
            self.mistakes.append((task.answer, given))

    def add_value(self, wanted: object, given: object) -> None:
        """Counts one field."""
        self.num_tasks += 1
        self.num_right += wanted == given
        if wanted != given and len(self.mistakes) < 5:
            self.mistakes.append((str(wanted), str(given)))


def evaluate(generate: Generate, tasks: Iterable[Task]) -> dict[str, Score]:
    """Score of each task kind, in order of first appearance."""
    scores: dict[str, Score] = {}
    for task in tasks:
        given = generate(render_prompt(task), max_answer_tokens(task))
        scores.setdefault(task.kind, Score()).add(task, given)
    return scores


def evaluate_by_length(generate: Generate, tasks: Iterable[Task]) -> dict[str, Score]:
    """Score of each bucket of prompt length, named by its upper edge in estimated tokens."""
    scores = {f"<={edge}": Score() for edge in BUCKET_EDGES_TOKENS} | {"longer": Score()}
    for task in tasks:
        prompt = render_prompt(task)
        scores[length_bucket(prompt)].add(task, generate(prompt, max_answer_tokens(task)))
    return scores


def evaluate_fields(generate: Generate, tasks: Iterable[Task]) -> dict[str, Score]:
    """Score of each field of each document kind, named `kind.field`, over the tasks that ask for JSON."""
    scores: dict[str, Score] = {}
    for task in tasks:
        if task.schema is not None:
            given = fields_of(generate(render_prompt(task), max_answer_tokens(task)))
            for name, value in fields_of(task.answer).items():
                scores.setdefault(f"{task.kind}.{name}", Score()).add_value(value, given.get(name))
    return scores


def fields_of(answer_text: str) -> dict[str, object]:
    """The JSON object of an answer; empty where the answer is not one."""
    try:
        value = json.loads(answer_text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def evaluate_held_out(
    generate: Generate, num_tasks: int, seed: int = 1, kinds: Sequence[str] | None = None
) -> dict[str, Score]:
    """`evaluate` on `num_tasks` held-out tasks, of all kinds or of the given ones."""
    if kinds is None:
        return evaluate(generate, sample_tasks(seed, num_tasks, "held_out"))
    return evaluate(generate, sample_tasks(seed, num_tasks, "held_out", tuple(kinds)))


def length_bucket(prompt: str) -> str:
    """The name of the bucket that a prompt falls into."""
    num_tokens = estimate_tokens(prompt)
    return next((f"<={edge}" for edge in BUCKET_EDGES_TOKENS if num_tokens <= edge), "longer")


def max_answer_tokens(task: Task) -> int:
    """Room enough for the right answer, and a little more so that an answer that runs on is seen to."""
    return 2 * estimate_tokens(task.answer) + _ANSWER_ROOM_TOKENS
