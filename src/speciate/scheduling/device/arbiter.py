"""Whose step runs next on a device that several schedulers share, and how long it may be. One budget, in seconds. Pure.

    1. who is late unless it runs now: the fastest tier first, in a tier the least laxity, who is late already last
    2. otherwise nobody is pressed: the time is shared, each scheduler's part by the tier of its work

    within = min(laxity of everybody else, guards of everybody else's tiers that are not slower)

An interactive image thus runs while a voice waits for its next token's time, and never longer than that; nightly work
gets what is left, and a part of that however busy the others are. Who finds no step so short passes, and the next one
is asked.
"""

from collections.abc import Collection, Mapping
from math import inf

from msgspec import Struct

from speciate.core.arbiter import DeviceClaim, Wish
from speciate.core.segment import TIER_RANK, Tier


class ArbiterOptions(Struct, frozen=True):
    """What an operator may turn."""

    realtime_part: float = 1.0
    interactive_part: float = 1.0
    batch_part: float = 0.1
    """Parts of the time that nobody is pressed for; only their ratio counts."""

    def part(self, tier: Tier) -> float:
        parts = {Tier.REALTIME: self.realtime_part, Tier.INTERACTIVE: self.interactive_part}
        return parts.get(tier, self.batch_part)


class Grant(Struct, frozen=True):
    """The device is this scheduler's for one step."""

    name: str
    tier: Tier
    """Of the work that it was given for."""
    within_s: float
    """The step should take at most so long, margin included; infinite where nobody minds."""


Claimed = tuple[str, DeviceClaim]


class Arbiter:
    """Owned by the loop that owns the device. Remembers only how much of the device each was given."""

    def __init__(self, options: ArbiterOptions | None = None) -> None:
        self._options = options or ArbiterOptions()
        self._given: dict[str, float] = {}
        """Seconds over parts."""
        self._level = 0.0
        """The least of those that have work. Who comes back starts there: idling saves up nothing."""

    def choose(self, wishes: Mapping[str, Wish], passed: Collection[str] = ()) -> Grant | None:
        """None where nobody has work, or none of it may run now. O(claims squared)."""
        claimed = [(name, claim) for name, wish in wishes.items() for claim in wish.claims]
        self._level_up({name for name, _ in claimed})
        candidates = [(name, claim) for name, claim in claimed if name not in passed]
        for name, claim in sorted(candidates, key=lambda found: self._place(found, claimed)):
            within_s = _budget_s(name, claim, wishes)
            if within_s >= claim.min_step_s:
                return Grant(name, claim.tier, within_s)
        return None

    def charge(self, grant: Grant, seconds: float) -> None:
        """The step that was granted took so long."""
        self._given[grant.name] = self._given.get(grant.name, self._level) + seconds / self._options.part(grant.tier)

    def given_s(self, name: str) -> float:
        """Seconds over parts so far; comparable between those that have work."""
        return self._given.get(name, self._level)

    def _level_up(self, active: Collection[str]) -> None:
        for name in active:
            self._given[name] = max(self._given.get(name, 0.0), self._level)
        self._level = min((self._given[name] for name in active), default=self._level)

    def _place(self, found: Claimed, claimed: list[Claimed]) -> tuple[bool, int, bool, float, int, str]:
        """Sorts the pressed before the others, see the top of this file."""
        name, claim = found
        rank, is_late = TIER_RANK[claim.tier], claim.laxity_s < 0
        shortest_s = min((other.min_step_s for other_name, other in claimed if other_name != name), default=0.0)
        is_pressed = claim.laxity_s < shortest_s
        if is_pressed and not is_late:
            return False, rank, False, claim.laxity_s, rank, name
        if is_pressed:
            return False, rank, True, self._given[name], rank, name
        return True, 0, False, self._given[name], rank, name


def _budget_s(name: str, own: DeviceClaim, wishes: Mapping[str, Wish]) -> float:
    """Faster tiers are never made late. Equals and slower ones are spared as long as that leaves a step at all."""
    within_s, rank = inf, TIER_RANK[own.tier]
    for other_name, wish in wishes.items():
        if other_name == name:
            continue
        for claim in wish.claims:
            if TIER_RANK[claim.tier] < rank or claim.laxity_s >= own.min_step_s:
                within_s = min(within_s, claim.laxity_s)
        for guard in wish.guards:
            if TIER_RANK[guard.tier] < rank:
                within_s = min(within_s, guard.longest_step_s)
            elif TIER_RANK[guard.tier] == rank:
                within_s = min(within_s, max(guard.longest_step_s, own.min_step_s))
    return within_s
