"""One scene, all policies: the same jobs for each, and the optimum of each job."""

from collections.abc import Callable, Iterator
from random import Random

from benchmarks.market.families import Setup
from benchmarks.market.figures import Row
from speciate.scaling.market import MarketOptions
from speciate.scaling.runs import MarketHistory
from speciate.sim.market import MarketJob, MarketPolicy, histories, replay
from speciate.sim.market_optimum import optimum_usd
from speciate.sim.market_policies import OnDemandOnly, Planned, reference_policies

NO_HISTORY = "speciate, nothing learnt before"


def run_scene(family: str, setup: Setup, ratios: tuple[float, ...], num_offsets: int, seed: int) -> list[Row]:
    scene = setup.scene
    jobs = list(_jobs(setup, ratios, num_offsets, Random(seed)))
    known = histories(scene, [job.first_tick for _, job in jobs]) if jobs else {}
    options = MarketOptions(tick_s=scene.tick_s)
    rows = []
    for ratio, job in jobs:
        best_usd = optimum_usd(scene, job)
        alone_usd = replay(scene, job, OnDemandOnly(), MarketHistory()).cost_usd
        for make, is_known in _policies(setup, options):
            policy = make()
            history = known[job.first_tick] if is_known else MarketHistory()
            outcome = replay(scene, job, policy, history)
            name = outcome.policy if is_known else NO_HISTORY
            rows.append(
                Row(
                    family=family,
                    scene=scene.name,
                    ratio=ratio,
                    policy=name,
                    is_met=outcome.is_met,
                    cost_usd=outcome.cost_usd,
                    best_usd=best_usd,
                    alone_usd=alone_usd,
                    num_starts=outcome.num_starts,
                    num_preempted=outcome.num_preempted,
                )
            )
    return rows


def _jobs(
    setup: Setup, ratios: tuple[float, ...], num_offsets: int, random: Random
) -> Iterator[tuple[float, MarketJob]]:
    """Starts are spread over what the deadline leaves of the scene; a deadline that does not fit is left out."""
    tick_s, num_ticks = setup.scene.tick_s, setup.scene.num_ticks
    first = round(setup.learn_days * 86_400 / tick_s)
    for ratio in ratios:
        length = int(setup.work_s * ratio // tick_s)
        last = num_ticks - length
        for i in range(num_offsets if last >= first else 0):
            width = (last - first) / num_offsets
            yield ratio, MarketJob(first + int(width * (i + random.random())), length, setup.work_s)


def _policies(setup: Setup, options: MarketOptions) -> list[tuple[Callable[[], MarketPolicy], bool]]:
    """With whether what was seen before the job is known to it."""

    def ours() -> Planned:
        return Planned(options, setup.forecast) if setup.forecast else Planned(options)

    return [*((make, True) for make in reference_policies(options)), (ours, True), (ours, False)]
