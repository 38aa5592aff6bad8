"""Replays traffic of the long tail on a few devices under several policies: who is done in time, what was loaded."""

import time
from collections.abc import Callable, Sequence
from statistics import fmean

from msgspec import Struct

from speciate.scheduling.denoise.options import DenoiseOptions
from speciate.scheduling.denoise.residency import Residency, ResidencyOptions, WorthOf, expected_worth, recency
from speciate.scheduling.denoise.scheduler import DenoiseScheduler
from speciate.sim.hit_rates import belady_hits, forced_belady_hits, lru_hits
from speciate.sim.longtail_baselines import BASELINES, LruBytes, RequestDevice, RequestFleet
from speciate.sim.longtail_devices import PassDevice, tail_table
from speciate.sim.longtail_trace import BASE_BYTES, GIB, TailFacts, TailRequest, tail_facts
from speciate.sim.world import Priority, World

ADAPTER_ROOM = 2 * GIB


class TailSetting(Struct, frozen=True):
    """The machines of a replay."""

    num_devices: int = 4
    slots: int = 1
    """Bases that a device holds at once."""
    host_slots: int = 12
    """Bases that the host memory beside a device holds."""
    regime: str = "512"
    """Which measured gains of sharing passes hold."""
    promise_s: float = 60.0
    seed: int = 0


class TailReport(Struct, frozen=True):
    """A run. Shares are of all requests."""

    policy: str
    slots: int
    regime: str
    num_requests: int
    within: float
    """Done within the promise."""
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    hits: float
    """Requests over bases loaded: 1 - loads / requests."""
    order_hits: float
    """What each device would hit in the order in which it served, if it knew that order beforehand."""
    oracle_hits: float
    """What one cache of all slots together that knows the future hits on the arrivals, requests past it included."""
    lru_hits: float
    """What LRU hits there."""
    num_loads: int
    num_adapter_loads: int
    busy_s: float
    num_steps: int
    cpu_s: float


def replay(policy: str, requests: Sequence[TailRequest], setting: TailSetting) -> TailReport:
    """Run to the end. Equal arguments give equal reports, `cpu_s` excepted."""
    began_s = time.process_time()
    run = _Run(policy, requests, setting)
    run.world.run()
    return run.report(time.process_time() - began_s)


OURS: dict[str, WorthOf] = {"speciate": expected_worth, "speciate, LRU": recency}
POLICIES = (*BASELINES, *OURS)


class _Run:
    """Owns the world, the devices and what came of the requests."""

    def __init__(self, policy: str, requests: Sequence[TailRequest], setting: TailSetting) -> None:
        self.world = World()
        self._policy = policy
        self._setting = setting
        self._requests = requests
        self._next = 0
        self._times: list[float] = []
        facts = tail_facts(setting.seed)
        if policy in OURS:
            devices = [self._pass_device(facts, number) for number in range(setting.num_devices)]
            self._totals = [device.totals for device in devices]
            self._take: Callable[[TailRequest], None] = lambda request: place(request, devices, self.world.now_s)
        else:
            fleet = self._request_fleet(facts)
            self._totals = [device.totals for device in fleet.devices]
            self._take = fleet.add
        self._await_next()

    def _await_next(self) -> None:
        if self._next < len(self._requests):
            self.world.at(self._requests[self._next].at_s, Priority.ARRIVAL, self._arrive)

    def _arrive(self, now_s: float) -> None:
        del now_s
        request = self._requests[self._next]
        self._next += 1
        self._take(request)
        self._await_next()

    def _finish(self, request: TailRequest, now_s: float) -> None:
        self._times.append(now_s - request.at_s)

    def _pass_device(self, facts: TailFacts, number: int) -> PassDevice:
        setting = self._setting
        table = tail_table(setting.regime, sorted({request.base for request in self._requests}))
        room = ResidencyOptions(
            device_bytes=setting.slots * BASE_BYTES + ADAPTER_ROOM,
            host_bytes=setting.host_slots * BASE_BYTES + 2 * ADAPTER_ROOM,
        )
        residency = Residency(room, facts, worth_of=OURS[self._policy])
        scheduler = DenoiseScheduler(table, residency, DenoiseOptions())
        seed = f"{setting.seed} device {number}"
        return PassDevice(self.world, scheduler, table.curves(), facts, setting.promise_s, self._finish, seed)

    def _request_fleet(self, facts: TailFacts) -> RequestFleet:
        setting = self._setting
        table = tail_table(setting.regime, sorted({request.base for request in self._requests}))
        devices = [
            RequestDevice(
                bases=LruBytes(setting.slots * BASE_BYTES),
                adapters=LruBytes(ADAPTER_ROOM),
                host=LruBytes(setting.host_slots * BASE_BYTES + 2 * ADAPTER_ROOM),
            )
            for _ in range(setting.num_devices)
        ]
        pick = BASELINES[self._policy]
        return RequestFleet(self.world, devices, pick, table.curves(), facts, self._finish, f"{setting.seed} fleet")

    def _order_hits(self) -> float:
        served = [totals.served for totals in self._totals]
        hits = sum(len(bases) * forced_belady_hits(bases, self._setting.slots) for bases in served)
        return hits / sum(map(len, served))

    def report(self, cpu_s: float) -> TailReport:
        setting, times = self._setting, sorted(self._times)
        num, num_loads = len(times), sum(totals.num_loads for totals in self._totals)
        bases = [request.base for request in self._requests]
        num_slots = setting.num_devices * setting.slots
        return TailReport(
            policy=self._policy,
            slots=setting.slots,
            regime=setting.regime,
            num_requests=num,
            within=sum(took_s <= setting.promise_s for took_s in times) / num,
            mean_s=fmean(times),
            p50_s=_quantile(times, 0.5),
            p95_s=_quantile(times, 0.95),
            p99_s=_quantile(times, 0.99),
            hits=1.0 - num_loads / num,
            order_hits=self._order_hits(),
            oracle_hits=belady_hits(bases, num_slots),
            lru_hits=lru_hits(bases, num_slots),
            num_loads=num_loads,
            num_adapter_loads=sum(totals.num_adapter_loads for totals in self._totals),
            busy_s=sum(totals.busy_s for totals in self._totals),
            num_steps=sum(totals.num_steps for totals in self._totals),
            cpu_s=cpu_s,
        )


EARLY = 0.8
"""A device that has the base is good enough if the request is done there within this share of its promise."""


def place(request: TailRequest, devices: list[PassDevice], now_s: float) -> None:
    """Give the request to a device that has what it needs, while it is early enough there; else where it costs least:
    until it is done, its load once more (it takes that from the others), and what will have to be loaded again."""

    def cost(device: PassDevice) -> tuple[bool, float]:
        forecast = device.scheduler.forecast(device.work(request), now_s, request.num_images)
        is_early = forecast.load_s == 0 and forecast.finish_s - now_s <= EARLY * (forecast.due_s - now_s)
        return not is_early, forecast.finish_s + forecast.load_s + forecast.displaced_s

    min(devices, key=cost).add(request)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
