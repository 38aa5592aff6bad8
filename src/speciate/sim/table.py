"""Reports of runs as a table for people."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.table import Table

from speciate.core.segment import Segment, Slo, Tier
from speciate.sim.report import SimReport


def report_table(reports: Sequence[SimReport], segments: Mapping[Tier, Segment], title: str) -> Table:
    """One row a policy, means over its seeds. `kept` is by deadline / p99 gap / mean TPOT."""
    view = Table(title=title, title_style="bold", header_style="bold", caption=_promises(segments), caption_style="dim")
    view.add_column("policy")
    for tier in Tier:
        view.add_column(f"{tier} kept", justify="right")
    for name in ("RT TTFT p99", "batch tokens/s", "wasted", "model error", "requests/s"):
        view.add_column(name, justify="right")
    for policy in dict.fromkeys(report.policy for report in reports):
        view.add_row(policy, *_cells([report for report in reports if report.policy == policy]))
    return view


def _cells(rows: list[SimReport]) -> list[str]:
    ttfts = [row.tiers[Tier.REALTIME].ttft_p99_s for row in rows]
    seen = [value for value in ttfts if value is not None]
    return [
        *(_kept(rows, tier) for tier in Tier),
        f"{1000 * fmean(seen):,.0f} ms" if seen else "-",
        f"{fmean(row.harvest_tokens_per_s for row in rows):,.0f}",
        f"{fmean(row.wasted_s / max(row.busy_s, 1e-9) for row in rows):.1%}",
        f"{fmean(row.prediction_error for row in rows):.1%}",
        f"{sum(row.num_requests for row in rows) / max(1e-9, sum(row.cpu_s for row in rows)):,.0f}",
    ]


def _kept(rows: list[SimReport], tier: Tier) -> str:
    if not any(row.tiers[tier].judged for row in rows):
        return "-"
    kept = [row.tiers[tier].kept for row in rows]
    shares = (fmean(k.deadline for k in kept), fmean(k.gap for k in kept), fmean(k.mean for k in kept))
    return " / ".join(f"{100 * share:.1f}" for share in shares)


def _promises(segments: Mapping[Tier, Segment]) -> str:
    promises = ", ".join(f"{tier}: {_promise(segments[tier].slo)}" for tier in Tier)
    return f"kept: % of what was offered, by deadline / p99 gap / mean TPOT. {promises}"


def _promise(slo: Slo) -> str:
    parts = (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s), ("E2E", slo.e2e_s))
    return " ".join(f"{name} {value:g} s" for name, value in parts if value is not None) or "nothing"
