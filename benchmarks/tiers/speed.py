"""How fast the simulator is on one core, and whether its memory stays flat.

    python -m benchmarks.tiers.speed [--quick] [--million] [--json PATH]

Azure's conversation trace (drawn like it where absent), one replica, at multiples of the trace's own rate, every
step simulated and runs of equal steps folded. `--million`: instead, the hour again and again until a million requests
came. Requests a second are of CPU time. PYTHONPATH=out/compiled runs the same with decisions and loop compiled, after
`make fast`.
"""

import argparse
import json
import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.tiers.runs import SEGMENTS, TRACE
from speciate.bench.machine import describe_machine
from speciate.core.segment import Tier
from speciate.costs.step_calibration import A100_LLAMA3_8B
from speciate.scheduling import token
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.sim.policies import seats
from speciate.sim.report import SimReport
from speciate.sim.simulation import Setting, simulate
from speciate.sim.traces import read_trace
from speciate.sim.workload import CONVERSATION, SimRequest, again, faster, generate, poisson

HOUR_S = 3600.0
HOUR_REQUESTS = 19_366


def main() -> None:
    given = _parser().parse_args()
    rows = [_row(0.3, 1_000_000, True)] if given.million else _rows(given.quick)
    print("  ".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>14}" for value in row.values()))
    if given.json:
        form = "plain" if token.__file__.endswith(".py") else "compiled"
        given.json.write_text(json.dumps({"machine": describe_machine(), "form": form, "rows": rows}, indent=1) + "\n")


def _rows(is_quick: bool) -> list[dict[str, float]]:
    num_requests, loads = (500, [0.5]) if is_quick else (3000, [0.1, 0.3, 0.6, 1.0])
    return [_row(load, num_requests, may_fold) for load in loads for may_fold in (False, True)]


def _row(load: float, num_requests: int, may_fold: bool) -> dict[str, float]:
    report = _run(load, num_requests, may_fold)
    return {
        "load": load,
        "folded": may_fold,
        "requests": report.num_requests,
        "requests_per_s": round(report.num_requests / report.cpu_s),
        "steps_per_req": round(report.num_steps / report.num_requests, 1),
        "us_per_step": round(1e6 * report.cpu_s / report.num_steps, 1),
        "kept": round(report.tiers[Tier.INTERACTIVE].kept.deadline, 4),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _run(load: float, num_requests: int, may_fold: bool) -> SimReport:
    setting = Setting(
        policy="speciate",
        calibration=A100_LLAMA3_8B,
        segments=SEGMENTS,
        seats=lambda: seats("speciate", A100_LLAMA3_8B, TokenSchedulerOptions(prefix_cache=False)),
        window_s=num_requests / HOUR_REQUESTS * HOUR_S / load,
        drain_s=60.0,
        may_fold=may_fold,
    )
    hours = 1 + num_requests // HOUR_REQUESTS
    return simulate(faster(again(_hour, HOUR_S, hours), load), setting)


def _hour() -> Iterator[SimRequest]:
    if TRACE.exists():
        return read_trace(TRACE, Tier.INTERACTIVE)
    draw = partial(generate, Tier.INTERACTIVE, poisson(HOUR_REQUESTS / HOUR_S), CONVERSATION)
    return draw(duration_s=HOUR_S, seed=1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--million", action="store_true", help="that alone: some minutes")
    parser.add_argument("--json", type=Path)
    return parser


if __name__ == "__main__":
    main()
