"""The largest load that a policy carries: real-time 99 %, interactive 95 %, admitted batch 99 % in time, paired seeds.

    python -m benchmarks.tiers.capacity [--mixes NAME ...] [--seeds 21 22 23 24 25] [--json PATH] [--plot PATH]

Loads multiply all online arrivals; the batch backlog never runs dry. Each knob of each family is searched by itself:
from load 1 in doublings, down to x1/64 or up to x16, then by halving the gap four times in the logarithm, which leaves
4 %. That takes for granted that what carries a load carries a smaller one. Lower loads run longer, so that each seed
has about as many requests. A family's capacity is that of its best knob.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib
from msgspec import Struct, to_builtins
from rich.console import Console
from rich.table import Table

from benchmarks.tiers.runs import KNOBS, MIXES, run_job
from speciate.bench.cells import NEEDED, Job
from speciate.bench.families import OURS
from speciate.core.segment import Tier
from speciate.sim.report import SimReport

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LEAST, MOST = 1 / 64, 16.0
NUM_HALVINGS = 4
WINDOW_S, LONGEST_S = 120.0, 300.0
HOPELESS = 0.05
"""So far below what is needed on the first seed, and the others are not run."""


class Capacity(Struct, frozen=True):
    """What one knob carries."""

    mix: str
    family: str
    policy: str
    load: float
    """0: not even the least load that was tried."""
    kept: dict[Tier, float | None]
    """There."""
    harvest_tokens_per_s: float
    """There."""
    tried: dict[str, bool]
    """Load: whether it was carried."""


class Search:
    """One knob on one mix."""

    def __init__(self, mix: str, family: str, policy: str, seeds: Sequence[int]) -> None:
        self._mix, self._family, self._policy, self._seeds = mix, family, policy, seeds
        self._reports: dict[float, list[SimReport]] = {}
        self._carried: dict[float, bool] = {}

    def run(self) -> Capacity:
        load = 1.0
        if self._carries(load):
            while load < MOST and self._carries(2 * load):
                load *= 2
        else:
            while load > LEAST and not self._carries(load / 2):
                load /= 2
            load /= 2
        return self._found(self._halved(load) if load >= LEAST else 0.0)

    def _halved(self, carried: float) -> float:
        high = 2 * carried
        for _ in range(NUM_HALVINGS):
            middle = (carried * high) ** 0.5
            carried, high = (middle, high) if self._carries(middle) else (carried, middle)
        return carried

    def _carries(self, load: float) -> bool:
        window_s = min(LONGEST_S, WINDOW_S / min(1.0, load))
        reports: list[SimReport] = []
        for seed in self._seeds:
            reports.append(run_job(Job(self._mix, self._policy, load, window_s, seed)))
            if _short(reports) > HOPELESS:
                break
        self._reports[load] = reports
        self._carried[load] = _short(reports) <= 0.0
        return self._carried[load]

    def _found(self, load: float) -> Capacity:
        reports = self._reports.get(load, [])
        return Capacity(
            mix=self._mix,
            family=self._family,
            policy=self._policy,
            load=load,
            kept={tier: _kept(reports, tier) for tier in NEEDED} if reports else {},
            harvest_tokens_per_s=fmean(report.harvest_tokens_per_s for report in reports) if reports else 0.0,
            tried={f"{tried:.4g}": carried for tried, carried in sorted(self._carried.items())},
        )


def _kept(reports: list[SimReport], tier: Tier) -> float | None:
    judged = [report.tiers[tier] for report in reports if report.tiers[tier].judged]
    return fmean(figures.kept.deadline for figures in judged) if judged else None


def _short(reports: list[SimReport]) -> float:
    """By how much the tier that is worst off falls short."""
    kept = {tier: _kept(reports, tier) for tier in NEEDED}
    return max((NEEDED[tier] - share for tier, share in kept.items() if share is not None), default=0.0)


def capacities(mix: str, families: Sequence[str], seeds: Sequence[int]) -> Iterator[Capacity]:
    for family in families:
        for policy in KNOBS[family]:
            yield Search(mix, family, policy, seeds).run()


def best_of(found: list[Capacity]) -> list[Capacity]:
    """One a family, largest first; of equal ones that with the larger harvest."""
    best: dict[str, Capacity] = {}
    for one in found:
        held = best.get(one.family)
        if held is None or (one.load, one.harvest_tokens_per_s) > (held.load, held.harvest_tokens_per_s):
            best[one.family] = one
    return sorted(best.values(), key=lambda one: -one.load)


def capacity_view(mix: str, best: list[Capacity]) -> Table:
    theirs = max((one.load for one in best if one.family != OURS), default=0.0)
    view = Table(title=mix, caption=f"largest load carried; ratio to the best baseline (x{theirs:.3g})")
    for name in ("family (knob)", "load", "ratio", "real-time", "interactive", "batch tokens/s there"):
        view.add_column(name, justify="left" if name.startswith("family") else "right")
    for one in best:
        shares = [_percent(one.kept.get(tier)) for tier in (Tier.REALTIME, Tier.INTERACTIVE)]
        ratio = f"{one.load / theirs:.2f}" if theirs else "-"
        load = f"x{one.load:.3g}" if one.load else f"< x{LEAST:.3g}"
        view.add_row(f"{one.family} ({one.policy})", load, ratio, *shares, f"{one.harvest_tokens_per_s:,.0f}")
    return view


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def draw(found: list[Capacity], path: Path) -> None:
    mixes = list(dict.fromkeys(one.mix for one in found))
    figure, axes = plt.subplots(1, len(mixes), figsize=(6.5 * len(mixes), 4), constrained_layout=True, squeeze=False)
    for axis, mix in zip(axes[0], mixes, strict=True):
        best = best_of([one for one in found if one.mix == mix])[::-1]
        colours = ["#1f4e79" if one.family == OURS else "#b8c4d0" for one in best]
        axis.barh([one.policy for one in best], [one.load for one in best], color=colours)
        for place, one in enumerate(best):
            text = (
                f" x{one.load:.2f}, {one.harvest_tokens_per_s:,.0f} batch tokens/s"
                if one.load
                else f" below x{LEAST:.3f}"
            )
            axis.text(one.load, place, text, va="center", fontsize=8)
        axis.set(title=mix, xlabel="largest load carried", xlim=(0, 1.6 * max(one.load for one in best) or 1.0))
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Load carried at real-time 99 %, interactive 95 %, batch 99 % in time; best knob of each family")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    given = _parser().parse_args()
    console = Console(width=130)
    found: list[Capacity] = []
    for mix in given.mixes:
        for one in capacities(mix, given.families, given.seeds):
            found.append(one)
            console.print(f"{mix} {one.policy}: x{one.load:.3g}", style="dim")
            if given.json:
                rows = [to_builtins(row) for row in found]
                given.json.write_text(json.dumps({"seeds": given.seeds, "capacities": rows}, indent=1) + "\n")
        console.print(capacity_view(mix, best_of([one for one in found if one.mix == mix])))
    if given.plot:
        draw(found, given.plot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mixes = [mix for mix in MIXES if mix != "batch only"]
    parser.add_argument("--mixes", nargs="+", default=mixes, choices=mixes)
    parser.add_argument("--families", nargs="+", default=list(KNOBS), choices=list(KNOBS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a PNG")
    return parser


if __name__ == "__main__":
    main()
