"""From reports to cells (a policy at a load, over seeds), capacities and tables."""

from collections.abc import Iterable
from math import sqrt
from statistics import fmean, stdev

from msgspec import Struct
from rich.table import Table

from speciate.core.segment import Tier
from speciate.sim.report import SimReport

NEEDED = {Tier.REALTIME: 0.99, Tier.INTERACTIVE: 0.95, Tier.BATCH: 0.99}
"""Attainment at which a load counts as carried."""
ONLINE = (Tier.REALTIME, Tier.INTERACTIVE)
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t for a 95 % interval, by number of seeds."""


class Job(Struct, frozen=True):
    """One run: a policy on a seeded mix of requests at a multiple of its usual rate."""

    mix: str
    policy: str
    load: float
    window_s: float
    seed: int


class Share(Struct, frozen=True):
    """A mean over seeds with the half width of its 95 % interval; None where the tier offered nothing."""

    mean: float | None
    half_width: float = 0.0


class Cell(Struct, frozen=True):
    """One policy at one load."""

    mix: str
    family: str
    policy: str
    load: float
    deadline: dict[Tier, Share]
    gap: dict[Tier, Share]
    tpot: dict[Tier, Share]
    harvest_tokens_per_s: Share
    batch_output_tokens_per_s: Share
    wasted_share: float
    refused_share: float
    prediction_error: float
    margin: float
    requests_per_cpu_s: float

    def is_carried(self) -> bool:
        means = {tier: self.deadline[tier].mean for tier in NEEDED}
        return all(mean is None or mean >= NEEDED[tier] for tier, mean in means.items())

    def worst(self) -> float:
        """The online tier that is furthest below what it needs."""
        means = {tier: self.deadline[tier].mean for tier in NEEDED}
        return min((mean / NEEDED[tier] for tier, mean in means.items() if mean is not None), default=1.0)


def cells_of(reports: Iterable[tuple[str, Job, SimReport]]) -> list[Cell]:
    groups: dict[tuple[str, str, str, float], list[SimReport]] = {}
    for family, job, report in reports:
        groups.setdefault((job.mix, family, job.policy, job.load), []).append(report)
    return [_cell(*key, rows) for key, rows in groups.items()]


def _cell(mix: str, family: str, policy: str, load: float, rows: list[SimReport]) -> Cell:
    offered = sum(row.tiers[tier].offered for row in rows for tier in ONLINE)
    return Cell(
        mix=mix,
        family=family,
        policy=policy,
        load=load,
        deadline={tier: _share(rows, tier, "deadline") for tier in Tier},
        gap={tier: _share(rows, tier, "gap") for tier in Tier},
        tpot={tier: _share(rows, tier, "mean") for tier in Tier},
        harvest_tokens_per_s=_mean([row.harvest_tokens_per_s for row in rows]),
        batch_output_tokens_per_s=_mean([row.tiers[Tier.BATCH].output_tokens_per_s for row in rows]),
        wasted_share=fmean(row.wasted_s / max(row.busy_s, 1e-9) for row in rows),
        refused_share=sum(row.tiers[tier].refused for row in rows for tier in ONLINE) / max(1, offered),
        prediction_error=fmean(row.prediction_error for row in rows),
        margin=fmean(row.margin for row in rows),
        requests_per_cpu_s=sum(row.num_requests for row in rows) / max(1e-9, sum(row.cpu_s for row in rows)),
    )


def _share(rows: list[SimReport], tier: Tier, rule: str) -> Share:
    judged = [row.tiers[tier] for row in rows if row.tiers[tier].judged]
    return _mean([getattr(figures.kept, rule) for figures in judged]) if judged else Share(None)


def _mean(values: list[float]) -> Share:
    if len(values) < 2:
        return Share(values[0])
    return Share(fmean(values), T_95.get(len(values), 2.0) * stdev(values) / sqrt(len(values)))


def best_cells(cells: list[Cell]) -> dict[str, list[Cell]]:
    """A family's cells over loads, at the knob that carries most, then is least below what it needs."""
    best: dict[str, list[Cell]] = {}
    for family in dict.fromkeys(cell.family for cell in cells):
        knobs: dict[str, list[Cell]] = {}
        for cell in cells:
            if cell.family == family:
                knobs.setdefault(cell.policy, []).append(cell)
        best[family] = max(knobs.values(), key=lambda row: (capacity(row), fmean(cell.worst() for cell in row)))
    return best


def capacity(row: list[Cell]) -> float:
    """The largest load up to which every load is carried; 0 if the smallest is not."""
    carried = 0.0
    for cell in sorted(row, key=lambda cell: cell.load):
        if not cell.is_carried():
            break
        carried = cell.load
    return carried


def capacity_table(best: dict[str, list[Cell]], title: str) -> Table:
    view = Table(title=title, caption="real-time / interactive % by deadline rule, and batch tokens/s, by load")
    view.add_column("family (knob)")
    view.add_column("carries", justify="right")
    for cell in next(iter(best.values())):
        view.add_column(f"x{cell.load:g}", justify="right")
    for row in best.values():
        carried = capacity(row)
        view.add_row(row[0].policy, f"x{carried:g}" if carried else "-", *(_brief(cell) for cell in row))
    return view


def _brief(cell: Cell) -> str:
    online = " / ".join(_percent(cell.deadline[tier]) for tier in ONLINE)
    return f"{online}, {cell.harvest_tokens_per_s.mean:,.0f}"


def load_table(cells: list[Cell], load: float, title: str) -> Table:
    view = Table(title=title, caption="% kept by deadline / p99 gap / mean TPOT; ± 95 % of the deadline rule")
    view.add_column("policy")
    for name in (
        "real-time",
        "interactive",
        "batch tokens/s",
        "batch out/s",
        "refused",
        "wasted",
        "model error",
        "gamma",
    ):
        view.add_column(name, justify="right")
    for cell in cells:
        if cell.load == load:
            view.add_row(cell.policy, *_cells(cell))
    return view


def _cells(cell: Cell) -> list[str]:
    harvest = cell.harvest_tokens_per_s
    return [
        *(_rules(cell, tier) for tier in ONLINE),
        f"{harvest.mean:,.0f} ±{harvest.half_width:,.0f}",
        f"{cell.batch_output_tokens_per_s.mean:,.0f}",
        f"{cell.refused_share:.1%}",
        f"{cell.wasted_share:.1%}",
        f"{cell.prediction_error:.1%}",
        f"{cell.margin:.2f}",
    ]


def _rules(cell: Cell, tier: Tier) -> str:
    width = 100 * cell.deadline[tier].half_width
    return f"{_percent(cell.deadline[tier])} ±{width:.1f} / {_percent(cell.gap[tier])} / {_percent(cell.tpot[tier])}"


def _percent(share: Share) -> str:
    return "-" if share.mean is None else f"{100 * share.mean:.1f}"
