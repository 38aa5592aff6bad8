"""Two pictures: attainment against load for each family at its best knob, and harvest against real-time attainment."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes

from speciate.bench.cells import ONLINE, Cell, best_cells
from speciate.bench.families import ABLATIONS
from speciate.core.segment import Tier

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def save_plots(cells: list[Cell], path: Path) -> None:
    """One row a mix that has real-time work."""
    shown = [cell for cell in cells if cell.mix == "three tiers" and cell.family not in ABLATIONS]
    figure, axes = plt.subplots(1, 3, figsize=(16, 5), constrained_layout=True)
    for axis, tier in zip(axes, ONLINE, strict=False):
        _draw_attainment(axis, best_cells(shown), tier)
    _draw_pareto(axes[2], shown)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_attainment(axis: Axes, best: dict[str, list[Cell]], tier: Tier) -> None:
    for row in best.values():
        loads = [cell.load for cell in row]
        kept = [100 * (cell.deadline[tier].mean or 0.0) for cell in row]
        widths = [100 * cell.deadline[tier].half_width for cell in row]
        is_ours = row[0].family == "speciate"
        axis.errorbar(
            loads,
            kept,
            yerr=widths,
            marker="o",
            capsize=2,
            label=row[0].policy,
            linewidth=2.5 if is_ours else 1.0,
            color="black" if is_ours else None,
        )
    axis.set(title=f"{tier} promises kept (deadline rule)", xlabel="load", ylabel="% of offered", ylim=(0, 102))
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)


def _draw_pareto(axis: Axes, cells: list[Cell]) -> None:
    load = min((cell.load for cell in cells), key=lambda load: abs(load - 1.0))
    for cell in cells:
        if cell.load == load:
            kept, harvest = 100 * (cell.deadline[Tier.REALTIME].mean or 0.0), cell.harvest_tokens_per_s.mean or 0.0
            colour = "black" if cell.family == "speciate" else None
            axis.scatter(kept, harvest, s=60 if colour else 25, color=colour)
            axis.annotate(cell.policy, (kept, harvest), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axis.set(title=f"load x{load:g}: batch harvest beside real-time promises", xlabel="real-time kept, %")
    axis.set_ylabel("batch tokens/s")
    axis.grid(alpha=0.3)
