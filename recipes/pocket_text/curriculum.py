"""Which tasks the model sees when: copying first, then short documents, then long ones."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from speciate.models.pocket.tasks import Task, make_task


@dataclass(frozen=True, slots=True)
class Stage:
    """Weights of task kinds and the range of document lengths, up to a share of the whole training."""

    until: float
    target_tokens: tuple[int, int]
    weights: dict[str, float]


_SKILLS = {
    "invoice": 6.0,
    "ticket": 6.0,
    "sensor_log": 4.0,
    "paragraph": 3.0,
    "arithmetic": 3.0,
    "tool_call": 5.0,
    "tool_result": 0.7,
    "small_talk": 0.6,
    "repeat": 0.3,
    "count": 0.5,
    "lookup": 0.1,
}

_FINISH = {**_SKILLS, "invoice": 9.0, "ticket": 8.0, "paragraph": 5.0, "arithmetic": 2.0}
"""The last quarter weighs what was still weakest: long names out of long documents."""

STAGES = (
    Stage(0.08, (20, 60), {"lookup": 5.0, "repeat": 3.0, "invoice": 1.0, "ticket": 1.0, "sensor_log": 1.0}),
    Stage(0.35, (30, 140), _SKILLS),
    Stage(0.65, (30, 350), _SKILLS),
    Stage(0.77, (30, 720), _SKILLS),
    Stage(1.00, (30, 720), _FINISH),
)

_EXTRACTION_TURNS = (1, 5)
_NUM_TURNS = {
    "arithmetic": (10, 24),
    "lookup": (3, 8),
    "repeat": (1, 3),
    "small_talk": (1, 3),
    "count": (1, 3),
    "tool_call": (1, 3),
    "paragraph": (4, 10),
}


def training_tasks(rng: random.Random, share_done: "ShareDone") -> Iterator[Task]:
    """Endless tasks; `share_done.value` (0 to 1) selects the stage."""
    while True:
        stage = next(stage for stage in STAGES if share_done.value <= stage.until)
        (kind,) = rng.choices(list(stage.weights), list(stage.weights.values()))
        yield draw_task(kind, rng, _length(rng, *stage.target_tokens))


@dataclass(slots=True)
class ShareDone:
    """How much of the training is over, written by the training loop."""

    value: float = 0.0


def draw_task(kind: str, rng: random.Random, target_tokens: int) -> Task:
    """A training task with several turns where turns are cheap, so that more of its tokens are answers."""
    num_turns = rng.randint(*_NUM_TURNS.get(kind, _EXTRACTION_TURNS))
    is_single = rng.random() < 0.3
    return make_task(kind, rng, target_tokens, "train", 1 if is_single else num_turns)


def _length(rng: random.Random, shortest_tokens: int, longest_tokens: int) -> int:
    """A length that is more often short: short documents hold more answers a token."""
    return shortest_tokens + int((longest_tokens - shortest_tokens) * rng.random() ** 2.5)
