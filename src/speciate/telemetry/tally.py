"""Counters and histograms for the path of every token: a list index and two additions, no lock. The library's own take
a lock for each number and compare bound by bound (2 to 3 us); they stay for everything that is seldom.

Written and read on the event loop only.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class CountTally:
    """One counter with its labels bound."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount


class HistogramTally:
    """One histogram with its labels bound."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values up to each bound and above the one before; the last are above all."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


T = TypeVar("T", CountTally, HistogramTally)


class _Family(Collector, Generic[T]):
    """The children of one metric by their labels' values."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._children: dict[tuple[str, ...], T] = {}
        registry.register(self)

    def _child(self, values: tuple[str, ...], new: T) -> T:
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, not {len(values)} of them")
        return self._children.setdefault(tuple(map(str, values)), new)


class CountFamily(_Family[CountTally]):
    """Exposed as `NAME_total`."""

    def labels(self, *values: str) -> CountTally:
        return self._child(values, CountTally())

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._children.items():
            family.add_metric(values, child.value)
        yield family


class HistogramFamily(_Family[HistogramTally]):
    """Buckets of values up to `bounds`, in rising order."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...], registry: CollectorRegistry
    ) -> None:
        super().__init__(name, text, labels, registry)
        self._bounds = tuple(map(float, bounds))

    def labels(self, *values: str) -> HistogramTally:
        return self._child(values, HistogramTally(self._bounds))

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*map(str, self._bounds), "+Inf"]
        for values, child in self._children.items():
            buckets = list(zip(names, map(float, accumulate(child.counts)), strict=True))
            family.add_metric(values, buckets, child.total)
        yield family
