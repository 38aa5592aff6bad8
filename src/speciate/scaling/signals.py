"""Prices, machines and carbon as data: from a schedule of hours, or steps over time (a trace). Implements core's ports.

Texts are parsed here, files are read elsewhere: this package does no I/O. Live sources are adapters outside.
"""

import csv
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
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


Source = HourlySchedule | StepTrace


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


def parse_steps(text: str, seconds_per_unit: float = 1.0) -> StepTrace:
    """`time,value` rows, with or without a header line; Bamboo's group sizes are such. Raises ConfigError."""
    rows = [row for row in csv.reader(StringIO(text)) if row]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    try:
        return StepTrace((float(row[0]) * seconds_per_unit, float(row[1])) for row in rows)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"not rows of time,value: {error}") from error


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
