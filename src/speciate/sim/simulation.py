"""One run: requests arrive, admission decides, replicas step, clients see tokens. `simulate` is the whole of it."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from speciate.admission.admit import AdmissionOptions, Demand, admit
from speciate.core.admission import Admitted
from speciate.core.replica import ReplicaLoad
from speciate.core.scheduler import StepScheduler
from speciate.core.segment import Segment, Tier
from speciate.costs.step_calibration import StepCalibration
from speciate.sim.faults import Faults, Patience
from speciate.sim.replica import SimReplica
from speciate.sim.report import SimReport, tier_figures
from speciate.sim.track import Tally
from speciate.sim.workload import SimRequest
from speciate.sim.world import Priority, World


class Seat(Struct, frozen=True):
    """A scheduler and its share of the device's speed. `tiers` are the ones it serves."""

    scheduler: StepScheduler
    speed: float = 1.0
    tiers: tuple[Tier, ...] = tuple(Tier)


class Setting(Struct, frozen=True):
    """What a run is made of beside its requests."""

    policy: str
    calibration: StepCalibration
    segments: Mapping[Tier, Segment]
    seats: Callable[[], tuple[Seat, ...]]
    """Builds fresh schedulers for each run."""
    window_s: float
    """Requests arrive, and token rates are measured, from 0 to here."""
    drain_s: float = 600.0
    """How long afterwards the run goes on for what is still open."""
    limits: AdmissionOptions | None = None
    """None: everything enters, as in engines without admission."""
    may_downgrade: bool = False
    faults: Faults = Faults()
    seed: int = 0
    may_fold: bool = True
    """Whether steps with equal plans may be computed as one; the result is the same, sooner."""


def simulate(requests: Iterable[SimRequest], setting: Setting) -> SimReport:
    """Run to the end. Equal requests and settings give equal reports, `cpu_s` excepted."""
    began_s = time.process_time()
    run = _Run(requests, setting)
    run.world.run(setting.window_s + setting.drain_s)
    return run.report(time.process_time() - began_s)


class _Run:
    """Owns the world, the replicas and the tallies of one run."""

    def __init__(self, requests: Iterable[SimRequest], setting: Setting) -> None:
        self.world = World()
        self._setting = setting
        self._tallies = {tier: Tally(setting.window_s) for tier in Tier}
        seats = setting.seats()
        self._replicas = [self._replica(seat) for seat in seats]
        self._route = {tier: self._replicas[i] for i, seat in enumerate(seats) for tier in seat.tiers}
        self._patience = Patience(setting.faults, setting.seed)
        self._seq_ids = itertools.count(1)
        self._num_requests = 0
        self._requests: Iterator[SimRequest] = iter(requests)
        self._await_next()

    def _replica(self, seat: Seat) -> SimReplica:
        setting = self._setting
        return SimReplica(
            self.world,
            seat.scheduler,
            setting.calibration,
            self._tallies,
            setting.faults,
            setting.seed,
            seat.speed,
            setting.may_fold,
        )

    def report(self, cpu_s: float) -> SimReport:
        for replica in self._replicas:
            replica.stop()
        loads = [replica.scheduler.load(replica.clock_s()) for replica in self._replicas]
        return SimReport(
            policy=self._setting.policy,
            calibration=self._setting.calibration.name,
            seed=self._setting.seed,
            window_s=self._setting.window_s,
            ended_s=self.world.now_s,
            tiers={tier: tier_figures(tally) for tier, tally in self._tallies.items()},
            num_requests=self._num_requests,
            num_steps=sum(replica.totals.num_steps for replica in self._replicas),
            num_events=self.world.num_events,
            busy_s=sum(replica.totals.busy_s for replica in self._replicas),
            wasted_s=sum(load.wasted_s for load in loads),
            num_evictions=sum(load.num_evictions for load in loads),
            margin=max(load.margin for load in loads),
            prediction_error=max(load.prediction_error for load in loads),
            cpu_s=cpu_s,
        )

    def _await_next(self) -> None:
        """One request ahead, however long the trace."""
        request = next(self._requests, None)
        if request is not None and request.at_s <= self._setting.window_s:
            self.world.at(request.at_s, Priority.ARRIVAL, lambda _: self._arrive(request))

    def _arrive(self, request: SimRequest) -> None:
        self._num_requests += 1
        tally, replica = self._tallies[request.tier], self._route[request.tier]
        tally.offered += 1
        segment = self._admit(request, replica)
        seq_id = next(self._seq_ids)
        promised = self._setting.segments[request.tier]
        leaves_s = self._patience.leaves_at_s(request)
        self._await_next()
        if segment is None or not replica.add(seq_id, request, promised, segment, self._setting.may_downgrade):
            tally.refuse()
            return
        tally.relegated += segment.tier is not request.tier
        if leaves_s is not None:
            self.world.at(leaves_s, Priority.FAULT, lambda _: replica.leave(seq_id))

    def _admit(self, request: SimRequest, replica: SimReplica) -> Segment | None:
        """The segment that it is served as, or None: the gateway's decision."""
        setting = self._setting
        load = replica.scheduler.load(replica.clock_s()) if setting.limits is not None else None
        return served_segment(request, setting.segments, setting.limits, setting.may_downgrade, load, replica.clock_s())


def served_segment(
    request: SimRequest,
    segments: Mapping[Tier, Segment],
    limits: AdmissionOptions | None,
    may_downgrade: bool,
    load: ReplicaLoad | None,
    now_s: float,
) -> Segment | None:
    """The segment that a request is served as, or None if it is refused. Without limits or load everything enters."""
    if limits is None or load is None:
        return segments[request.tier]
    demand = Demand(
        segment=segments[request.tier],
        prompt_tokens=request.prompt_tokens,
        max_tokens=request.max_tokens,
        may_downgrade=may_downgrade,
        tenant=request.tenant,
    )
    verdict = admit(demand, load, limits, now_s)
    return segments[verdict.tier] if isinstance(verdict, Admitted) else None
