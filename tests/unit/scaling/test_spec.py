"""Markets as written down: what is read, what is refused, and a dry run over them."""

import inspect
from typing import Any

import pytest
import yaml

from speciate.core.errors import ConfigError
from speciate.scaling import spec as module
from speciate.scaling.estimate import explained
from speciate.scaling.market import JobState, MarketKind
from speciate.scaling.spec import dry_run, parse_markets, views_of

HOUR_S = 3600.0
WALL = {"name": "wall", "kind": "on_demand", "usd_per_h": 2.0}


def test_the_documented_example_is_read() -> None:
    text = inspect.cleandoc(module.__doc__ or "").split("\n\n", 1)[1]
    found = parse_markets(yaml.safe_load(text))
    assert [market.kind for market in found.markets] == [MarketKind.ON_DEMAND, MarketKind.SPOT, MarketKind.ON_DEMAND]
    assert [view.price_usd_per_h for view in views_of(found, 8 * HOUR_S)] == [2.29, 0.80, 3.0]
    assert [view.price_usd_per_h for view in views_of(found, 23 * HOUR_S)] == [2.29, 0.80, 1.1]
    assert found.options.carbon_usd_per_kg == 0.1


def test_hours_are_local() -> None:
    night = {"name": "n", "kind": "on_demand", "hourly": [{"hour": 7, "value": 3.0}, {"hour": 22, "value": 1.0}]}
    found = parse_markets({"markets": [night], "utc_offset_h": 2})
    assert views_of(found, 5.5 * HOUR_S)[0].price_usd_per_h == 3.0


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"markets": [{"name": "s", "kind": "spot", "usd_per_h": 1.0}]}, "none is of kind on_demand"),
        ({"markets": [WALL, WALL]}, "used twice"),
        ({"markets": [{"name": "w", "kind": "on_demand"}]}, "either usd_per_h or hourly"),
        ({"markets": [{**WALL, "hourly": [{"hour": 1, "value": 1.0}]}]}, "either usd_per_h or hourly"),
        ({"markets": [{**WALL, "price": 1}]}, "unknown field `price`"),
        ({"markets": [{**WALL, "kind": "lent"}]}, "Invalid enum value 'lent'"),
        ({"markets": [{"name": "w", "kind": "on_demand", "hourly": [{"hour": 25, "value": 1.0}]}]}, "hours from 0"),
    ],
)
def test_what_is_wrong_is_named(tree: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_markets(tree)


def test_a_dry_run_waits_for_the_cheap_hours() -> None:
    hourly = [{"hour": 0, "value": 3.0}, {"hour": 6, "value": 1.0}]
    found = parse_markets({"markets": [{"name": "wall", "kind": "on_demand", "hourly": hourly}]})
    said = dry_run(found, JobState(4 * HOUR_S, 14 * HOUR_S, 0.0))
    assert said.cost_usd.mean == pytest.approx(4.05, rel=0.02)
    assert said.on_demand_usd == pytest.approx(3 * 4.05, rel=0.01)
    assert "waits" in explained(said)[0]
