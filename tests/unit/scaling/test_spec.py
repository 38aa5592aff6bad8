"""Markets as written down: what is read, what is refused, and a dry run over them."""

import inspect
from typing import Any

import pytest
import yaml

from speciate.core.errors import ConfigError
from speciate.scaling import spec as module
from speciate.scaling.estimate import explained
from speciate.scaling.market import JobState, MarketKind
from speciate.scaling.spec import HERE, dry_run, here_view, offer_views, parse_markets, scheduled

HOUR_S = 3600.0
WALL = {"name": "wall", "kind": "on_demand", "usd_per_h": 2.0}


def test_the_documented_example_is_read() -> None:
    text = inspect.cleandoc(module.__doc__ or "").split("\n\n", 1)[1]
    found = parse_markets(yaml.safe_load(text))
    assert [market.kind for market in found.offers] == [MarketKind.ON_DEMAND, MarketKind.SPOT, MarketKind.ON_DEMAND]
    told = scheduled(found)
    assert [view.price_usd_per_h for view in offer_views(found, told, 8 * HOUR_S)] == [2.29, 0.80, 3.0]
    assert [view.price_usd_per_h for view in offer_views(found, told, 23 * HOUR_S)] == [2.29, 0.80, 1.1]
    assert [here_view(found, told, hour * HOUR_S).price_usd_per_h for hour in (8, 23)] == [0.30, 0.10]
    assert (here_view(found, told, 0.0).name, here_view(found, told, 0.0).start_s) == (HERE, 0.0)
    assert found.options.carbon_usd_per_kg == 0.1


def test_hours_are_local() -> None:
    night = {"name": "n", "kind": "on_demand", "hourly": [{"hour": 7, "value": 3.0}, {"hour": 22, "value": 1.0}]}
    found = parse_markets({"offers": [night], "utc_offset_h": 2})
    assert offer_views(found, scheduled(found), 5.5 * HOUR_S)[0].price_usd_per_h == 3.0


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"offers": [{"name": "s", "kind": "spot", "usd_per_h": 1.0}]}, "no offer is of kind on_demand"),
        ({"offers": [WALL, WALL]}, "used twice"),
        ({"offers": [{"name": "w", "kind": "on_demand"}]}, "either usd_per_h or hourly"),
        ({"offers": [{**WALL, "hourly": [{"hour": 1, "value": 1.0}]}]}, "either usd_per_h or hourly"),
        ({"offers": [{**WALL, "cost": 1}]}, "unknown field `cost`"),
        ({"offers": [{**WALL, "name": "here"}]}, "used twice"),
        ({"offers": [{**WALL, "price": {"file": "a", "url": "b"}}]}, "price of wall takes one of"),
        ({"here": {"carbon": {}}}, "carbon of here takes one of"),
        ({"here": {"usd_per_h": 1.0, "hourly": [{"hour": 1, "value": 1.0}]}}, "usd_per_h or hourly, not both"),
        ({"options": {"tick_s": 0}}, "seconds above 0"),
        ({"offers": [{**WALL, "kind": "lent"}]}, "Invalid enum value 'lent'"),
        ({"offers": [{"name": "w", "kind": "on_demand", "hourly": [{"hour": 25, "value": 1.0}]}]}, "hours from 0"),
    ],
)
def test_what_is_wrong_is_named(tree: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_markets(tree)


def test_a_dry_run_waits_for_the_cheap_hours() -> None:
    hourly = [{"hour": 0, "value": 3.0}, {"hour": 6, "value": 1.0}]
    found = parse_markets({"offers": [{"name": "wall", "kind": "on_demand", "hourly": hourly}]})
    said = dry_run(found, JobState(4 * HOUR_S, 14 * HOUR_S, 0.0))
    assert said.cost_usd.mean == pytest.approx(4.05, rel=0.02)
    assert said.on_demand_usd == pytest.approx(3 * 4.05, rel=0.01)
    assert "waits" in explained(said)[0]


def test_carbon_by_the_hour_moves_work_where_it_is_priced() -> None:
    carbon = {"hourly": [{"hour": 0, "value": 600.0}, {"hour": 6, "value": 100.0}]}
    wall = {**WALL, "power_kw": 1.0, "carbon": carbon}
    job = JobState(4 * HOUR_S, 14 * HOUR_S, 0.0)
    blind = dry_run(parse_markets({"offers": [wall]}), job)
    green = dry_run(parse_markets({"offers": [wall], "options": {"carbon_usd_per_kg": 1.0}}), job)
    assert (green.cost_usd.mean, blind.cost_usd.mean) == (pytest.approx(2 * 4.05), pytest.approx(2 * 4.05))
    assert blind.co2_kg == pytest.approx(0.6 * 4.05)
    assert green.co2_kg == pytest.approx(0.1 * 4.05, rel=0.02)
