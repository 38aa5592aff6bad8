"""The whole server around the fake engine, as a process that tests kill: `python batch_server.py PORT FOLDER [...]`.

A prompt with the word POISON in it ends the process at once, as a broken model runtime would.
"""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvicorn

from speciate.admission.admit import AdmissionOptions
from speciate.api.app import create_app
from speciate.api.auth import KeyRing
from speciate.api.batches_lines import LineRunner
from speciate.api.call import Services
from speciate.api.options import ApiOptions
from speciate.batch.departure import Departure
from speciate.batch.open import BatchPorts, open_jobs
from speciate.batch.options import BatchOptions
from speciate.batch.order import Credit
from speciate.core.engine import TokenEngineShape
from speciate.core.segment import Segment, Slo, Tier
from speciate.engines.fake import FakeEngine, StepCost
from speciate.models.catalog import read_model_folder
from speciate.models.pocket import TEXT_DIR
from speciate.models.text_model import load_text_model
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.gateway import Gateway, ServedModel
from speciate.runtime.replica import Replica
from speciate.scaling.spec import HereSpec, MarketsSpec, NoticeSpec
from speciate.scheduling.token import TokenScheduler
from speciate.telemetry.metrics import BatchMetrics, Metrics, ReplicaMetrics
from speciate.telemetry.notices import AwsNotice

SEGMENTS = {tier: Segment(f"{tier}-text", tier, Slo(ttft_s=60.0, tpot_s=10.0)) for tier in Tier}


class ShiftedClock:
    """The wall clock, moved by what stands in a file: the test sets it back between and during runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now_s(self) -> float:
        shift = float(self._path.read_text()) if self._path.exists() else 0.0
        return time.time() + shift


class Front(uvicorn.Server):
    """Leaves signals to the loop, which knows of the notice."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def main(given: argparse.Namespace) -> None:
    folder = read_model_folder(TEXT_DIR)
    text = load_text_model(folder)
    shape = TokenEngineShape("fake", folder.vocab_size, 2048, 32, 4096, 1, folder.eos_token_ids)
    answer = text.tokenizer.encode(" yes", False)

    def script(prompt: tuple[int, ...]) -> tuple[int, ...]:
        if "POISON" in text.tokenizer.decode(prompt, False):
            os._exit(66)
        return answer

    engine = FakeEngine(shape, cost=StepCost(fixed_s=given.step_s), script=script)
    device, clock, metrics = Device("fake"), MonotonicClock(), Metrics()
    replica = Replica(engine, TokenScheduler(shape), text.tokenizer, device, clock, ReplicaMetrics(metrics, "fake"))
    model = ServedModel("fake", "fake", "generate", 2048, 0, "fake", text, segments=SEGMENTS)
    options = ApiOptions()
    gateway = Gateway((model,), {"fake": replica}, {}, AdmissionOptions(), clock, metrics)
    gateway.start()
    here = HereSpec(
        name=f"port-{given.port}", market=given.market, usd_per_h=given.usd_per_h, notice=NoticeSpec(margin_s=0.5)
    )
    runner = LineRunner(Services(gateway, options, KeyRing(())), replica=here.name or "", market=here.market)
    ports = BatchPorts(
        runner.run,
        lambda name: gateway.loads()["fake"].tiers[Tier.BATCH].num_running,
        {"fake"}.__contains__,
        markets=MarketsSpec(here=here),
    )
    batch = msgspec.structs.replace(
        BatchOptions(poll_s=0.1, cancel_grace_s=0.5, lease_s=given.lease_s, max_deaths=given.max_deaths),
        credit=Credit(least=min(16, given.in_flight), most=given.in_flight),
    )
    postgres = os.environ.get("SPECIATE_BATCH_POSTGRES")
    wall = ShiftedClock(given.folder / "shift") if given.shifts else None
    async with open_jobs(given.folder, postgres, ports, batch, BatchMetrics(metrics), wall) as jobs:
        app = create_app(gateway, options, metrics.render, jobs)
        config = uvicorn.Config(app, port=given.port, log_level="error", access_log=False)
        front = Front(config)

        def told(left_s: float) -> None:
            jobs.leave(left_s)
            front.should_exit = True

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, told, given.notice_s)
        departure = Departure(AwsNotice(given.metadata) if given.metadata else None, 0.1, told)
        departure.start()
        await front.serve()
        await jobs.left()
        await departure.stop()
    await gateway.stop()
    await device.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--step-s", type=float, default=0.01)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--lease-s", type=float, default=3.0)
    parser.add_argument("--max-deaths", type=int, default=5)
    parser.add_argument("--shifts", action="store_true")
    parser.add_argument("--notice-s", type=float, default=0.0)
    parser.add_argument("--metadata", help="address of a metadata service in EC2's manner")
    parser.add_argument("--market", default="dedicated")
    parser.add_argument("--usd-per-h", type=float)
    asyncio.run(main(parser.parse_args()))
