"""Who shares a step with its leader: as many as pay by the measured table, and as nobody becomes late by.

Where a batch of two takes twice as long as one, sharing only makes the first wait for the second; where it takes
hardly longer, not sharing wastes the device. Measured on an H200 (Qwen-Image): 1.82 times the throughput for two at
512 px, 1.02 times at 1024 px. So each size of the batch gets a score from measured seconds, and the best one runs:

    score(n) = n * T(1) / T(n)  -  min_share * n            (n in units of the leader)

the throughput in units of the leader alone, less what each of the n must bring.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct

from speciate.core.denoise import Stage
from speciate.scheduling.denoise.item import Item
from speciate.scheduling.denoise.pass_time import PassTimeModel


class BatchBounds(Struct, frozen=True):
    """What limits a step beside what pays. Seconds are without margin."""

    max_rows: int
    longest_s: float
    """Of a step with more than the leader: for guards, the device's other users, and those who wait."""
    min_share: float


SlackOf = Callable[[Item], float]
"""Seconds by which an item's step may be longer than if it ran alone; infinite for who is late anyway."""


def can_share(leader: Item, other: Item) -> bool:
    """Whether one step can hold both, time aside."""
    if leader.work.is_reproducible or other.work.is_reproducible:
        return False
    if other.stage is not leader.stage or other.model != leader.model:
        return False
    return leader.stage is Stage.ENCODE or other.shape == leader.shape


def best_batch(
    leader: Item, others: Iterable[Item], times: PassTimeModel, slack_of: SlackOf, bounds: BatchBounds
) -> list[Item]:
    """The leader and those of `others` (all able to share its stage, most urgent first) that share its step. Others may
    be in an earlier stage: it is then answered for when they have come so far."""
    stage, tokens, own_rows = leader.cost_stage, leader.tokens, leader.rows
    alone_s = times.step_s(leader.model, stage, tokens, own_rows)
    latest_s = min(bounds.longest_s, alone_s + slack_of(leader))
    members, rows = [leader], own_rows
    best, best_score = 1, 1.0 - bounds.min_share
    for other in others:
        other_rows = other.work.facts.num_rows if stage is Stage.PASS else 1
        rows += other_rows
        if rows > bounds.max_rows:
            break
        step_s = times.step_s(leader.model, stage, tokens, rows)
        latest_s = min(latest_s, times.step_s(leader.model, stage, tokens, other_rows) + slack_of(other))
        if step_s > latest_s:
            break
        members.append(other)
        score = rows / own_rows * (alone_s / step_s - bounds.min_share)
        if score > best_score:
            best, best_score = len(members), score
    return members[:best]
