"""From outcomes to figures by tier: offered denominators, so whatever failed or was refused counts as missed."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from rich import box
from rich.table import Table

from speciate.bench.client import Outcome
from speciate.core.segment import Slo, Tier


class TierReport(Struct, frozen=True):
    """One tier's figures; times in seconds, shares 0..1, None where nothing was measured."""

    offered: int
    completed: int
    attainment: float
    """Share of the offered requests that met the promise (TTFT and mean TPOT and E2E, each where promised)."""
    promised_share: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None
    tokens_per_s: float
    accuracy: float
    """Share of the completed answers that are exactly right."""
    promise: Slo
    errors: dict[str, int]


def report_by_tier(outcomes: Iterable[Outcome], promises: Mapping[Tier, Slo], wall_s: float) -> dict[str, TierReport]:
    """Figures of each tier that offered anything, most urgent first."""
    by_tier: dict[Tier, list[Outcome]] = {tier: [] for tier in Tier}
    for outcome in outcomes:
        by_tier[outcome.tier].append(outcome)
    return {tier.value: _tier_report(rows, promises[tier], wall_s) for tier, rows in by_tier.items() if rows}


def is_kept(outcome: Outcome, promise: Slo) -> bool:
    """Whether a request met its promise; one that failed did not."""
    if outcome.error is not None or outcome.ttft_s is None or outcome.e2e_s is None:
        return False
    return (
        (promise.ttft_s is None or outcome.ttft_s <= promise.ttft_s)
        and (promise.tpot_s is None or (outcome.tpot_s or 0.0) <= promise.tpot_s)
        and (promise.e2e_s is None or outcome.e2e_s <= promise.e2e_s)
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile, None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(-(-share * len(ordered) // 1)) - 1))]


def table(reports: Mapping[str, TierReport], title: str) -> Table:
    """The report as a person reads it, 80 columns wide at most."""
    view = Table(title=title, title_style="bold", header_style="bold", box=box.SIMPLE_HEAVY, pad_edge=False,
                 collapse_padding=True)  # fmt: skip
    for name in (
        "tier",
        "promise",
        "sent",
        "kept\n(promised)",
        "TTFT ms\np50, p99",
        "TPOT ms\np50, p99",
        "tok/s",
        "right",
    ):
        view.add_column(name, justify="left" if name in ("tier", "promise") else "right", no_wrap=True)
    for tier, row in reports.items():
        style = "green" if row.attainment >= row.promised_share else "yellow" if row.attainment >= 0.9 else "red"
        view.add_row(
            tier,
            promise_text(row.promise).replace(", ", "\n"),
            str(row.offered),
            f"[{style}]{row.attainment:.1%}[/]\n({row.promised_share:.0%})",
            f"{_ms(row.ttft_p50_s)}\n{_ms(row.ttft_p99_s)}",
            f"{_ms(row.tpot_p50_s)}\n{_ms(row.tpot_p99_s)}",
            f"{row.tokens_per_s:,.0f}",
            f"{row.accuracy:.1%}",
        )
    return view


def promise_text(promise: Slo) -> str:
    """For example `TTFT 100 ms, TPOT 50 ms`."""
    parts = [("TTFT", promise.ttft_s), ("TPOT", promise.tpot_s), ("E2E", promise.e2e_s)]
    return ", ".join(f"{name} {_duration(value)}" for name, value in parts if value is not None) or "none"


def _tier_report(rows: list[Outcome], promise: Slo, wall_s: float) -> TierReport:
    done = [row for row in rows if row.error is None and row.e2e_s is not None]
    ttft = [row.ttft_s for row in rows if row.ttft_s is not None]
    tpot = [row.tpot_s for row in done if row.tpot_s is not None]
    e2e = [row.e2e_s for row in done if row.e2e_s is not None]
    errors = [row.error.split(":")[0] for row in rows if row.error is not None]
    return TierReport(
        offered=len(rows),
        completed=len(done),
        attainment=sum(is_kept(row, promise) for row in rows) / len(rows),
        promised_share=promise.share,
        ttft_p50_s=percentile(ttft, 0.5),
        ttft_p99_s=percentile(ttft, 0.99),
        tpot_p50_s=percentile(tpot, 0.5),
        tpot_p99_s=percentile(tpot, 0.99),
        e2e_p50_s=percentile(e2e, 0.5),
        e2e_p99_s=percentile(e2e, 0.99),
        tokens_per_s=sum(row.output_tokens for row in rows) / wall_s,
        accuracy=statistics.fmean(row.is_correct for row in done) if done else 0.0,
        promise=promise,
        errors={name: errors.count(name) for name in sorted(set(errors))},
    )


def _ms(value_s: float | None) -> str:
    if value_s is None:
        return "-"
    return f"{value_s * 1000:.1f}" if value_s < 0.1 else f"{value_s * 1000:,.0f}"


def _duration(value_s: float) -> str:
    if value_s < 1:
        return f"{value_s * 1000:g} ms"
    if value_s < 120:
        return f"{value_s:g} s"
    return f"{value_s / 3600:g} h" if value_s >= 3600 else f"{value_s / 60:g} min"
