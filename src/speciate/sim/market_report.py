"""Replayed jobs into figures and a table: by family, deadline and policy."""

from collections.abc import Sequence
from statistics import fmean

from msgspec import Struct
from rich.table import Table


class Row(Struct, frozen=True):
    """One job under one policy."""

    family: str
    scene: str
    ratio: float
    policy: str
    is_met: bool
    cost_usd: float
    best_usd: float
    """Of the optimum that knows the future."""
    alone_usd: float
    """Of on-demand alone."""
    num_starts: int
    num_preempted: int


class Figure(Struct, frozen=True):
    """All jobs of a family with one deadline under one policy."""

    family: str
    ratio: float
    policy: str
    num_jobs: int
    met_share: float
    of_alone: float
    """Sum of costs over the sum of what on-demand alone pays."""
    of_best: float
    """Sum of costs over the sum of optima. Below 1 only for jobs that were late."""
    of_best_mean: float
    """Mean over jobs of cost over optimum; then the 90th percentile, and the worst."""
    of_best_p90: float
    of_best_worst: float
    starts: float


def figures(rows: Sequence[Row]) -> list[Figure]:
    keys = dict.fromkeys((row.family, row.ratio, row.policy) for row in rows)
    return [_figure([row for row in rows if (row.family, row.ratio, row.policy) == key]) for key in keys]


def _figure(rows: list[Row]) -> Figure:
    ratios = sorted(row.cost_usd / row.best_usd for row in rows)
    best_usd = sum(row.best_usd for row in rows)
    first = rows[0]
    return Figure(
        family=first.family,
        ratio=first.ratio,
        policy=first.policy,
        num_jobs=len(rows),
        met_share=fmean(row.is_met for row in rows),
        of_alone=sum(row.cost_usd for row in rows) / sum(row.alone_usd for row in rows),
        of_best=sum(row.cost_usd for row in rows) / best_usd,
        of_best_mean=fmean(ratios),
        of_best_p90=ratios[int(0.9 * (len(ratios) - 1))],
        of_best_worst=ratios[-1],
        starts=fmean(row.num_starts for row in rows),
    )


def table(rows: Sequence[Row], title: str) -> Table:
    """A line a policy and deadline: met, cost over on-demand alone, cost over the optimum (sum; mean, p90, worst)."""
    view = Table(title=title, title_style="bold", header_style="bold")
    for name in ("deadline", "policy", "jobs", "met", "of on-demand", "over optimum", "mean / p90 / worst", "starts"):
        view.add_column(name, justify="left" if name == "policy" else "right")
    for figure in sorted(figures(rows), key=lambda figure: figure.ratio):
        view.add_row(
            f"{figure.ratio:g}x",
            figure.policy,
            str(figure.num_jobs),
            f"{figure.met_share:.1%}",
            f"{figure.of_alone:.3f}",
            f"{figure.of_best - 1:+.1%}",
            f"{figure.of_best_mean - 1:+.1%} / {figure.of_best_p90 - 1:+.1%} / {figure.of_best_worst - 1:+.1%}",
            f"{figure.starts:.1f}",
        )
    return view
