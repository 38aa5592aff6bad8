"""What promises cost batch work: its share of the rate without promises, by what is promised to real-time work.

    python -m benchmarks.tiers.promises [--loads 0.25 0.5 1] [--seeds 21 22 23 24 25] [--json PATH] [--plot PATH]

The rate without promises is what vllm-priority-2048 harvests beside the same arrivals: it serves online work first, and
keeps no pace. (fcfs-2048 harvests more where the backlog was there before, by serving no online work at all.)
"""

import argparse
import json
from pathlib import Path
from statistics import fmean

import matplotlib
from msgspec import Struct, structs, to_builtins
from rich.console import Console
from rich.table import Table

from benchmarks.tiers.runs import SEGMENTS, run_promised
from speciate.bench.cells import Job
from speciate.core.segment import Segment, Slo, Tier

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MIX = "three tiers"
PROMISES = ((0.1, 0.05), (0.1, 0.1), (0.2, 0.05), (0.2, 0.1), (0.3, 0.2), (0.5, 0.2))
"""(TTFT, TPOT) of real-time work; the first is the main table's."""
WITHOUT = "vllm-priority-2048"


class Cost(Struct, frozen=True):
    """Means over seeds."""

    load: float
    ttft_s: float
    tpot_s: float
    realtime: float
    interactive: float
    harvest_tokens_per_s: float
    share: float
    """Of the rate without promises at this load."""


def promising(ttft_s: float, tpot_s: float) -> dict[Tier, Segment]:
    """The benchmark's segments with another real-time promise; chat's pace is never stricter than that."""
    voice, chat = SEGMENTS[Tier.REALTIME], SEGMENTS[Tier.INTERACTIVE]
    slo = Slo(ttft_s=1.0, tpot_s=max(0.1, tpot_s), share=chat.slo.share)
    return {
        **SEGMENTS,
        Tier.REALTIME: structs.replace(voice, slo=Slo(ttft_s=ttft_s, tpot_s=tpot_s, share=voice.slo.share)),
        Tier.INTERACTIVE: structs.replace(chat, slo=slo),
    }


def cost(load: float, ttft_s: float, tpot_s: float, most: float, seeds: list[int], window_s: float) -> Cost:
    segments = promising(ttft_s, tpot_s)
    reports = [run_promised(Job(MIX, "speciate", load, window_s, seed), segments) for seed in seeds]
    harvest = fmean(report.harvest_tokens_per_s for report in reports)
    return Cost(
        load=load,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        realtime=fmean(report.tiers[Tier.REALTIME].kept.deadline for report in reports),
        interactive=fmean(report.tiers[Tier.INTERACTIVE].kept.deadline for report in reports),
        harvest_tokens_per_s=harvest,
        share=harvest / most,
    )


def rate_without(load: float, seeds: list[int], window_s: float) -> float:
    """Batch tokens a second."""
    jobs = [Job(MIX, WITHOUT, load, window_s, seed) for seed in seeds]
    return fmean(run_promised(job, SEGMENTS).harvest_tokens_per_s for job in jobs)


def view(costs: list[Cost]) -> Table:
    table = Table(title="what real-time promises cost batch work")
    for name in ("load", "TTFT, TPOT ms", "real-time", "interactive", "batch tokens/s", "share of the rate without"):
        table.add_column(name, justify="right")
    for one in costs:
        promise = f"{1000 * one.ttft_s:.0f}, {1000 * one.tpot_s:.0f}"
        kept = f"{100 * one.realtime:.1f}", f"{100 * one.interactive:.1f}"
        table.add_row(f"x{one.load:g}", promise, *kept, f"{one.harvest_tokens_per_s:,.0f}", f"{100 * one.share:.0f} %")
    return table


def draw(costs: list[Cost], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(7, 4), constrained_layout=True)
    for load in dict.fromkeys(one.load for one in costs):
        row = [one for one in costs if one.load == load]
        names = [f"{1000 * one.ttft_s:.0f} / {1000 * one.tpot_s:.0f}" for one in row]
        axis.plot(names, [100 * one.share for one in row], marker="o", label=f"load x{load:g}")
    axis.set(
        xlabel="real-time promise: TTFT / TPOT, ms", ylabel="batch rate, % of that without promises", ylim=(0, 100)
    )
    axis.axhline(85, color="#888888", linewidth=1, linestyle="--")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    given = _parser().parse_args()
    costs: list[Cost] = []
    for load in given.loads:
        most = rate_without(load, given.seeds, given.seconds)
        costs += [cost(load, ttft_s, tpot_s, most, given.seeds, given.seconds) for ttft_s, tpot_s in PROMISES]
    Console(width=120).print(view(costs))
    if given.json:
        rows = [to_builtins(one) for one in costs]
        given.json.write_text(
            json.dumps({"seeds": given.seeds, "seconds": given.seconds, "costs": rows}, indent=1) + "\n"
        )
    if given.plot:
        draw(costs, given.plot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--seconds", type=float, default=120.0, help="of arrivals a run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a PNG")
    return parser


if __name__ == "__main__":
    main()
