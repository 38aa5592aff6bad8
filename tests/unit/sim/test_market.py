"""The replay by hand, the optimum against every possible course, and policies never below it."""

import itertools
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.core.errors import ConfigError
from speciate.scaling.market import Decision, Hold, JobState, MarketKind, MarketOptions, MarketView, Reason, Run
from speciate.scaling.plan import PlanOptions
from speciate.scaling.runs import MarketHistory
from speciate.sim.market import MarketJob, MarketTrace, Scene, check_scene, histories, look, replay
from speciate.sim.market_optimum import optimum_usd
from speciate.sim.market_policies import (
    OnDemandOnly,
    Planned,
    SpotGreedy,
    SpotThenWall,
    UniformProgress,
    reference_policies,
)
from speciate.sim.market_traces import PUBLISHED_ZONES, drawn_scene, read_group_sizes, span_s, traced_scene

TICK_S = 300.0
WHY = Reason("cheapest", 0.0)
OPTIONS = MarketOptions(tick_s=TICK_S)
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "spot"


class Fixed:
    """Does what it was told, tick by tick."""

    name = "fixed"

    def __init__(self, markets: tuple[str | None, ...]) -> None:
        self._markets = iter(markets)

    def decide(self, job: JobState, views: tuple[MarketView, ...], history: MarketHistory) -> Decision:
        market = next(self._markets)
        return Hold(WHY) if market is None else Run(market, WHY)


def scene(*zones: str, start_s: float = 180.0, lost_s: float = 60.0, prices: tuple[float, ...] = ()) -> Scene:
    """Zones as strings of U and d, a letter a tick; on-demand at 3 USD/h, zones at 1 unless told."""
    length = len(zones[0])
    wall = MarketView("wall", MarketKind.ON_DEMAND, True, 3.0, start_s=start_s)
    markets = [MarketTrace(wall, np.ones(length, bool), np.full(length, 3.0))]
    for i, zone in enumerate(zones):
        view = MarketView(f"z{i}", MarketKind.SPOT, False, 1.0, start_s=start_s, lost_s=lost_s)
        is_up = np.array([letter == "U" for letter in zone])
        markets.append(MarketTrace(view, is_up, np.full(length, prices[i] if prices else 1.0)))
    return Scene("made", TICK_S, tuple(markets))


def usd(price: float, seconds: float) -> float:
    return pytest.approx(price * seconds / 3600)


def test_a_start_is_paid_and_does_no_work() -> None:
    found = replay(scene("UUU"), MarketJob(0, 3, 420.0), Fixed(("z0",) * 3), MarketHistory())
    assert (found.ended_s, found.cost_usd, found.num_starts) == (600.0, usd(1, 600), 1)


def test_a_preemption_undoes_lines_and_a_new_start_is_paid() -> None:
    found = replay(scene("UdUU"), MarketJob(0, 4, 240.0), Fixed(("z0", None, "z0", "z0")), MarketHistory())
    assert (found.num_preempted, found.num_starts) == (1, 2)
    assert found.ended_s == 900 + 60
    assert found.cost_usd == usd(1, 300 + 360)


def test_leaving_in_time_loses_nothing() -> None:
    found = replay(scene("UUdU"), MarketJob(0, 4, 240.0), Fixed(("z0", "wall", "wall", "wall")), MarketHistory())
    assert (found.num_preempted, found.ended_s) == (0, 600.0)
    assert (found.spot_s, found.wall_s) == (300.0, 300.0)


def test_what_is_not_there_cannot_be_started() -> None:
    found = replay(scene("ddd"), MarketJob(0, 3, 60.0), Fixed(("z0",) * 3), MarketHistory())
    assert (found.is_met, found.cost_usd, found.num_starts) == (False, 0.0, 0)


def test_a_history_is_of_the_ticks_before() -> None:
    made = scene("UUdd")
    found = histories(made, [0, 3])
    assert found[0] == MarketHistory()
    step = MarketHistory()
    for tick in range(3):
        step = look(made, step, tick)
    assert found[3] == step


def test_scenes_that_the_tick_cannot_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not fit in a tick"):
        check_scene(scene("UU", start_s=280.0))
    with pytest.raises(ConfigError, match="must be on-demand"):
        check_scene(Scene("turned", TICK_S, scene("UU").markets[::-1]))


TINY = st.integers(1, 5).flatmap(lambda n: st.lists(st.text("Ud", min_size=n, max_size=n), min_size=1, max_size=2))


@settings(max_examples=60, deadline=None)
@given(
    zones=TINY,
    work_units=st.integers(1, 20),
    prices=st.tuples(st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from([0.7, 2.0])),
    start_s=st.sampled_from([0.0, 120.0, 240.0]),
    lost_s=st.sampled_from([0.0, 60.0]),
)
def test_the_optimum_is_the_best_of_all_courses(
    zones: list[str], work_units: int, prices: tuple[float, float], start_s: float, lost_s: float
) -> None:
    made = scene(*zones, start_s=start_s, lost_s=lost_s, prices=prices)
    job = MarketJob(0, made.num_ticks, work_units * 60.0)
    choices = [None, *(market.view.name for market in made.markets)]
    courses = itertools.product(choices, repeat=made.num_ticks)
    found = (replay(made, job, Fixed(course), MarketHistory()) for course in courses)
    best_usd = min((outcome.cost_usd for outcome in found if outcome.is_met), default=inf)
    assert optimum_usd(made, job) == pytest.approx(best_usd)


def test_the_optimum_needs_whole_seconds() -> None:
    with pytest.raises(ConfigError, match="whole seconds"):
        optimum_usd(scene("UU"), MarketJob(0, 2, 10.5))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), ratio=st.sampled_from([1.2, 1.5, 2.0, 4.0]), zone=st.integers(0, 8))
def test_ours_is_in_time_and_never_below_the_optimum(seed: int, ratio: float, zone: int) -> None:
    made = drawn_scene(PUBLISHED_ZONES[zone : zone + 2], 1.0, seed)
    job = MarketJob(0, int(ratio * 4 * 3600 / TICK_S), 4 * 3600.0)
    best_usd = optimum_usd(made, job)
    for make in (*reference_policies(OPTIONS), lambda: Planned(OPTIONS, grain=PlanOptions(48))):
        found = replay(made, job, make(), MarketHistory())
        if make is not SpotGreedy:
            assert found.is_met
        if found.is_met:
            assert found.cost_usd >= best_usd - 1e-9


def test_the_references_do_what_their_names_say() -> None:
    job = MarketJob(0, 8, 900.0)
    broken = scene("ddddUUUd")
    outcomes = {
        policy.name: replay(broken, job, policy, MarketHistory())
        for policy in (OnDemandOnly(), SpotGreedy(), SpotThenWall(OPTIONS), UniformProgress(OPTIONS))
    }
    assert outcomes["on-demand only"].cost_usd == usd(3, 1080)
    assert not outcomes["spot only, greedy"].is_met
    assert outcomes["spot, then wall"].wall_s > 0
    assert outcomes["uniform progress"].wall_s > 0
    assert all(outcome.is_met for name, outcome in outcomes.items() if name != "spot only, greedy")


def test_ours_beats_greedy_and_uniform_progress_over_many_jobs() -> None:
    """A drawn zone, seven days of sight, twelve jobs of 4 h with deadlines of 1.5 times."""
    made = drawn_scene(PUBLISHED_ZONES[4:5], 14.0, 3)
    starts = list(range(2016, 3800, 150))
    known = histories(made, starts)
    costs = dict.fromkeys(("ours", "greedy", "uniform", "best"), 0.0)
    for tick in starts:
        job = MarketJob(tick, 72, 4 * 3600.0)
        costs["best"] += optimum_usd(made, job)
        costs["ours"] += replay(made, job, Planned(OPTIONS, grain=PlanOptions(96)), known[tick]).cost_usd
        costs["greedy"] += replay(made, job, SpotThenWall(OPTIONS), known[tick]).cost_usd
        costs["uniform"] += replay(made, job, UniformProgress(OPTIONS), known[tick]).cost_usd
    assert costs["ours"] <= 1.15 * costs["best"]
    assert costs["ours"] < min(costs["greedy"], costs["uniform"])


def run_lengths(is_up: np.ndarray, value: bool) -> np.ndarray:
    """In ticks, in order. In arrays: a hundred thousand small objects would make the collector run here, and what an
    earlier test left unclosed would fail this one."""
    edges = np.flatnonzero(np.diff(is_up)) + 1
    starts = np.concatenate(([0], edges))
    lengths = np.diff(np.concatenate((starts, [len(is_up)])))
    return lengths[is_up[starts] == value]


def test_run_lengths() -> None:
    is_up = np.array([letter == "U" for letter in "UUdUdddU"])
    assert run_lengths(is_up, True).tolist() == [2, 1, 1]
    assert run_lengths(is_up, False).tolist() == [1, 3]


def test_drawn_zones_have_the_published_statistics() -> None:
    made = drawn_scene(PUBLISHED_ZONES, 45.0, 1)
    ups = [market.is_up_N for market in made.markets[1:]]
    shares = [float(up.mean()) for up in ups]
    assert 0.10 <= min(shares) <= 0.25
    assert 0.85 <= max(shares) <= 0.95
    for up in ups:
        minutes = 5 * run_lengths(up, True)
        assert 15 <= np.median(minutes) <= 100
        assert 40 <= np.mean(minutes) <= 800
        down_minutes = 5 * run_lengths(up, False)
        assert 20 <= np.median(down_minutes) <= 45
        assert max(down_minutes) <= 100 * 60
    any_up = np.logical_or.reduce(ups)
    assert 0.97 <= any_up.mean() <= 1.0
    assert drawn_scene(PUBLISHED_ZONES[:1], 1.0, 5).markets[1].is_up_N.tolist() == (
        drawn_scene(PUBLISHED_ZONES[:1], 1.0, 5).markets[1].is_up_N.tolist()
    )


def test_zones_of_a_region_go_together_more_than_by_chance() -> None:
    made = drawn_scene(PUBLISHED_ZONES[6:9], 200.0, 2)
    ups = [market.is_up_N for market in made.markets[1:]]
    alone = np.prod([1 - up.mean() for up in ups])
    assert (~np.logical_or.reduce(ups)).mean() > 2 * alone


def test_group_sizes_become_a_zone(tmp_path: Path) -> None:
    path = tmp_path / "aws-2020-11-20-1900-to-2020-11-20-2000.csv"
    path.write_text("0,0\n290,0\n290,4\n900,4\n900,1\n905,1\n905,4\n", encoding="ascii")
    assert span_s(path) == 3600
    assert read_group_sizes(path)[2] == (290.0, 4)
    assert traced_scene(path, 4).markets[1].is_up_N.tolist() == [False, True, True, *[False], *[True] * 8]
    assert traced_scene(path, 1).markets[1].is_up_N.tolist() == [False, *[True] * 11]


@pytest.mark.parametrize("text", ["", "5,1\n4,1\n", "a,b\n"])
def test_bad_traces_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="ascii")
    with pytest.raises(ConfigError, match=r"bad\.csv"):
        read_group_sizes(path)


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/spot is not there")
def test_the_published_traces_load() -> None:
    shares = [float(traced_scene(path, 8).markets[1].is_up_N.mean()) for path in sorted(DATA.glob("*.csv"))]
    assert len(shares) == 4
    assert min(shares) < 0.5
    assert max(shares) == 1.0
