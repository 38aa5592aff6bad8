"""Who can still be in time? Earliest due first is served, and when not all can be in time the longest jobs go behind.

Moore and Hodgson (1968): along the order of due times, whenever somebody would be late, the longest job so far leaves
the list; on one machine this leaves as few late as can be. Here a slower tier leaves before a faster one, a model that
is not on the device costs its load once, and work is counted as it would be shared.

    due ->     A 10   B 12   C 15   D 40          work A 5, B 8, C 4, D 6, at time 0
    finish        5     13!                       B would be late: the longest of A, B leaves: B
                  5             9      15         A, C and D are in time; B goes behind

Plain earliest due first would have served B before C and lost both: under bursts it keeps nobody's promise.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from math import inf

from msgspec import Struct

from speciate.scheduling.denoise.item import Item
from speciate.scheduling.sequence import BATCH

PATIENT_SHARE = 0.25
MAX_HORIZON_S = 6 * 3600.0
"""Batch work is patient while more than a quarter of its window, at most 6 h, would be left."""


@dataclass(slots=True)
class Outlook:
    """As of one moment. Every live item is in exactly one of the lists."""

    in_time: list[Item] = field(default_factory=list)
    """By due time; each would be done in time if served in this order."""
    late: list[Item] = field(default_factory=list)
    """By tier, then due time."""
    patient: list[Item] = field(default_factory=list)
    """By due time: batch work with much time, and whatever was promised nothing."""

    @property
    def spare_s(self) -> float:
        """How long all of `in_time` could be put off."""
        return min((item.slack_s for item in self.in_time), default=inf)


class Room(Struct, frozen=True):
    """Where one more item would stand."""

    finish_s: float
    """When it would be done if it went where its due time puts it, or behind all if it cannot be in time."""
    earliest_due_s: float
    """The earliest due time that would be kept without making anyone late."""


def make_outlook(items: Iterable[Item], load_s: Callable[[Item], float], gamma: float, now_s: float) -> Outlook:
    """Items must know their `alone_s` and `share_s`; sets `slack_s` of those in time. O(n log n)."""
    outlook = Outlook()
    promised: list[Item] = []
    for item in items:
        is_patient = _is_patient(item, gamma, now_s)
        (outlook.patient if is_patient else promised).append(item)
    promised.sort(key=_by_due)
    outlook.patient.sort(key=_by_due)
    kept, outlook.late = _split(promised, load_s, gamma, now_s)
    outlook.late.sort(key=lambda item: (item.rank, item.due_s, item.order))
    outlook.in_time = kept
    _set_slack(kept, load_s, gamma, now_s)
    return outlook


def find_room(outlook: Outlook, item: Item, load_s: Callable[[Item], float], gamma: float, now_s: float) -> Room:
    """For an item that is not in the outlook. Later ones that would become late are not displaced."""
    own_s = gamma * item.share_s + load_s(item)
    alone_s = now_s + gamma * item.alone_s + load_s(item)
    ends_s = list(accumulate((other.due_s - other.slack_s for other in outlook.in_time), max, initial=now_s))
    slacks = [*(other.slack_s for other in outlook.in_time), inf]
    place = len(outlook.in_time)
    while place > 0 and min(slacks[place - 1], slacks[place]) >= own_s:
        place -= 1
        slacks[place] = min(slacks[place], slacks[place + 1])
    before_s = outlook.in_time[place - 1].due_s if place else -inf
    earliest_s = max(before_s, ends_s[place] + own_s, alone_s)
    wanted = sum(other.due_s <= item.due_s for other in outlook.in_time)
    is_kept = item.due_s >= earliest_s
    finish_s = max(ends_s[max(place, wanted)] + own_s, alone_s) if is_kept else max(ends_s[-1] + own_s, alone_s)
    return Room(finish_s, earliest_s)


def _by_due(item: Item) -> tuple[float, int]:
    return item.due_s, item.order


def _is_patient(item: Item, gamma: float, now_s: float) -> bool:
    if item.due_s == inf:
        return True
    if item.tier is not BATCH:
        return False
    horizon_s = min(PATIENT_SHARE * (item.due_s - item.work.arrival_s), MAX_HORIZON_S)
    return item.due_s - now_s - gamma * item.alone_s > horizon_s


def _split(
    promised: list[Item], load_s: Callable[[Item], float], gamma: float, now_s: float
) -> tuple[list[Item], list[Item]]:
    """(those in time, the others), each by due time."""
    kept: list[tuple[int, float, int, Item]] = []
    members: dict[str, int] = {}
    loads: dict[str, float] = {}
    behind: set[int] = set()
    end_s = now_s
    for item in promised:
        own_s = gamma * item.share_s
        load = load_s(item)
        if now_s + gamma * item.alone_s + load > item.due_s:
            behind.add(item.item_id)
            continue
        if not members.get(item.model):
            loads[item.model] = load
            end_s += load
        members[item.model] = members.get(item.model, 0) + 1
        end_s += own_s
        heappush(kept, (-item.rank, -own_s - load, item.order, item))
        while kept and end_s > item.due_s:
            _, _, _, longest = heappop(kept)
            behind.add(longest.item_id)
            end_s -= gamma * longest.share_s
            members[longest.model] -= 1
            if not members[longest.model]:
                end_s -= loads[longest.model]
    return (
        [item for item in promised if item.item_id not in behind],
        [item for item in promised if item.item_id in behind],
    )


def _set_slack(kept: list[Item], load_s: Callable[[Item], float], gamma: float, now_s: float) -> None:
    loaded: set[str] = set()
    end_s = now_s
    for item in kept:
        if item.model not in loaded:
            loaded.add(item.model)
            end_s += load_s(item)
        end_s += gamma * item.share_s
        item.slack_s = item.due_s - max(end_s, now_s + gamma * item.alone_s)
