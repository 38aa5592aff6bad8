"""All policies over the same jobs on a scene, beside the optimum of each job."""

from collections.abc import Callable, Iterator
from random import Random

from msgspec import Struct

from speciate.scaling.market import MarketOptions
from speciate.scaling.outlook import Forecast
from speciate.scaling.runs import MarketHistory
from speciate.sim.market import MarketJob, MarketPolicy, Scene, histories, replay
from speciate.sim.market_optimum import optimum_usd
from speciate.sim.market_policies import OnDemandOnly, Planned, reference_policies
from speciate.sim.market_report import Row

NO_HISTORY = "speciate, nothing learnt before"


class Comparison(Struct, frozen=True):
    """A scene, the job that runs on it, and from when on: what comes before teaches a watcher."""

    scene: Scene
    work_s: float
    learn_days: float = 7.0
    forecast: Forecast | None = None
    """Only where prices follow a schedule that is known."""


def compare(family: str, made: Comparison, ratios: tuple[float, ...], num_offsets: int, seed: int) -> list[Row]:
    """One row a job and policy. Deadlines are `ratios` times the work; those that do not fit in the scene are left."""
    jobs = list(_jobs(made, ratios, num_offsets, Random(seed)))
    known = histories(made.scene, [job.first_tick for _, job in jobs]) if jobs else {}
    return [row for ratio, job in jobs for row in _rows(family, made, ratio, job, known[job.first_tick])]


def _rows(family: str, made: Comparison, ratio: float, job: MarketJob, known: MarketHistory) -> Iterator[Row]:
    scene = made.scene
    best_usd = optimum_usd(scene, job)
    alone_usd = replay(scene, job, OnDemandOnly(), known).cost_usd
    for make, history, name in _policies(made, known):
        outcome = replay(scene, job, make(), history)
        yield Row(
            family=family,
            scene=scene.name,
            ratio=ratio,
            policy=name or outcome.policy,
            is_met=outcome.is_met,
            cost_usd=outcome.cost_usd,
            best_usd=best_usd,
            alone_usd=alone_usd,
            num_starts=outcome.num_starts,
            num_preempted=outcome.num_preempted,
        )


def _policies(
    made: Comparison, known: MarketHistory
) -> Iterator[tuple[Callable[[], MarketPolicy], MarketHistory, str | None]]:
    """Each with what it knows at the start, and the name to show if not its own."""
    options = MarketOptions(tick_s=made.scene.tick_s)

    def ours() -> Planned:
        return Planned(options, made.forecast) if made.forecast else Planned(options)

    for make in reference_policies(options):
        yield make, known, None
    yield ours, known, None
    yield ours, MarketHistory(), NO_HISTORY


def _jobs(
    made: Comparison, ratios: tuple[float, ...], num_offsets: int, random: Random
) -> Iterator[tuple[float, MarketJob]]:
    """Starts are spread over what the deadline leaves of the scene."""
    tick_s = made.scene.tick_s
    first = round(made.learn_days * 86_400 / tick_s)
    for ratio in ratios:
        length = int(made.work_s * ratio // tick_s)
        width = (made.scene.num_ticks - length - first) / num_offsets
        for i in range(num_offsets if width >= 0 else 0):
            yield ratio, MarketJob(first + int(width * (i + random.random())), length, made.work_s)
