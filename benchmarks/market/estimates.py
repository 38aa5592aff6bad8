"""How true dry runs are: estimates before each job beside what the replay then paid.

    python -m benchmarks.market.estimates [--starts 12] [--json PATH]

Nine drawn zones, one at a time; 4 h of work; estimates know what a watcher saw in the days before.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean

from benchmarks.market.families import DAYS
from speciate.bench.machine import describe_machine
from speciate.scaling.estimate import estimate
from speciate.scaling.market import JobState, MarketOptions
from speciate.sim.market import MarketJob, histories, look, replay
from speciate.sim.market_policies import Planned
from speciate.sim.market_traces import PUBLISHED_ZONES, drawn_scene

WORK_S = 4 * 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=12, help="moments at which each job starts (default 12)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    machine = describe_machine()
    rows = []
    for ratio in (1.5, 2.0, 4.0):
        found = [pair for i in range(len(PUBLISHED_ZONES)) for pair in _pairs(i, ratio, given.starts)]
        inside = fmean(low <= paid <= high for paid, _, low, high in found)
        rows.append(
            {
                "deadline": ratio,
                "jobs": len(found),
                "paid_mean_usd": fmean(paid for paid, *_ in found),
                "estimated_mean_usd": fmean(mean for _, mean, *_ in found),
                "paid_within_p10_p90": inside,
            }
        )
        print(rows[-1], flush=True)
        if given.json:
            given.json.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n", encoding="utf-8")


def _pairs(index: int, ratio: float, num_starts: int) -> list[tuple[float, float, float, float]]:
    """(paid, estimated mean, p10, p90) of each job on one zone."""
    scene = drawn_scene([PUBLISHED_ZONES[index]], DAYS, 1 + index)
    length = int(ratio * WORK_S / scene.tick_s)
    starts = [2016 + i * (scene.num_ticks - 2016 - length) // num_starts for i in range(num_starts)]
    known = histories(scene, starts)
    options = MarketOptions(tick_s=scene.tick_s)
    pairs = []
    for tick in starts:
        state = JobState(WORK_S, (tick + length) * scene.tick_s, tick * scene.tick_s)
        seen = look(scene, known[tick], tick)
        said = estimate(state, scene.views(tick), seen, options).cost_usd
        paid = replay(scene, MarketJob(tick, length, WORK_S), Planned(options), known[tick]).cost_usd
        pairs.append((paid, said.mean, said.p10 - 1e-9, said.p90 + 1e-9))
    return pairs


if __name__ == "__main__":
    main()
