"""The sweep as pictures: attainment against load, harvest against attainment, the three rules, waste, ablations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from speciate.bench.cells import NEEDED, ONLINE, Cell, Share, best_cells
from speciate.bench.families import ABLATIONS, OURS
from speciate.core.segment import Tier

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MIX = "three tiers"
SHOWN_LOAD = 0.5
"""Of the panels that show one load."""
COLOURS = ("#0b3d66", "#c4652f", "#5d8f3b", "#8a6fb0", "#b8892b", "#3b9a9a", "#a84d6d", "#7a7a7a")
_BELOW: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "frameon": False}
NAMES = {Tier.REALTIME: "real-time", Tier.INTERACTIVE: "interactive"}


def save_plots(cells: list[Cell], path: Path) -> None:
    """Six panels of the mix with real-time work."""
    shown = [cell for cell in cells if cell.mix == MIX]
    compared = [cell for cell in shown if cell.family not in ABLATIONS]
    best = best_cells(compared)
    colours = dict(zip(best, COLOURS, strict=False))
    load = min((cell.load for cell in shown), key=lambda load: abs(load - SHOWN_LOAD))
    there = [cell for row in best.values() for cell in row if cell.load == load]
    figure, axes = plt.subplots(2, 3, figsize=(16, 9), constrained_layout=True)
    for axis, tier in zip(axes[0], ONLINE, strict=False):
        _draw_attainment(axis, best, tier, colours)
    _draw_pareto(axes[0][2], [cell for cell in compared if cell.load == load], colours)
    _draw_rules(axes[1][0], there)
    _draw_waste(axes[1][1], [max(_of(compared, family, load), key=lambda cell: cell.wasted_share) for family in best])
    _draw_ablations(axes[1][2], [cell for cell in shown if cell.load == load])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _of(cells: list[Cell], family: str, load: float) -> list[Cell]:
    return [cell for cell in cells if cell.family == family and cell.load == load]


def _percent(share: Share) -> float:
    return 100 * (share.mean or 0.0)


def _draw_attainment(axis: Axes, best: dict[str, list[Cell]], tier: Tier, colours: dict[str, str]) -> None:
    for family, row in best.items():
        axis.errorbar(
            [cell.load for cell in row],
            [_percent(cell.deadline[tier]) for cell in row],
            yerr=[100 * cell.deadline[tier].half_width for cell in row],
            marker="o",
            markersize=4,
            capsize=2,
            label=row[0].policy,
            color=colours[family],
            linewidth=2.5 if family == OURS else 1.2,
            zorder=3 if family == OURS else 2,
        )
    axis.axhline(100 * NEEDED[tier], color="#999999", linewidth=1, linestyle="--")
    axis.set(title=f"{NAMES[tier]} promises kept (dashed: needed)", xlabel="load", ylabel="% of offered")
    axis.set_ylim(-2, 103)
    _plain(axis)


def _draw_pareto(axis: Axes, cells: list[Cell], colours: dict[str, str]) -> None:
    for family, colour in colours.items():
        of_family = [cell for cell in cells if cell.family == family]
        kept = [_percent(cell.deadline[Tier.REALTIME]) for cell in of_family]
        harvest = [cell.harvest_tokens_per_s.mean or 0.0 for cell in of_family]
        size = 90 if family == OURS else 35
        axis.scatter(kept, harvest, s=size, color=colour, marker="*" if family == OURS else "o", zorder=3)
    axis.set(title=f"x{cells[0].load:g}: harvest, every knob", xlabel="real-time kept, %")
    axis.set_ylabel("batch tokens/s")
    axis.set_ylim(bottom=0)
    _plain(axis)


def _draw_rules(axis: Axes, cells: list[Cell]) -> None:
    """Real-time above, interactive below, each by three rules."""
    rules: tuple[tuple[str, Callable[[Cell, Tier], Share]], ...] = (
        ("token deadlines", lambda cell, tier: cell.deadline[tier]),
        ("p99 gap", lambda cell, tier: cell.gap[tier]),
        ("mean TPOT", lambda cell, tier: cell.tpot[tier]),
    )
    for index, (rule, share) in enumerate(rules):
        for tier, colour in ((Tier.REALTIME, "#0b3d66"), (Tier.INTERACTIVE, "#7fa8c9")):
            offset = (index - 1) * 0.26 + (0.0 if tier is Tier.REALTIME else len(cells) + 0.6)
            places = [place + offset for place in range(len(cells))]
            values = [_percent(share(cell, tier)) for cell in cells]
            axis.barh(
                places, values, height=0.24, color=colour, alpha=1.0 - 0.3 * index, label=f"{NAMES[tier]}, {rule}"
            )
    names = [cell.policy for cell in cells]
    places = [*range(len(cells)), *(place + len(cells) + 0.6 for place in range(len(cells)))]
    axis.set_yticks(places, names * 2, fontsize=7)
    axis.invert_yaxis()
    axis.set(title=f"x{cells[0].load:g}: kept by three rules (above real-time)", xlabel="% of offered", xlim=(0, 103))
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place].startswith("interactive"))
    axis.legend([handles[i] for i in order], [labels[i] for i in order], fontsize=7, **_BELOW, ncols=2)
    _plain(axis)


def _draw_waste(axis: Axes, cells: list[Cell]) -> None:
    places = range(len(cells))
    values = [100 * cell.wasted_share for cell in cells]
    axis.barh(places, values, color=["#0b3d66" if cell.family == OURS else "#b8c4d0" for cell in cells])
    for place, value in zip(places, values, strict=True):
        axis.text(value, place, f" {value:.2f}", va="center", fontsize=8)
    axis.set_yticks(places, [cell.policy for cell in cells], fontsize=8)
    axis.invert_yaxis()
    axis.set(title=f"x{cells[0].load:g}: computed for nobody, worst knob", xlabel="% of step-seconds")
    axis.set_xlim(0, max(1.0, 1.15 * max(values)))
    _plain(axis)


def _draw_ablations(axis: Axes, cells: list[Cell]) -> None:
    """Ours, and with one idea taken out each."""
    rows = [cell for cell in cells if cell.policy == OURS or cell.family in ABLATIONS]
    for index, (tier, colour) in enumerate(((Tier.REALTIME, "#0b3d66"), (Tier.INTERACTIVE, "#7fa8c9"))):
        places = [place + (index - 0.5) * 0.36 for place in range(len(rows))]
        axis.barh(
            places, [_percent(cell.deadline[tier]) for cell in rows], height=0.34, color=colour, label=NAMES[tier]
        )
    for place, cell in enumerate(rows):
        axis.text(
            2, place - 0.18, f"{cell.harvest_tokens_per_s.mean:,.0f} batch tokens/s", va="center", fontsize=7, color="w"
        )
    axis.set_yticks(range(len(rows)), [cell.policy.removeprefix(f"{OURS}-") for cell in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set(title=f"x{cells[0].load:g}: one idea taken out", xlabel="% kept by token deadlines", xlim=(0, 103))
    axis.legend(fontsize=8, **_BELOW, ncols=2)
    _plain(axis)


def _plain(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
