"""Reads what the settings name: files once, addresses again and again. Gives signals, as decisions know them."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from speciate.core.errors import ConfigError, SignalUnavailable
from speciate.scaling.market import MarketKind
from speciate.scaling.runs import MarketHistory, observed
from speciate.scaling.signals import (
    MarketSignals,
    StepTrace,
    Told,
    parse_columns,
    parse_region_carbon,
    parse_steps,
    parse_time_s,
)
from speciate.scaling.spec import HERE, MarketsSpec, SignalSpec, named_signals, offer_views, scheduled
from speciate.telemetry.live_signals import JsonSource, LiveOptions, LiveTable, PrometheusSource

log = logging.getLogger(__name__)

STALE_S = 900.0
"""What an address said counts for so long, or for three readings if that is longer."""
UNIX_S = 1e9
"""Times of a file that begin below this count from some moment, not from 1970."""


class MarketBoard:
    """What is known of markets now: signals, and what zones did since this process began. `refresh` blocks for seconds
    at most: call it on a thread."""

    def __init__(self, spec: MarketsSpec, began_s: float) -> None:
        """Raises ConfigError for a file that cannot be read."""
        self.spec = spec
        self.history = MarketHistory()
        self._live: dict[tuple[str, str | None, str], LiveTable] = {}
        found: dict[str, dict[str, Told]] = defaultdict(dict)
        for name, what, signal in named_signals(spec):
            told_by = self._told_by(name, what, signal, began_s)
            if told_by is not None:
                found[what][name] = told_by
        plain = scheduled(spec)
        self.signals = MarketSignals(
            plain.prices.joined(found["price"]),
            plain.machines.joined(found["machines"]),
            plain.carbon.joined(found["carbon"]),
        )

    @property
    def is_live(self) -> bool:
        return bool(self._live)

    def usd_per_h_here(self, now_s: float) -> float | None:
        """What an hour of this machine costs now; None where nobody said."""
        told_usd = self.signals.prices.usd_per_h(HERE, now_s)
        return self.spec.here.usd_per_h if told_usd is None else told_usd

    def refresh(self, now_s: float) -> None:
        """Read the addresses, look at the zones. One that fails is logged; what it said before counts until stale."""
        for table in self._live.values():
            try:
                table.refresh(now_s)
            except SignalUnavailable as error:
                log.warning("%s", error)
        self.look(now_s)

    def look(self, now_s: float) -> None:
        """Note which zones are up, and their prices: how long they stay is learnt from it."""
        spots = [view for view in offer_views(self.spec, self.signals, now_s) if view.kind is MarketKind.SPOT]
        if spots:
            prices = {view.name: view.price_usd_per_h if view.is_available else None for view in spots}
            self.history = observed(self.history, prices, now_s)

    def _told_by(self, market: str, what: str, signal: SignalSpec, began_s: float) -> Told | None:
        """None for what is told by the hour: that needs no reading."""
        name = signal.name or (_region(self.spec, market) if what == "carbon" else "") or market
        if signal.url is not None:
            return _reader(self._table(signal, signal.url), what, name)
        if signal.file is not None:
            return _file_told(signal, signal.file, name, began_s)
        return None

    def _table(self, signal: SignalSpec, url: str) -> LiveTable:
        """One an address, however many markets it tells of."""
        key = (url, signal.query, signal.label)
        if key not in self._live:
            options = LiveOptions(stale_s=max(STALE_S, 3 * self.spec.refresh_s))
            source = (
                JsonSource(url, options)
                if signal.query is None
                else PrometheusSource(url, signal.query, signal.label, options)
            )
            self._live[key] = LiveTable(source)
        return self._live[key]


def open_board(spec: MarketsSpec, now_s: Callable[[], float] = time.time) -> MarketBoard:
    """Read everything once. Blocks. Raises ConfigError."""
    board = MarketBoard(spec, now_s())
    board.refresh(now_s())
    return board


def _region(spec: MarketsSpec, market: str) -> str:
    if market == HERE:
        return spec.here.region
    return next(offer.region for offer in spec.offers if offer.name == market)


def _reader(table: LiveTable, what: str, name: str) -> Told:
    if what == "price":
        return lambda at_s: table.usd_per_h(name, at_s)
    if what == "machines":
        return lambda at_s: table.num_machines(name, at_s)
    return lambda at_s: table.gco2_per_kwh(name, at_s)


def _file_told(signal: SignalSpec, file: str, name: str, began_s: float) -> Told:
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"markets: {file} cannot be read: {error}. Check the path.") from error
    try:
        return _parsed(signal, text, name, began_s)
    except ConfigError as error:
        raise ConfigError(f"markets: {file}: {error.message}") from error


def _parsed(signal: SignalSpec, text: str, name: str, began_s: float) -> Told:
    """A table of regions, a header with names, or bare rows: told apart by the first cells."""
    head, first = ([*text.split("\n", 2), "", ""])[:2]
    if not _is_time(first.split(",")[0]) and not _is_time(head.split(",")[0]):
        carbon = parse_region_carbon(text)
        if carbon.gco2_per_kwh(name, 0.0) is None:
            raise ConfigError(f"there is no row for the region {name!r}; name one of its first column")
        return lambda at_s: carbon.gco2_per_kwh(name, at_s)
    trace = parse_steps(text) if _is_time(head.split(",")[0]) else _column(parse_columns(text), name)
    placed = _placed(trace, signal, began_s)
    return placed.repeated if signal.repeats else placed.at


def _column(columns: dict[str, StepTrace], name: str) -> StepTrace:
    """A single column needs no name."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    if name not in columns:
        raise ConfigError(f"there is no column {name!r}; it has {', '.join(columns)}")
    return columns[name]


def _placed(trace: StepTrace, signal: SignalSpec, began_s: float) -> StepTrace:
    if signal.begins is not None:
        try:
            return trace.moved(parse_time_s(signal.begins))
        except ValueError as error:
            raise ConfigError(f"begins is {signal.begins!r}; write it as 2026-11-25T06:00") from error
    return trace if trace.begins_s >= UNIX_S else trace.moved(began_s)


def _is_time(cell: str) -> bool:
    try:
        parse_time_s(cell)
    except ValueError:
        return False
    return True
