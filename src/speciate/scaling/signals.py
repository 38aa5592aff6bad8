"""Prices, machines and carbon as data: from a schedule of hours, or steps over time (a trace). Implements core's ports.

Texts are parsed here, files are read elsewhere: this package does no I/O. Live sources are adapters outside.
"""

import csv
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from itertools import pairwise

from msgspec import Struct

from speciate.core.errors import ConfigError
from speciate.core.ports import AvailabilitySignal, CarbonSignal, PriceSignal
from speciate.scaling.market import MarketView
from speciate.scaling.outlook import Forecast

DAY_S = 86_400.0
HOUR_S = 3600.0


class HourlyRow(Struct, frozen=True):
    """From this hour of the day (0 to 24, fractions allowed) this value holds, until the next row's hour."""

    hour: float
    value: float


class HourlySchedule:
    """One value by hour of the day, the same every day; `offset_s` is what to add to a time to get the local one."""

    def __init__(self, rows: Sequence[HourlyRow], offset_s: float = 0.0) -> None:
        if not rows or any(not 0 <= row.hour < 24 for row in rows):
            raise ConfigError("a schedule needs rows with hours from 0 to below 24")
        if any(a.hour >= b.hour for a, b in pairwise(rows)):
            raise ConfigError("the hours of a schedule must rise; sort its rows and drop doubles")
        self._rows = tuple(rows)
        self._hours = [row.hour for row in rows]
        self._offset_s = offset_s

    def at(self, at_s: float) -> float:
        """Before the first row's hour yesterday's last row still holds."""
        hour = (at_s + self._offset_s) % DAY_S / HOUR_S
        return self._rows[bisect_right(self._hours, hour) - 1].value


class StepTrace:
    """Values that hold from their time to the next; before the first and after `until_s` nothing is known."""

    def __init__(self, steps: Iterable[tuple[float, float]], until_s: float | None = None) -> None:
        """`steps` are (time, value) in order; of equal times the last counts."""
        self._steps = tuple(steps)
        self._until_s = until_s
        if not self._steps or any(a > b for (a, _), (b, _) in pairwise(self._steps)):
            raise ConfigError("a trace needs rows whose times do not go back")
        self._times = [at_s for at_s, _ in self._steps]

    def at(self, at_s: float) -> float | None:
        if at_s < self._times[0] or (self._until_s is not None and at_s > self._until_s):
            return None
        return self._steps[bisect_right(self._times, at_s) - 1][1]

    @property
    def begins_s(self) -> float:
        return self._times[0]

    def moved(self, by_s: float) -> "StepTrace":
        """The same, so much later."""
        until_s = None if self._until_s is None else self._until_s + by_s
        return StepTrace([(at_s + by_s, value) for at_s, value in self._steps], until_s)

    def repeated(self, at_s: float) -> float | None:
        """As if it began again after its last row, for ever; before its first row nothing is known."""
        span_s = self._times[-1] - self._times[0]
        if span_s > 0 and at_s > self._times[-1]:
            at_s = self._times[0] + (at_s - self._times[0]) % span_s
        return self.at(at_s)


Source = HourlySchedule | StepTrace
Told = Callable[[float], float | None]
"""A number by time; None where nobody knows."""


class PriceTable:
    """Prices by market."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = dict(sources)

    def usd_per_h(self, market: str, at_s: float) -> float | None:
        source = self._sources.get(market)
        return source.at(at_s) if source else None


class MachineTable:
    """Machines that can be had, by market."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = dict(sources)

    def num_machines(self, market: str, at_s: float) -> int | None:
        source = self._sources.get(market)
        value = source.at(at_s) if source else None
        return None if value is None else int(value)


class CarbonTable:
    """Grid intensity by region: constant, or by source."""

    def __init__(self, sources: Mapping[str, Source | float]) -> None:
        self._sources = dict(sources)

    def gco2_per_kwh(self, region: str, at_s: float) -> float | None:
        source = self._sources.get(region)
        return source if isinstance(source, float) or source is None else source.at(at_s)


class ByMarket:
    """One number a market, each told by its own function of time. Implements all three ports; carbon by market too."""

    def __init__(self, told_by: Mapping[str, Told]) -> None:
        self._told_by = dict(told_by)

    def usd_per_h(self, market: str, at_s: float) -> float | None:
        return self._at(market, at_s)

    def num_machines(self, market: str, at_s: float) -> int | None:
        value = self._at(market, at_s)
        return None if value is None else int(value)

    def gco2_per_kwh(self, region: str, at_s: float) -> float | None:
        return self._at(region, at_s)

    def _at(self, market: str, at_s: float) -> float | None:
        told_by = self._told_by.get(market)
        return told_by(at_s) if told_by else None

    def joined(self, others: Mapping[str, Told]) -> "ByMarket":
        """With these markets' functions instead of its own."""
        return ByMarket({**self._told_by, **others})


class MarketSignals(Struct, frozen=True):
    """All that is told of markets."""

    prices: ByMarket
    machines: ByMarket
    carbon: ByMarket


def told(view: MarketView, at_s: float, signals: MarketSignals, num_machines: int = 1) -> MarketView:
    """`view` as the signals show it at `at_s`."""
    return seen(view, at_s, signals.prices, signals.machines, signals.carbon, view.name, num_machines)


def parse_steps(text: str, seconds_per_unit: float = 1.0) -> StepTrace:
    """`time,value` rows, with or without a header line; Bamboo's group sizes are such. Raises ConfigError."""
    rows = [row for row in csv.reader(StringIO(text)) if row]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    try:
        return StepTrace((float(row[0]) * seconds_per_unit, float(row[1])) for row in rows)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"not rows of time,value: {error}") from error


def parse_columns(text: str) -> dict[str, StepTrace]:
    """A header, the first column the time (Unix seconds or ISO 8601), then a column a name; empty cells say nothing.

    Raises ConfigError.
    """
    rows = [row for row in csv.reader(StringIO(text)) if row]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise ConfigError("not a table: a header line with a name for each column, then rows of time,value,...")
    try:
        times_s = [parse_time_s(row[0]) for row in rows[1:]]
        return {
            name: StepTrace(
                (at_s, float(row[i]))
                for at_s, row in zip(times_s, rows[1:], strict=True)
                if i < len(row) and row[i].strip()
            )
            for i, name in enumerate(rows[0][1:], start=1)
        }
    except ValueError as error:
        raise ConfigError(f"not rows of time,value,...: {error}") from error


def parse_time_s(text: str) -> float:
    """Unix seconds, or ISO 8601 (UTC where it names no zone). Raises ValueError."""
    if _is_number(text):
        return float(text)
    when = datetime.fromisoformat(text.strip())
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def parse_region_carbon(text: str) -> CarbonTable:
    """Google's yearly table: first column the region, last the grid's gCO2eq/kWh; rows without a number are skipped."""
    rows = list(csv.reader(StringIO(text)))[1:]
    return CarbonTable({row[0]: float(row[-1]) for row in rows if row and _is_number(row[-1])})


def seen(
    view: MarketView,
    at_s: float,
    prices: PriceSignal,
    machines: AvailabilitySignal | None = None,
    carbon: CarbonSignal | None = None,
    region: str = "",
    num_machines: int = 1,
) -> MarketView:
    """`view` as the signals show it at `at_s`. What they do not know stays as it is in `view`; a market with fewer
    machines than the job needs is not available."""
    price = prices.usd_per_h(view.name, at_s)
    room = machines.num_machines(view.name, at_s) if machines else None
    grams = carbon.gco2_per_kwh(region, at_s) if carbon else None
    return MarketView(
        name=view.name,
        kind=view.kind,
        is_available=view.is_available if room is None else room >= num_machines,
        price_usd_per_h=view.price_usd_per_h if price is None else price,
        start_s=view.start_s,
        lost_s=view.lost_s,
        notice_s=view.notice_s,
        speed=view.speed,
        gco2_per_kwh=view.gco2_per_kwh if grams is None else grams,
        power_kw=view.power_kw,
    )


def forecast_of(prices: PriceSignal) -> Forecast:
    """A signal that knows the future (a schedule, a trace) as a plan's forecast."""
    return prices.usd_per_h


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
