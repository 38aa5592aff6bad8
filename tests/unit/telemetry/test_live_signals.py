"""Live sources against a real local server: JSON and Prometheus answers, staleness, and what each failure says."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from speciate.core.errors import ConfigError, SignalUnavailable
from speciate.core.ports import AvailabilitySignal, CarbonSignal, PriceSignal
from speciate.telemetry.live_signals import JsonSource, LiveOptions, LiveTable, PrometheusSource


class Answers(BaseHTTPRequestHandler):
    """Prices at /prices, Prometheus at /api/v1/query; asks for a token there."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query).get("query", [""])[0]
        if parts.path == "/prices":
            self._answer(200, {"spot": 0.8, "on-demand": 2.29})
        elif parts.path == "/words":
            self._answer(200, {"spot": "cheap"})
        elif parts.path == "/secret" and self.headers["Authorization"] == "Bearer x":
            self._answer(200, {"spot": 1.0})
        elif parts.path == "/api/v1/query" and query == "spot_machines":
            series = [{"metric": {"zone": "a"}, "value": [1.5, "4"]}, {"metric": {}, "value": [1.5, "9"]}]
            self._answer(200, {"status": "success", "data": {"resultType": "vector", "result": series}})
        elif parts.path == "/api/v1/query":
            self._answer(200, {"status": "error", "errorType": "bad_data", "error": "no such metric"})
        else:
            self._answer(404, {})

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_prices_are_known_from_the_fetch_until_they_are_stale(server: str) -> None:
    table = LiveTable(JsonSource(f"{server}/prices", LiveOptions(stale_s=60.0)))
    prices: PriceSignal = table
    assert prices.usd_per_h("spot", 100.0) is None
    table.refresh(100.0)
    assert [prices.usd_per_h("spot", at_s) for at_s in (99.0, 100.0, 160.0, 161.0)] == [None, 0.8, 0.8, None]
    assert prices.usd_per_h("other", 100.0) is None


def test_prometheus_series_by_label(server: str) -> None:
    table = LiveTable(PrometheusSource(f"{server}/", "spot_machines", "zone"))
    table.refresh(0.0)
    machines: AvailabilitySignal = table
    carbon: CarbonSignal = table
    assert (machines.num_machines("a", 0.0), machines.num_machines("b", 0.0)) == (4, None)
    assert carbon.gco2_per_kwh("a", 0.0) == 4.0


def test_headers_are_sent(server: str) -> None:
    options = LiveOptions(headers=(("Authorization", "Bearer x"),))
    assert JsonSource(f"{server}/secret", options).fetch() == {"spot": 1.0}


@pytest.mark.parametrize(("path", "said"), [("/nothing", "404"), ("/words", "numbers by name")])
def test_failures_say_what_happened_and_keep_what_was_known(server: str, path: str, said: str) -> None:
    table = LiveTable(JsonSource(f"{server}/prices"))
    table.refresh(0.0)
    broken = LiveTable(JsonSource(f"{server}{path}"))
    with pytest.raises(SignalUnavailable, match=said):
        broken.refresh(0.0)
    assert broken.usd_per_h("spot", 0.0) is None
    assert table.usd_per_h("spot", 0.0) == 0.8


def test_a_refused_query_gives_prometheus_reason(server: str) -> None:
    with pytest.raises(SignalUnavailable, match="no such metric"):
        PrometheusSource(server, "typo", "zone").fetch()


def test_too_long_an_answer_is_refused(server: str) -> None:
    with pytest.raises(SignalUnavailable, match="more than 5 bytes"):
        JsonSource(f"{server}/prices", LiveOptions(max_bytes=5)).fetch()


def test_nobody_there() -> None:
    with pytest.raises(SignalUnavailable, match="cannot be read"):
        JsonSource("http://127.0.0.1:9/prices", LiveOptions(timeout_s=1.0)).fetch()


def test_only_http_addresses() -> None:
    with pytest.raises(ConfigError, match="no http"):
        JsonSource("file:///etc/passwd")
