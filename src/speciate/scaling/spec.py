"""Markets as an operator writes them down: this machine, what could be rented beside it, and where prices, machines and
carbon are told. Does no I/O: files and addresses are named here and read elsewhere (`batch/market_sources.py`).

here: {market: dedicated, hourly: [{hour: 7, value: 0.30}, {hour: 22, value: 0.10}], power_kw: 0.4}
offers:
  - {name: on-demand, kind: on_demand, usd_per_h: 2.29}
  - {name: zone-a, kind: spot, usd_per_h: 0.80, lost_s: 30, machines: {file: zone-a.csv}}
  - {name: night, kind: on_demand, hourly: [{hour: 7, value: 3.0}, {hour: 22, value: 1.1}]}
options: {carbon_usd_per_kg: 0.1}
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from speciate.core.errors import ConfigError
from speciate.scaling.estimate import Estimate, estimate
from speciate.scaling.market import JobState, MarketKind, MarketOptions, MarketView
from speciate.scaling.runs import MarketHistory
from speciate.scaling.signals import HOUR_S, ByMarket, HourlyRow, HourlySchedule, MarketSignals, told

HERE = "here"
"""This machine among the markets; no offer may be called so."""

NotNegative = Annotated[float, Meta(ge=0.0)]
Positive = Annotated[float, Meta(gt=0.0)]


class SignalSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a number by time is told: one of `hourly`, `file`, `url`."""

    hourly: tuple[HourlyRow, ...] = ()
    """By hour of the day, the same every day."""
    file: str | None = None
    """A CSV: rows of `time,value`, or a header and a column a name, or Google's table of regions (carbon)."""
    url: str | None = None
    """Answers with a JSON object of numbers by name; read again every `refresh_s`."""
    query: str | None = None
    """Makes `url` a Prometheus server that is asked this; `label` names its series."""
    label: str = "name"
    name: str | None = None
    """Of the number in the answer, or of the column; null: the market's name, for carbon its region."""
    begins: str | None = None
    """When a file's time 0 is (ISO 8601); null: its times are Unix seconds, or, where they begin below a billion,
    counted from the start of this process."""
    repeats: bool = False
    """A file's times begin again after its last row."""


class NoticeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How this machine is told that it will be taken away."""

    source: Literal["none", "aws", "gcp"] = "none"
    """Whose metadata service is polled. SIGTERM always counts."""
    url: str | None = None
    """Of the metadata service; null: the cloud's own."""
    poll_s: Positive = 2.0
    period_s: Positive | None = None
    """How long the machine stays after SIGTERM; null: `server.drain_s`. Clouds: AWS 120, Google 30."""
    margin_s: NotNegative = 3.0
    """Kept free before the machine goes."""


class HereSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """This machine: what provenance says of it, and what batch work costs here."""

    name: str | None = None
    """Null: the host's name."""
    market: Literal["dedicated", "on_demand", "spot", "edge"] = "dedicated"
    """How it is held."""
    region: str = ""
    speed: Positive = 1.0
    """Work done a second, relative to the rented on-demand machine."""
    usd_per_h: NotNegative | None = None
    """What an hour of it costs, electricity or rent; null: not known, counted as nothing."""
    hourly: tuple[HourlyRow, ...] = ()
    """The same by hour of the day."""
    price: SignalSpec | None = None
    """The same from a file or an address; `usd_per_h` counts where it does not know."""
    gco2_per_kwh: NotNegative = 0.0
    carbon: SignalSpec | None = None
    power_kw: NotNegative = 0.0
    waits: bool = True
    """Jobs with slack wait for cheaper hours, where price or carbon differ by hour."""
    notice: NoticeSpec = NoticeSpec()


class MarketSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One market to rent in. Its price is a constant or a schedule of hours, and may be told by a source."""

    name: str
    kind: MarketKind
    usd_per_h: NotNegative | None = None
    hourly: tuple[HourlyRow, ...] = ()
    price: SignalSpec | None = None
    """From a file or an address; `usd_per_h` or `hourly` counts where it does not know."""
    machines: SignalSpec | None = None
    """How many machines can be had; fewer than a job needs: none."""
    is_available: bool = True
    """Whether machines can be had, where `machines` does not say."""
    region: str = ""
    start_s: NotNegative = 180.0
    """Paid time from asking for a machine until it works."""
    lost_s: NotNegative = 0.0
    """Work that a preemption undoes."""
    notice_s: NotNegative = 30.0
    speed: Positive = 1.0
    gco2_per_kwh: NotNegative = 0.0
    carbon: SignalSpec | None = None
    power_kw: NotNegative = 0.0


class MarketsSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where and when batch work is cheap. Offers need a fleet to be rented; without one they are only counted."""

    here: HereSpec = HereSpec()
    offers: tuple[MarketSpec, ...] = ()
    """What could be rented; at least one is on-demand."""
    options: MarketOptions = MarketOptions()
    utc_offset_h: float = 0.0
    """Of the schedules' hours: 1 for Berlin in winter."""
    refresh_s: Positive = 60.0
    """How often addresses are read."""
    max_machines: Annotated[int, Meta(ge=1)] = 1
    """That a job may rent at once."""


def parse_markets(tree: Any) -> MarketsSpec:
    """Check plain values (from YAML or JSON). Raises ConfigError with the place."""
    try:
        spec = msgspec.convert(tree, MarketsSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"markets: {error}") from error
    check_markets(spec)
    return spec


def check_markets(spec: MarketsSpec) -> None:
    """What types cannot say. Raises ConfigError."""
    names = [HERE, *(offer.name for offer in spec.offers)]
    if len(set(names)) < len(names):
        raise ConfigError(f"markets: a name is used twice: {', '.join(names)}; make names unique")
    if spec.offers and all(offer.kind is not MarketKind.ON_DEMAND for offer in spec.offers):
        raise ConfigError("markets: no offer is of kind on_demand, and no deadline can be kept without one; add it")
    for offer in spec.offers:
        if (offer.usd_per_h is None) == (not offer.hourly):
            raise ConfigError(f"markets: {offer.name} needs either usd_per_h or hourly, not both")
    if spec.here.usd_per_h is not None and spec.here.hourly:
        raise ConfigError("markets: here takes usd_per_h or hourly, not both")
    for name, what, signal in named_signals(spec):
        if sum((bool(signal.hourly), signal.file is not None, signal.url is not None)) != 1:
            raise ConfigError(f"markets: {what} of {name} takes one of hourly, file and url")
    if not spec.options.tick_s > 0:
        raise ConfigError(f"markets: options.tick_s is {spec.options.tick_s:g}; it takes seconds above 0, such as 300")
    scheduled(spec)


def named_signals(spec: MarketsSpec) -> tuple[tuple[str, str, SignalSpec], ...]:
    """(market, `price` | `machines` | `carbon`, where it is told) of all that are told somewhere."""
    found: list[tuple[str, str, SignalSpec | None]] = [
        (HERE, "price", spec.here.price),
        (HERE, "carbon", spec.here.carbon),
    ]
    for offer in spec.offers:
        found += [(offer.name, "price", offer.price), (offer.name, "machines", offer.machines)]
        found += [(offer.name, "carbon", offer.carbon)]
    return tuple((name, what, signal) for name, what, signal in found if signal is not None)


def scheduled(spec: MarketsSpec) -> MarketSignals:
    """All that is told by the hour; constants are left to the views, files and addresses to who may read."""
    offset_s = spec.utc_offset_h * HOUR_S
    rows = {offer.name: offer.hourly for offer in spec.offers if offer.hourly}
    if spec.here.hourly:
        rows[HERE] = spec.here.hourly
    found = {"price": {name: HourlySchedule(hourly, offset_s).at for name, hourly in rows.items()}}
    for name, what, signal in named_signals(spec):
        if signal.hourly:
            found.setdefault(what, {})[name] = HourlySchedule(signal.hourly, offset_s).at
    return MarketSignals(*(ByMarket(found.get(what, {})) for what in ("price", "machines", "carbon")))


def here_view(spec: MarketsSpec, signals: MarketSignals, now_s: float) -> MarketView:
    """This machine as a market: always there, no start."""
    here = spec.here
    view = MarketView(
        name=HERE,
        kind=MarketKind.ON_DEMAND,
        is_available=True,
        price_usd_per_h=here.usd_per_h or 0.0,
        start_s=0.0,
        speed=here.speed,
        gco2_per_kwh=here.gco2_per_kwh,
        power_kw=here.power_kw,
    )
    return told(view, now_s, signals)


def offer_views(
    spec: MarketsSpec, signals: MarketSignals, now_s: float, num_machines: int = 1
) -> tuple[MarketView, ...]:
    """What could be rented, as it looks now to a job that needs so many machines."""
    return tuple(told(_view(offer), now_s, signals, num_machines) for offer in spec.offers)


def dry_run(
    spec: MarketsSpec, job: JobState, history: MarketHistory | None = None, signals: MarketSignals | None = None
) -> Estimate:
    """What `job` will cost on the offers, when it ends, and why; `explained` puts it into words."""
    told_by = signals or scheduled(spec)
    views = offer_views(spec, told_by, job.now_s, job.num_machines)
    return estimate(
        job,
        views,
        history or MarketHistory(),
        spec.options,
        told_by.prices.usd_per_h,
        told_by.machines,
        grams=told_by.carbon.gco2_per_kwh,
    )


def _view(offer: MarketSpec) -> MarketView:
    return MarketView(
        name=offer.name,
        kind=offer.kind,
        is_available=offer.is_available,
        price_usd_per_h=offer.usd_per_h or 0.0,
        start_s=offer.start_s,
        lost_s=offer.lost_s,
        notice_s=offer.notice_s,
        speed=offer.speed,
        gco2_per_kwh=offer.gco2_per_kwh,
        power_kw=offer.power_kw,
    )
