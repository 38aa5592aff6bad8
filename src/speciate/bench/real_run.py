"""One run on a real engine: the requests of a simulation, at their times, through a production `Replica`.

Everything that serves takes part but HTTP: admission, scheduler, engine, delivery. Clients are tasks in this process,
judged as the simulator's are. The scheduler does not know when outputs end; the engine's wrapper makes them end.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from msgspec import Struct, structs

from speciate.admission.admit import AdmissionOptions
from speciate.bench.lent_engine import END_TOKEN, LentEngine, NoText, StepRecord
from speciate.core.engine import StepEngine
from speciate.core.errors import SpeciateError
from speciate.core.output import Delta
from speciate.core.request import GenerateRequest, SamplingParams, StopRules
from speciate.core.scheduler import StepScheduler
from speciate.core.segment import Segment, Tier
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.replica import Replica
from speciate.sim.report import SimReport, tier_figures
from speciate.sim.simulation import served_segment
from speciate.sim.track import Tally, Track, make_track
from speciate.sim.workload import SimRequest
from speciate.telemetry.metrics import Metrics, ReplicaMetrics

FIRST_TOKEN = 10
"""Prompts are drawn from tokens above the special ones."""


class RealSetting(Struct, frozen=True):
    """What `sim.simulation.Setting` is, for a real engine."""

    policy: str
    engine: StepEngine
    segments: Mapping[Tier, Segment]
    scheduler: Callable[[], StepScheduler]
    window_s: float
    drain_s: float = 2.0
    limits: AdmissionOptions | None = None
    may_downgrade: bool = False
    seed: int = 0


class RealRun(Struct, frozen=True):
    """What came of it."""

    report: SimReport
    steps: tuple[StepRecord, ...]


def run_real(requests: Iterable[SimRequest], setting: RealSetting) -> RealRun:
    """Takes `window_s + drain_s` of real time. The engine is usable afterwards."""
    return asyncio.run(_Run(setting).run(list(requests)))


@dataclass(slots=True)
class _Totals:
    num_requests: int = 0
    seq_tasks: set["asyncio.Task[None]"] = field(default_factory=set)


class _Run:
    """Owns the replica, the clients and the tallies of one run."""

    def __init__(self, setting: RealSetting) -> None:
        self._setting = setting
        self._engine = LentEngine(setting.engine)
        self._clock = MonotonicClock()
        self._tallies = {tier: Tally(setting.window_s) for tier in Tier}
        self._scheduler = setting.scheduler()
        self._tracks: dict[int, Track] = {}
        self._totals = _Totals()
        self._draw = random.Random(f"prompts {setting.seed}")
        self._began_s = 0.0

    async def run(self, requests: list[SimRequest]) -> RealRun:
        cpu_s = time.process_time()
        device = Device("cpu")
        metrics = ReplicaMetrics(Metrics(), "bench")
        replica = Replica(self._engine, self._scheduler, NoText(), device, self._clock, metrics)
        works = [(index, request, self._work(index, request)) for index, request in enumerate(requests)]
        await self._hand_in([work for work in works if work[1].at_s == 0.0], replica)
        replica.start()
        self._began_s = self._clock.now_s()
        for index, request, work in works:
            if request.at_s > 0.0:
                await asyncio.sleep(max(0.0, request.at_s - self._now_s()))
                self._arrive(index, request, work, replica)
        await self._drain()
        for track in self._tracks.values():
            track.tally.stop(track, self._now_s())
        ended_s = self._now_s()
        await replica.stop()
        await asyncio.gather(*self._totals.seq_tasks, return_exceptions=True)
        await device.close()
        return RealRun(self._report(ended_s, time.process_time() - cpu_s), tuple(self._engine.records))

    async def _hand_in(self, works: list[tuple[int, SimRequest, GenerateRequest]], replica: Replica) -> None:
        """What is there from the beginning: tens of thousands of requests would delay the first arrivals by seconds."""
        self._began_s = self._clock.now_s()
        for work in works:
            self._arrive(*work, replica)
            await asyncio.sleep(0)  # it is queued before the next one is judged

    def _now_s(self) -> float:
        return self._clock.now_s() - self._began_s

    async def _drain(self) -> None:
        """Until the window is over, then as long as online work is open and the drain lasts."""
        setting = self._setting
        await asyncio.sleep(max(0.0, setting.window_s - self._now_s()))
        while self._now_s() < setting.window_s + setting.drain_s:
            if all(track.request.tier is Tier.BATCH for track in self._tracks.values()):
                return
            await asyncio.sleep(0.02)

    def _arrive(self, index: int, request: SimRequest, work: GenerateRequest, replica: Replica) -> None:
        tally = self._tallies[request.tier]
        tally.offered += 1
        self._totals.num_requests += 1
        setting = self._setting
        load = replica.load() if setting.limits is not None else None
        segment = served_segment(
            request, setting.segments, setting.limits, setting.may_downgrade, load, self._clock.now_s()
        )
        if segment is None:
            tally.refuse()
            return
        tally.relegated += segment.tier is not request.tier
        self._tracks[index] = make_track(request, setting.segments[request.tier], tally)
        work = structs.replace(work, segment=segment, arrival_s=self._began_s + request.at_s)
        task = asyncio.get_running_loop().create_task(self._client(index, work, replica))
        self._totals.seq_tasks.add(task)
        task.add_done_callback(self._totals.seq_tasks.discard)

    async def _client(self, index: int, work: GenerateRequest, replica: Replica) -> None:
        track = self._tracks[index]
        try:
            async with aclosing(replica.generate(work)) as events:
                async for event in events:
                    if isinstance(event, Delta) and any(track.see(self._now_s()) for _ in event.token_ids):
                        self._tracks.pop(index, None)
                        track.end()
        except SpeciateError:
            if self._tracks.pop(index, None) is not None and self._now_s() < self._setting.window_s:
                track.tally.drop()

    def _work(self, index: int, request: SimRequest) -> GenerateRequest:
        shape = self._engine.shape
        most = shape.context_tokens - request.prompt_tokens
        prompt = self._draw.choices(range(FIRST_TOKEN, shape.vocab_size), k=request.prompt_tokens)
        return GenerateRequest(
            request_id=str(index),
            model=shape.model,
            prompt_tokens=tuple(prompt),
            segment=self._setting.segments[request.tier],
            arrival_s=0.0,
            sampling=SamplingParams(temperature=0.0),
            stopping=StopRules(
                max_tokens=max(request.output_tokens, min(request.max_tokens, most)),
                stop_token_ids=(END_TOKEN,),
                min_tokens=request.output_tokens,
            ),
            tenant=request.tenant,
            may_downgrade=self._setting.may_downgrade,
        )

    def _report(self, ended_s: float, cpu_s: float) -> SimReport:
        load = self._scheduler.load(self._clock.now_s())
        records = self._engine.records
        return SimReport(
            policy=self._setting.policy,
            calibration=f"real: {self._engine.shape.model}",
            seed=self._setting.seed,
            window_s=self._setting.window_s,
            ended_s=ended_s,
            tiers={tier: tier_figures(tally) for tier, tally in self._tallies.items()},
            num_requests=self._totals.num_requests,
            num_steps=len(records),
            num_events=len(records),
            busy_s=sum(record.seconds for record in records),
            wasted_s=load.wasted_s,
            num_evictions=load.num_evictions,
            margin=load.margin,
            prediction_error=load.prediction_error,
            cpu_s=cpu_s,
        )
