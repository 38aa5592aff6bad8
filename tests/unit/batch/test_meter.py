"""Lines share what their machine costs, moment by moment."""

import pytest

from speciate.batch.meter import Meter


class Time:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


class Counter:
    """A processor of 50 W; `away` makes it unreadable."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self.away = False

    def read_j(self) -> float:
        if self.away:
            raise OSError("gone")
        return 50.0 * self._time.s


def test_lines_that_run_side_by_side_share_each_moment() -> None:
    now = Time()
    meter = Meter(lambda: 3600.0, None, now)
    a = meter.begin()
    now.s = 10.0
    b = meter.begin()
    now.s = 14.0
    of_a = meter.end(a)
    now.s = 20.0
    of_b = meter.end(b)
    assert (of_a.usd, of_b.usd) == (12.0, 8.0)
    assert of_a.energy_j is None


def test_nothing_is_counted_while_nothing_runs() -> None:
    now = Time()
    meter = Meter(lambda: 3600.0, None, now)
    meter.end(meter.begin())
    now.s = 100.0
    begun = meter.begin()
    now.s = 101.0
    assert meter.end(begun).usd == 1.0


def test_a_price_that_nobody_knows_is_null() -> None:
    meter = Meter(lambda: None, None, Time())
    assert meter.end(meter.begin()).usd is None


def test_a_price_that_changes_counts_from_then_on() -> None:
    now, price = Time(), [3600.0]
    meter = Meter(lambda: price[0], None, now)
    begun = meter.begin()
    now.s = 10.0
    other = meter.begin()
    meter.end(other)
    price[0] = 7200.0
    now.s = 20.0
    meter.end(meter.begin())
    now.s = 30.0
    assert meter.end(begun).usd == pytest.approx(10 + 20 + 20)


def test_energy_is_shared_too_and_null_where_it_cannot_be_read() -> None:
    now = Time()
    counter = Counter(now)
    meter = Meter(lambda: None, counter, now)
    now.s = 1.0
    meter.end(meter.begin())
    a, b = meter.begin(), meter.begin()
    now.s = 3.0
    assert meter.end(a).energy_j == pytest.approx(50.0)
    assert meter.end(b).energy_j == pytest.approx(50.0)
    counter.away = True
    now.s = 4.0
    begun = meter.begin()
    now.s = 5.0
    assert meter.end(begun).usd is None
