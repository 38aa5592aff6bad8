"""How long outputs become, by tenant: for reserving memory, for laxity and admission, never for order.

A scheduler serves one model, so this is by (tenant, model). The estimate is the 90th percentile of the tenant's last
outputs that got longer than what is generated already; of everybody's while the tenant's are few.
"""

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from math import ceil

WINDOW = 64
WINDOW_OF_ALL = 256
QUANTILE = 0.9
MIN_OBSERVATIONS = 8
MAX_TENANTS = 1024
"""Of more, those that ended nothing for longest are forgotten."""
LONGER = 1.25
"""An output that outgrew all known ones is expected to end this much further on."""


class Lengths:
    """The last so many, sorted."""

    def __init__(self, window: int) -> None:
        self._recent: deque[int] = deque()
        self._sorted: list[int] = []
        self._window = window

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, num_tokens: int) -> None:
        self._recent.append(num_tokens)
        insort(self._sorted, num_tokens)
        if len(self._recent) > self._window:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def quantile_above(self, generated: int) -> int | None:
        """Of those longer than that; None if there is none."""
        first = bisect_right(self._sorted, generated)
        num = len(self._sorted) - first
        return self._sorted[first + ceil(QUANTILE * num) - 1] if num else None


class OutputLengths:
    """One tier's."""

    def __init__(self) -> None:
        self._all = Lengths(WINDOW_OF_ALL)
        self._by_tenant: OrderedDict[str, Lengths] = OrderedDict()

    def observe(self, tenant: str, num_tokens: int) -> None:
        """An output ended by itself or at its limit."""
        self._all.add(num_tokens)
        own = self._by_tenant.setdefault(tenant, Lengths(WINDOW))
        own.add(num_tokens)
        self._by_tenant.move_to_end(tenant)
        if len(self._by_tenant) > MAX_TENANTS:
            self._by_tenant.popitem(last=False)

    def estimate(self, tenant: str, max_tokens: int, generated: int = 0) -> int:
        """How many tokens it will have in the end; half of what is allowed before anything is known."""
        known = self._known(tenant)
        if known is None:
            return min(max_tokens, max(max_tokens // 2, self._further(generated)))
        longest = known.quantile_above(generated)
        return min(max_tokens, self._further(generated) if longest is None else longest)

    def typical(self) -> int | None:
        """The same of anybody's next output; None before anything is known."""
        return self._all.quantile_above(0) if len(self._all) >= MIN_OBSERVATIONS else None

    def _known(self, tenant: str) -> Lengths | None:
        own = self._by_tenant.get(tenant)
        if own is not None and len(own) >= MIN_OBSERVATIONS:
            return own
        return self._all if len(self._all) >= MIN_OBSERVATIONS else None

    def _further(self, generated: int) -> int:
        return int(generated * LONGER) + 1
