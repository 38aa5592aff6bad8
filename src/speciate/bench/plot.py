"""The report as a picture (PNG) and as one self-contained page (HTML with the same picture as SVG)."""

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speciate.bench.client import Outcome
from speciate.bench.report import TierReport, promise_text
from speciate.core.segment import Tier

COLOURS = {Tier.REALTIME: "#d1495b", Tier.INTERACTIVE: "#2e6f9e", Tier.BATCH: "#7a8b69"}
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "svg.fonttype": "path",
}


def draw(outcomes: Sequence[Outcome], reports: Mapping[str, TierReport], title: str) -> Figure:
    """Four panels: first-token times as they came, their distribution, throughput over time, promises kept."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 7.2))
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1, hspace=0.06)
        figure.suptitle(title, fontsize=13, fontweight="bold", x=0.006, ha="left")
        panels = figure.subplots(2, 2)
        _scatter(panels[0][0], outcomes, reports)
        _distribution(panels[0][1], outcomes, reports)
        _throughput(panels[1][0], outcomes)
        _kept(panels[1][1], reports)
    return figure


def save(
    figure: Figure, reports: Mapping[str, TierReport], facts: Mapping[str, str], folder: Path
) -> tuple[Path, Path]:
    """Write report.png and report.html; gives their paths."""
    png, page = folder / "report.png", folder / "report.html"
    with mpl.rc_context(_STYLE):
        figure.savefig(png, dpi=150)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    page.write_text(_page(svg[svg.index("<svg") :], reports, facts), encoding="utf-8")
    return png, page


def _of(outcomes: Sequence[Outcome], tier: Tier) -> list[Outcome]:
    return [o for o in outcomes if o.tier is tier and o.ttft_s is not None]


def _scatter(axes: Axes, outcomes: Sequence[Outcome], reports: Mapping[str, TierReport]) -> None:
    axes.set_title("Time to first token")
    for tier, colour in COLOURS.items():
        rows = _of(outcomes, tier)
        axes.scatter([o.at_s for o in rows], [1000 * (o.ttft_s or 0) for o in rows], s=9, color=colour, alpha=0.6,
                     linewidths=0, label=tier.value)  # fmt: skip
        promise = reports[tier.value].promise.ttft_s if tier.value in reports else None
        if promise is not None:
            axes.axhline(1000 * promise, color=colour, linestyle="--", linewidth=1)
    _refused(axes, outcomes)
    axes.set_yscale("log")
    axes.set_xlabel("arrival, s")
    axes.set_ylabel("TTFT, ms (dashed: promised)")
    axes.yaxis.set_major_formatter("{x:g}")


def _refused(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Crosses along the upper edge: requests that got no token."""
    lost = [o for o in outcomes if o.ttft_s is None]
    if not lost:
        return
    upper_edge = axes.get_xaxis_transform()
    axes.scatter([o.at_s for o in lost], [0.98] * len(lost), s=22, marker="x", linewidths=1.2,
                 color=[COLOURS[o.tier] for o in lost], transform=upper_edge, clip_on=False)  # fmt: skip
    axes.set_title(f"Time to first token (crosses: {len(lost)} got none)")


def _distribution(axes: Axes, outcomes: Sequence[Outcome], reports: Mapping[str, TierReport]) -> None:
    axes.set_title("First token within, share of all requests sent")
    for tier, colour in COLOURS.items():
        times = sorted(1000 * (o.ttft_s or 0) for o in _of(outcomes, tier))
        if not times:
            continue
        offered = reports[tier.value].offered
        axes.step(times, [(i + 1) / offered for i in range(len(times))], color=colour, where="post", label=tier.value)
        promise = reports[tier.value].promise.ttft_s
        if promise is not None:
            axes.axvline(1000 * promise, color=colour, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower right", framealpha=1.0, edgecolor="none")
    axes.set_xlabel("TTFT, ms (dashed: promised)")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _throughput(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    axes.set_title("Output tokens a second")
    ends = [o.at_s + o.e2e_s for o in outcomes if o.e2e_s is not None]
    num_bins = max(1, int(max(ends, default=1.0)) + 1)
    stacks = {tier: [0.0] * num_bins for tier in Tier}
    for o in outcomes:
        if o.e2e_s is not None and o.ttft_s is not None:
            _spread(stacks[o.tier], o.at_s + o.ttft_s, o.at_s + o.e2e_s, o.output_tokens)
    axes.stackplot(range(num_bins), *stacks.values(), colors=[COLOURS[t] for t in stacks], alpha=0.85,
                   labels=[t.value for t in stacks])  # fmt: skip
    axes.set_xlabel("time, s")
    axes.set_ylabel("tokens/s")
    axes.set_xlim(0, num_bins - 1 or 1)


def _spread(bins: list[float], start_s: float, end_s: float, num_tokens: int) -> None:
    """Spread tokens evenly over the seconds in which they came."""
    first, last = int(start_s), int(end_s)
    for second in range(first, last + 1):
        bins[min(second, len(bins) - 1)] += num_tokens / (last - first + 1)


def _kept(axes: Axes, reports: Mapping[str, TierReport]) -> None:
    axes.set_title("Promises kept, and answers right")
    names = list(reports)
    for place, name in enumerate(names):
        row, colour = reports[name], COLOURS[Tier(name)]
        axes.barh(place - 0.2, row.attainment, height=0.36, color=colour)
        axes.barh(place + 0.2, row.accuracy, height=0.36, color=colour, alpha=0.35)
        axes.plot([row.promised_share] * 2, [place - 0.4, place], color="#222222", linewidth=2)
        axes.text(0.01, place - 0.2, f"kept {row.attainment:.1%}", va="center", color="white", fontsize=9)
        axes.text(0.01, place + 0.2, f"right {row.accuracy:.1%}", va="center", color="#222222", fontsize=9)
    axes.set_yticks(range(len(names)), [f"{n}\n{promise_text(reports[n].promise)}" for n in names])
    axes.set_xlim(0, 1.03)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of requests (black mark: the share promised)")


def _page(svg: str, reports: Mapping[str, TierReport], facts: Mapping[str, str]) -> str:
    rows = "".join(_row(name, row) for name, row in reports.items())
    listed = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items())
    return _PAGE.replace("{{svg}}", svg).replace("{{rows}}", rows).replace("{{facts}}", listed)


def _row(name: str, row: TierReport) -> str:
    verdict = "kept" if row.attainment >= row.promised_share else "missed"
    cells = (
        name, str(row.offered), promise_text(row.promise), str(sum(row.errors.values())),
        f"{row.promised_share:.0%}", f"{row.attainment:.1%}",
        f"{_ms(row.ttft_p50_s)} / {_ms(row.ttft_p99_s)}", f"{_ms(row.tpot_p50_s)} / {_ms(row.tpot_p99_s)}",
        f"{row.tokens_per_s:,.0f}", f"{row.accuracy:.1%}",
    )  # fmt: skip
    return f'<tr class="{verdict}">' + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1000:,.1f}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Speciate: promises kept</title><style>
:root{color-scheme:light}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;
color:#222;background:#fff}h1{font-size:1.5rem;margin:0 0 1rem}table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{padding:.45rem .6rem;text-align:right;border-bottom:1px solid #e6e6e6;font-variant-numeric:tabular-nums}
td{white-space:nowrap}
th:first-child,td:first-child,th:nth-child(3),td:nth-child(3){text-align:left}th{font-weight:600;color:#555}
tr.kept td:nth-child(6){color:#1b7f3b;font-weight:600}tr.missed td:nth-child(6){color:#b3261e;font-weight:600}
svg{width:100%;height:auto}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;color:#555}dd{margin:0}
.scroll{overflow-x:auto}</style></head><body>
<h1>Speciate: one process, three promises</h1>
<div class="scroll"><table><thead><tr><th>tier</th><th>offered</th><th>promise</th><th>refused, failed</th>
<th>share promised</th><th>share kept</th><th>TTFT p50 / p99, ms</th><th>TPOT p50 / p99, ms</th>
<th>tokens/s</th><th>answers right</th></tr></thead><tbody>{{rows}}</tbody></table></div>
{{svg}}
<dl>{{facts}}</dl></body></html>
"""
