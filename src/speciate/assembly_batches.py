"""Builds the durable path from settings, and ends it in time when the machine goes."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from speciate.admission.admit import Demand
from speciate.admission.batch_rate import predict_lines_per_s
from speciate.api.auth import KeyRing
from speciate.api.batches_lines import LineRunner
from speciate.api.call import Services
from speciate.api.options import ApiOptions
from speciate.batch.departure import Departure
from speciate.batch.jobs import BatchJobs, Sample
from speciate.batch.open import BatchPorts, open_jobs
from speciate.batch.options import BatchOptions
from speciate.batch.order import Credit
from speciate.config import BatchSettings, Settings, batch_postgres_url
from speciate.core.ports import NoticeSource
from speciate.core.segment import Tier
from speciate.runtime.gateway import Gateway
from speciate.scaling.spec import NoticeSpec
from speciate.telemetry.energy import find_rapl
from speciate.telemetry.metrics import BatchMetrics, Metrics
from speciate.telemetry.notices import AwsNotice, GcpNotice

log = logging.getLogger(__name__)


def open_batches(
    settings: Settings, options: ApiOptions, gateway: Gateway, metrics: Metrics
) -> AbstractAsyncContextManager[BatchJobs]:
    """The durable path over this server's gateway; what an earlier process left behind is taken up."""
    here = settings.markets.here
    runner = LineRunner(
        Services(gateway, options, KeyRing(())), replica=here.name or socket.gethostname(), market=here.market
    )
    names = frozenset(model.name for model in gateway.served())
    ports = BatchPorts(
        run_line=runner.run,
        num_running=lambda model: _num_batch_running(gateway, model),
        serves=names.__contains__,
        predict_rate=lambda sample: _predicted_rate(settings, gateway, sample),
        markets=settings.markets,
        energy=find_rapl(),
    )
    folder = data_folder(settings.batch)
    log.info("batches are in %s%s", folder, " and Postgres" if batch_postgres_url() else "")
    return open_jobs(folder, batch_postgres_url(), ports, batch_options(settings), BatchMetrics(metrics))


@asynccontextmanager
async def leaving_in_time(settings: Settings, jobs: BatchJobs, drain: Callable[[], None]) -> AsyncGenerator[None, None]:
    """Watches for the machine's end meanwhile; the batch worker leaves at the first notice, the front door drains (by
    `drain`) as late as its own time for that allows. At the end lines that fit in the notice have been finished."""
    notice, drain_s = settings.markets.here.notice, settings.server.drain_s
    loop = asyncio.get_running_loop()

    def told(left_s: float) -> None:
        jobs.leave(left_s)
        loop.call_later(max(0.0, left_s - drain_s - notice.margin_s), drain)

    departure = Departure(_notice_source(notice), notice.poll_s, told)
    departure.start()
    try:
        yield
        await jobs.left()
    finally:
        await departure.stop()


def notice_s(settings: Settings) -> float:
    """How long this process may still run after SIGTERM."""
    period_s = settings.markets.here.notice.period_s
    return settings.server.drain_s if period_s is None else period_s


def _notice_source(notice: NoticeSpec) -> NoticeSource | None:
    if notice.source == "none":
        return None
    return AwsNotice(notice.url) if notice.source == "aws" else GcpNotice(notice.url)


def data_folder(batch: BatchSettings) -> Path:
    """Where files and the SQLite store are."""
    if batch.directory is not None:
        return Path(batch.directory).expanduser()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share").expanduser()) / "speciate"


def batch_options(settings: Settings) -> BatchOptions:
    batch = settings.batch
    days = batch.input_expires_after_days
    return BatchOptions(
        max_lines=batch.max_lines,
        max_file_bytes=round(batch.max_file_mib * 2**20),
        max_line_bytes=round(settings.server.max_body_mib * 2**20),
        tenant_bytes=round(batch.tenant_gib * 2**30),
        max_open_batches=batch.max_open_batches,
        input_expires_after_s=None if days is None else round(days * 86_400),
        lease_s=batch.lease_s,
        max_attempts=batch.max_attempts,
        max_deaths=batch.max_worker_deaths,
        cancel_grace_s=batch.cancel_grace_s,
        credit=Credit(most=batch.max_in_flight),
    )


def _predicted_rate(settings: Settings, gateway: Gateway, sample: Sample) -> float | None:
    """From the replica's own step times; None for a model that is not here, or makes vectors."""
    served = next((model for model in gateway.served() if model.name == sample.model), None)
    load = gateway.loads().get(served.base) if served is not None else None
    if load is None:
        return None
    demand = Demand(settings.segment_table()[Tier.BATCH], sample.prompt_tokens, sample.max_tokens)
    return predict_lines_per_s(demand, load, settings.admission, settings.batch.max_in_flight)


def _num_batch_running(gateway: Gateway, model: str) -> int | None:
    """Of a model that makes vectors nothing is known."""
    load = gateway.loads().get(gateway.find(model).base)
    return None if load is None else load.tiers[Tier.BATCH].num_running
