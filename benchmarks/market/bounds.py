"""How much of what a policy pays above the optimum could anybody have saved: ours beside the best online policy.

    python -m benchmarks.market.bounds [--family "prices by hour"] [--deadlines 2 3 4] [--offsets 8] [--json PATH]

The best online policy knows the law by which zones are drawn, and all prices (`law.py`). Its cost over the optimum is
what nobody can know; ours over its cost is our plan's.
"""

import argparse
import json
import time
from pathlib import Path
from random import Random
from statistics import fmean

from benchmarks.market.families import DRAWN_WORK_S, family_scenes
from benchmarks.market.law import LawPolicy, law_of, weather
from speciate.bench.machine import describe_machine
from speciate.scaling.market import MarketOptions
from speciate.sim.market import MarketJob, histories, replay
from speciate.sim.market_compare import Comparison
from speciate.sim.market_optimum import optimum_usd
from speciate.sim.market_policies import Planned
from speciate.sim.market_traces import PUBLISHED_ZONES, ZoneStatistics

ZONES = {"prices by hour": PUBLISHED_ZONES[1::3], "one zone": PUBLISHED_ZONES}
SEED = 1
"""That `family_scenes` draws with."""


def main() -> None:
    given = _parser().parse_args()
    machine, began_s = describe_machine(), time.process_time()
    scenes = family_scenes(given.family, Path(), quick=False)
    found = []
    for ratio in given.deadlines:
        rows = []
        for i, (made, zone) in enumerate(zip(scenes, ZONES[given.family], strict=True)):
            rows += _rows(made, zone, SEED + i, ratio, given.offsets)
            print(
                f"{ratio}x {zone.name}: {rows[-given.offsets :]}, CPU {time.process_time() - began_s:.0f} s", flush=True
            )
        best, law, ours = (fmean(column) for column in zip(*rows, strict=True))
        found.append(
            {"deadline": ratio, "jobs": len(rows), "law_over_optimum": law / best, "ours_over_optimum": ours / best,
             "ours_over_law": ours / law}
        )  # fmt: skip
        print(found[-1], flush=True)
        if given.json:
            facts = {"machine": machine, "cpu_s": round(time.process_time() - began_s), "family": given.family}
            given.json.write_text(json.dumps({**facts, "figures": found}, indent=1) + "\n", encoding="utf-8")


def _rows(
    made: Comparison, zone: ZoneStatistics, seed: int, ratio: float, offsets: int
) -> list[tuple[float, float, float]]:
    """(optimum, best online, ours) of each job."""
    scene = made.scene
    law = law_of(zone, scene.tick_s)
    states = weather(zone, scene.num_ticks, scene.tick_s, seed)
    if [bool(law.is_up_N[state]) for state in states] != scene.markets[1].is_up_N.tolist():
        raise ValueError(f"the weather of {zone.name} is not its scene's; are the seeds the same?")
    jobs = _jobs(made, ratio, offsets)
    known = histories(scene, [job.first_tick for job in jobs])
    options = MarketOptions(tick_s=scene.tick_s)
    rows = []
    for job in jobs:
        policy = Planned(options, made.forecast) if made.forecast else Planned(options)
        ours_usd = replay(scene, job, policy, known[job.first_tick]).cost_usd
        rows.append((optimum_usd(scene, job), LawPolicy(scene, job, law).cost_usd(states), ours_usd))
    return rows


def _jobs(made: Comparison, ratio: float, offsets: int) -> list[MarketJob]:
    tick_s = made.scene.tick_s
    first, length = round(made.learn_days * 86_400 / tick_s), int(DRAWN_WORK_S * ratio // tick_s)
    width, random = (made.scene.num_ticks - length - first) / offsets, Random(7)
    return [MarketJob(first + int(width * (i + random.random())), length, DRAWN_WORK_S) for i in range(offsets)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="prices by hour", choices=list(ZONES))
    parser.add_argument("--deadlines", type=float, nargs="+", default=[1.2, 1.5, 2.0, 3.0, 4.0])
    parser.add_argument("--offsets", type=int, default=8, help="moments at which each job starts (default 8)")
    parser.add_argument("--json", type=Path)
    return parser


if __name__ == "__main__":
    main()
