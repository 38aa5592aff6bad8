"""The demo: real documents, real arrivals, three tiers, one process; then the report of promises kept."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from openai import AsyncOpenAI
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from speciate.bench import plot, report
from speciate.bench.client import Outcome, send, send_all
from speciate.bench.machine import describe_machine
from speciate.bench.report import TierReport
from speciate.bench.server import running_server
from speciate.bench.workload import Job, TierLoad, Workload, make_workload
from speciate.core.segment import Slo, Tier

COLOURS = {Tier.REALTIME: "red", Tier.INTERACTIVE: "blue", Tier.BATCH: "green"}


class DemoOptions(Struct, frozen=True):
    """What the demo does; rates are requests a second."""

    out: Path = Path("out/demo")
    duration_s: float = 60.0
    seed: int = 7
    model: str = "pocket"
    trace_folder: Path | None = None
    token_scale: float = 1 / 8
    """Document tokens per trace token: the pocket model reads up to about 700."""
    realtime_per_s: float = 2.0
    interactive_per_s: float = 4.0
    batch_per_s: float = 2.0
    server_flags: tuple[str, ...] = ()

    def loads(self) -> tuple[TierLoad, ...]:
        """Real-time work comes as people talk, with short documents; interactive and batch work as both traces do.

        No public trace of real-time work is known to us: the conversation's arrivals stand in for it.
        """
        return (
            TierLoad(Tier.REALTIME, "conv", self.realtime_per_s, start_s=1200, max_document_tokens=200),
            TierLoad(Tier.INTERACTIVE, "conv", self.interactive_per_s / 2, start_s=600),
            TierLoad(Tier.INTERACTIVE, "code", self.interactive_per_s / 2, start_s=600),
            TierLoad(Tier.BATCH, "conv", self.batch_per_s / 2, start_s=1800),
            TierLoad(Tier.BATCH, "code", self.batch_per_s / 2, start_s=1800),
        )


async def run_load(
    url: str, options: DemoOptions, promises: Mapping[Tier, Slo], console: Console
) -> dict[str, TierReport]:
    """Load a server that runs, and report; writes what `run_demo` writes but the server's log."""
    options.out.mkdir(parents=True, exist_ok=True)
    workload = _workload(options, console)
    outcomes, wall_s = await _load(url, options.model, workload, console)
    reports = report.report_by_tier(outcomes, promises, wall_s)
    _write(options, workload, outcomes, reports, wall_s, console)
    return reports


async def run_demo(options: DemoOptions, promises: Mapping[Tier, Slo], console: Console) -> dict[str, TierReport]:
    """Serve, load, report; writes report.json, report.png, report.html and server.log under `options.out`."""
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "server.log"
    async with running_server(*options.server_flags, log=log) as url:
        console.print(f"Server ready at {url} (log: {log}).")
        return await run_load(url, options, promises, console)


def _workload(options: DemoOptions, console: Console) -> Workload:
    workload = make_workload(
        options.loads(), options.duration_s, options.seed, options.trace_folder, options.token_scale
    )
    console.print(
        f"Sending {len(workload.jobs)} documents in {workload.duration_s:.0f} s, three tiers, open loop. "
        f"Arrivals: {workload.source}."
    )
    return workload


async def _load(url: str, model: str, workload: Workload, console: Console) -> tuple[list[Outcome], float]:
    outcomes: list[Outcome] = []
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0, timeout=120) as client:
        await _warm_up(client, model, workload.jobs)
        view = _Progress(workload.jobs)
        started_s = time.perf_counter()
        with Live(view.bars, console=console, refresh_per_second=8):

            def take(outcome: Outcome) -> None:
                outcomes.append(outcome)
                view.show(outcome)

            await send_all(client, model, workload.jobs, take)
        wall_s = time.perf_counter() - started_s
        if not console.is_terminal:
            console.print()  # the last view of the bars ends without one
        return outcomes, wall_s


async def _warm_up(client: AsyncOpenAI, model: str, jobs: tuple[Job, ...]) -> None:
    """First requests pay for lazily compiled kernels and measure the step times that admission predicts with."""
    for count in (1, 4, 8):
        now_s = time.perf_counter()
        await asyncio.gather(*(send(client, model, job, now_s) for job in jobs[:count]))


class _Progress:
    """One bar a tier, with the latest first-token time."""

    def __init__(self, jobs: tuple[Job, ...]) -> None:
        self.bars = Progress(
            TextColumn("{task.description:<12}"), BarColumn(bar_width=40), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )  # fmt: skip
        self._tasks: dict[Tier, TaskID] = {}
        for tier in Tier:
            total = sum(job.tier is tier for job in jobs)
            if total:
                self._tasks[tier] = self.bars.add_task(f"[{COLOURS[tier]}]{tier.value}[/]", total=total, note="")

    def show(self, outcome: Outcome) -> None:
        note = outcome.error.split(":")[0] if outcome.error else f"first token {1000 * (outcome.ttft_s or 0):.0f} ms"
        self.bars.update(self._tasks[outcome.tier], advance=1, note=note)


def _write(
    options: DemoOptions, workload: Workload, outcomes: list[Outcome], reports: dict[str, TierReport], wall_s: float,
    console: Console,
) -> None:  # fmt: skip
    machine = describe_machine()
    title = f"Speciate: {len(outcomes)} requests in three tiers on {machine['cores']} cores"
    facts = {"arrivals": workload.source, "wall": f"{wall_s:.1f} s", "model": options.model, **machine}
    png, page = plot.save(plot.draw(outcomes, reports, title), reports, facts, options.out)
    figures = {tier: msgspec.to_builtins(row) for tier, row in reports.items()}
    document = {**figures, "run": {"wall_s": wall_s, "source": workload.source, "seed": options.seed, **machine}}
    (options.out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))
    console.print(report.table(reports, "Promises kept"))
    for tier, row in reports.items():
        for name, count in row.errors.items():
            console.print(f"[red]{tier}: {count} x {name}[/]")
    console.print(f"Report: {options.out / 'report.json'}\nPlot:   {png}\nPage:   {page}")
