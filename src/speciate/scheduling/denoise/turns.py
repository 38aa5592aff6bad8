"""Whose turn is it, model by model? Grouping in time: what is loaded is used before it is displaced.

Two questions, both pure. Among items that can be in time: does displacing a model that still has some save more than it
loses? Among late ones: deficit round robin (Shreedhar and Varghese 1995), a quantum of device seconds each, so that no
model starves and each load serves many.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from speciate.core.errors import InvariantError


class ModelGroup(Struct, frozen=True):
    """The items of one model that can be in time."""

    model: str
    load_s: float
    """0 where it is on the device."""
    items: tuple[tuple[float, float], ...]
    """(due_s, work_s) of each, by due time."""


def first_group(groups: Sequence[ModelGroup], now_s: float) -> str:
    """The model to serve first so that the most items are in time, each model loaded once; on a tie one that is loaded,
    else the one whose items are due first. O(models * items)."""
    ranked = sorted(groups, key=lambda group: (group.load_s > 0, group.items[0][0], group.model))
    best, most = ranked[0].model, -1
    for group in ranked:
        num = _num_in_time([group, *(other for other in ranked if other is not group)], now_s)
        if num > most:
            best, most = group.model, num
    return best


def _num_in_time(order: Sequence[ModelGroup], now_s: float) -> int:
    """Served model by model; who would be late is left out."""
    num, end_s = 0, now_s
    for group in order:
        start_s, taken = end_s + group.load_s, 0
        for due_s, work_s in group.items:
            if start_s + work_s <= due_s:
                start_s += work_s
                taken += 1
        if taken:
            num, end_s = num + taken, start_s
    return num


class Turns:
    """Deficit round robin over models with late work. Its state is bounded by the models that have some."""

    def __init__(self, quantum_s: float) -> None:
        self._quantum_s = quantum_s
        self._ring: list[str] = []
        self._deficit_s: dict[str, float] = {}

    def current(self, backlog: Mapping[str, int]) -> str | None:
        """The model whose turn it is, of those with late items; None without any. New ones join at the end."""
        self._ring = [model for model in self._ring if model in backlog]
        self._deficit_s = {model: left for model, left in self._deficit_s.items() if model in backlog}
        for model in backlog:
            if model not in self._deficit_s:
                self._ring.append(model)
                self._deficit_s[model] = self._quantum_s
        while self._ring and self._deficit_s[self._ring[0]] <= 0:
            model = self._ring.pop(0)
            self._ring.append(model)
            self._deficit_s[model] += self._quantum_s
        return self._ring[0] if self._ring else None

    def charge(self, model: str, seconds: float) -> None:
        """Late work of this model ran so long."""
        if model in self._deficit_s:
            self._deficit_s[model] -= seconds

    def check(self) -> None:
        """Raise InvariantError unless each model in the ring is there once, with a deficit."""
        if sorted(self._ring) != sorted(self._deficit_s):
            raise InvariantError(f"the ring holds {self._ring}, deficits {sorted(self._deficit_s)}")
