"""Prices, machines and carbon from a live HTTP source: JSON at a URL, or a Prometheus query. Implements core's ports.

`refresh` fetches (blocking, seconds at most: call it on a thread, every minute or so); reading never blocks. What is
older than `stale_s` counts as unknown, and a source that fails keeps what it said until then.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import msgspec
from msgspec import Struct

from speciate.core.errors import ConfigError, SignalUnavailable


class LiveOptions(Struct, frozen=True):
    """How a live source is read."""

    timeout_s: float = 5.0
    stale_s: float = 900.0
    headers: tuple[tuple[str, str], ...] = ()
    max_bytes: int = 1_000_000


class JsonSource:
    """A URL that answers with an object of numbers by name: `{"spot": 0.8, "on-demand": 2.29}`."""

    def __init__(self, url: str, options: LiveOptions | None = None) -> None:
        self._url = _checked(url)
        self._options = options or LiveOptions()

    @property
    def stale_s(self) -> float:
        return self._options.stale_s

    def fetch(self) -> Mapping[str, float]:
        """Raises SignalUnavailable."""
        found: dict[str, float] = _decoded(_read(self._url, self._options), dict[str, float], self._url)
        return found


class PrometheusSource:
    """An instant query whose series are named by one label, such as `spot_usd_per_h` by `zone`."""

    def __init__(self, server: str, query: str, label: str, options: LiveOptions | None = None) -> None:
        self._url = f"{_checked(server).rstrip('/')}/api/v1/query?{urlencode({'query': query})}"
        self._label = label
        self._options = options or LiveOptions()

    @property
    def stale_s(self) -> float:
        return self._options.stale_s

    def fetch(self) -> Mapping[str, float]:
        """Raises SignalUnavailable; series without the label are left out."""
        answer: _Answer = _decoded(_read(self._url, self._options), _Answer, self._url)
        if answer.status != "success":
            raise SignalUnavailable(f"{self._url} answered {answer.status!r}: {answer.error or 'no reason given'}")
        return {
            series.metric[self._label]: float(series.value[1])
            for series in answer.data.result
            if self._label in series.metric
        }


class LiveTable:
    """The newest values of a source. Knows nothing of the future: asked for a time after the last fetch plus
    `stale_s`, or before it, it says None, so plans assume the price of now."""

    def __init__(self, source: JsonSource | PrometheusSource) -> None:
        self._source = source
        self._lock = Lock()
        self._values: Mapping[str, float] = {}
        self._fetched_s = float("-inf")

    def refresh(self, now_s: float) -> None:
        """Fetch; on failure raises SignalUnavailable and keeps what it had."""
        values = self._source.fetch()
        with self._lock:
            self._values, self._fetched_s = values, now_s

    def usd_per_h(self, market: str, at_s: float) -> float | None:
        return self._value(market, at_s)

    def num_machines(self, market: str, at_s: float) -> int | None:
        value = self._value(market, at_s)
        return None if value is None else int(value)

    def gco2_per_kwh(self, region: str, at_s: float) -> float | None:
        return self._value(region, at_s)

    def _value(self, name: str, at_s: float) -> float | None:
        with self._lock:
            is_fresh = self._fetched_s <= at_s <= self._fetched_s + self._source.stale_s
            return self._values.get(name) if is_fresh else None


class _Series(Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Result(Struct):
    result: list[_Series] = []


class _Answer(Struct):
    """Prometheus HTTP API, instant query."""

    status: str
    data: _Result = msgspec.field(default_factory=_Result)
    error: str = ""


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is no http or https URL")
    return url


def _read(url: str, options: LiveOptions) -> bytes:
    try:
        with urlopen(Request(url, headers=dict(options.headers)), timeout=options.timeout_s) as answer:
            body: bytes = answer.read(options.max_bytes + 1)
    except (URLError, OSError) as error:
        raise SignalUnavailable(f"{url} cannot be read: {error}. Check the address and that it answers.") from error
    if len(body) > options.max_bytes:
        raise SignalUnavailable(f"{url} answered more than {options.max_bytes} bytes; is it the right address?")
    return body


def _decoded(body: bytes, kind: Any, url: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise SignalUnavailable(f"{url} answered what cannot be read as numbers by name: {error}") from error
