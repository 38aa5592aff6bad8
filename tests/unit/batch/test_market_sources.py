"""Prices, machines and carbon from files and from a real local server, as settings name them."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from speciate.batch.market_sources import MarketBoard, open_board
from speciate.core.errors import ConfigError
from speciate.scaling.spec import HERE, here_view, offer_views, parse_markets

HOUR_S = 3600.0
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
WALL = {"name": "wall", "kind": "on_demand", "usd_per_h": 2.0}
ZONE = {"name": "zone-a", "kind": "spot", "usd_per_h": 0.9}


def board(tree: Any, began_s: float = 0.0) -> MarketBoard:
    return open_board(parse_markets(tree), lambda: began_s)


def zone(made: MarketBoard, at_s: float, num_machines: int = 1) -> tuple[bool, float, float]:
    (view,) = [v for v in offer_views(made.spec, made.signals, at_s, num_machines) if v.name == "zone-a"]
    return view.is_available, view.price_usd_per_h, view.gco2_per_kwh


def test_bare_rows_count_from_the_start_and_may_repeat(tmp_path: Path) -> None:
    path = tmp_path / "group.csv"
    path.write_text("0,0\n100,4\n200,0\n300,0\n")
    once = board({"offers": [WALL, {**ZONE, "machines": {"file": str(path)}}]}, began_s=1e9)
    assert [zone(once, 1e9 + at_s)[0] for at_s in (50, 150, 250, 450)] == [False, True, False, False]
    assert [zone(once, 1e9 + 150, num)[0] for num in (4, 5)] == [True, False]
    again = board({"offers": [WALL, {**ZONE, "machines": {"file": str(path), "repeats": True}}]}, began_s=1e9)
    assert [zone(again, 1e9 + at_s)[0] for at_s in (150, 450, 550)] == [True, True, False]


def test_a_file_may_begin_at_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "group.csv"
    path.write_text("0,0\n3600,4\n")
    signal = {"file": str(path), "begins": "2026-11-25T06:00"}
    made = board({"offers": [WALL, {**ZONE, "is_available": False, "machines": signal}]})
    seven_s = 1_795_590_000.0  # 2026-11-25 07:00 UTC
    assert [zone(made, seven_s + more)[0] for more in (-7200, -1, 1)] == [False, False, True]


def test_columns_by_name_at_real_times(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(
        "time,wall,zone-a\n2026-11-25T06:00,2.5,0.5\n2026-11-25T07:00+00:00,2.0,\n2026-11-25T08:00,2.0,0.7\n"
    )
    made = board({"offers": [WALL, {**ZONE, "price": {"file": str(path)}}]})
    seven_s = 1_795_590_000.0
    assert [zone(made, seven_s + more)[1] for more in (-4000, -1, 1, 3601)] == [0.9, 0.5, 0.5, 0.7]


def test_regions_by_name(tmp_path: Path) -> None:
    path = tmp_path / "carbon.csv"
    path.write_text("Region,Location,CFE,Grid carbon intensity (gCO2eq / kWh)\nus-a,X,0.2,410.5\nus-b,Y,,\n")
    made = board({"offers": [WALL, {**ZONE, "region": "us-a", "carbon": {"file": str(path)}}]})
    assert zone(made, 0.0)[2] == 410.5
    with pytest.raises(ConfigError, match="no row for the region 'us-b'"):
        board({"here": {"region": "us-b", "carbon": {"file": str(path)}}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,a,b\n0,1,2\n", "no column 'zone-a'; it has a, b"),
        ("0,x\n", "not rows of"),
        ("time,a\n5,1\n4,1\n", "go back"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as raised:
        board({"offers": [WALL, {**ZONE, "price": {"file": str(path)}}]})
    assert "bad.csv" in raised.value.message


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        board({"here": {"price": {"file": "/nowhere.csv"}}})


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_the_published_files_are_read() -> None:
    traces = sorted((DATA / "spot").glob("*.csv"))
    carbon = {"file": str(DATA / "gcp_region_carbon_2024.csv")}
    offers = [WALL, {**ZONE, "region": "asia-east1", "machines": {"file": str(traces[0])}, "carbon": carbon}]
    made = board({"offers": offers})
    assert zone(made, 0.0) == (False, 0.9, 439.29)
    assert zone(made, 21_530.0)[0]


class Prices(BaseHTTPRequestHandler):
    answer: object = {}

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(type(self).answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Prices) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_an_address_is_read_again_and_again_and_counts_until_it_is_stale(url: str) -> None:
    Prices.answer = {"zone-a": 0.4, "power": 0.11}
    made = board(
        {
            "here": {"usd_per_h": 0.3, "price": {"url": url, "name": "power"}},
            "offers": [WALL, {**ZONE, "price": {"url": url}}],
        }
    )
    assert zone(made, 10.0)[1] == 0.4
    assert made.usd_per_h_here(10.0) == 0.11
    assert here_view(made.spec, made.signals, 2000.0).price_usd_per_h == 0.3
    Prices.answer = {"zone-a": 0.6}
    made.refresh(2000.0)
    assert zone(made, 2000.0)[1] == 0.6
    assert made.usd_per_h_here(2000.0) == 0.3
    Prices.answer = {"zone-a": "dear"}
    made.refresh(2500.0)
    assert zone(made, 2500.0)[1] == 0.6


def test_how_long_zones_stay_is_learnt_from_looking(url: str) -> None:
    Prices.answer = {"zone-a": 3}
    made = board({"offers": [WALL, {**ZONE, "machines": {"url": url}}]})
    made.refresh(600.0)
    Prices.answer = {"zone-a": 0}
    made.refresh(1200.0)
    seen = made.history.zones["zone-a"].weather
    assert (seen.is_up, seen.since_s) == (False, 1200.0)
    assert sum(seen.up.ends) == pytest.approx(1.0, rel=0.02)


def test_nothing_is_known_of_a_machine_whose_price_nobody_told() -> None:
    assert board({}).usd_per_h_here(0.0) is None
    hourly = [{"hour": 0, "value": 0.2}, {"hour": 12, "value": 0.1}]
    assert board({"here": {"hourly": hourly}}).usd_per_h_here(13 * HOUR_S) == 0.1
    assert HERE == "here"
