"""The same devices as people run them: a request at a time, its images as one static batch, checkpoints by LRU.

first-come   the next idle device takes the oldest request
affinity     the same, but of the idle devices the one that has its base (what balancers before image servers do)
look-ahead   a device takes the oldest request for a base that it has, unless the oldest of all waits 30 s
grouped      a device stays with a base for 60 s of work while requests for it wait (deficit round robin)
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from speciate.core.denoise import Stage
from speciate.core.denoise_scheduler import Asset
from speciate.costs.pass_table import PassCurves
from speciate.scheduling.denoise.residency import AssetFacts
from speciate.sim.longtail_devices import NOISE, TOKENS, DeviceTotals
from speciate.sim.longtail_trace import TailRequest
from speciate.sim.world import Priority, World

LOOK_AHEAD_S = 30.0
QUANTUM_S = 60.0


class LruBytes:
    """What was used longest ago leaves until the newest fits."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._held: OrderedDict[Asset, int] = OrderedDict()

    def __contains__(self, asset: Asset) -> bool:
        return asset in self._held

    def use(self, asset: Asset, num_bytes: int) -> bool:
        """Put it there, or mark it as used; whether it was there."""
        was_there = asset in self._held
        self._held[asset] = num_bytes
        self._held.move_to_end(asset)
        while sum(self._held.values()) > self._room_bytes and len(self._held) > 1:
            self._held.popitem(last=False)
        return was_there


@dataclass(slots=True)
class RequestDevice:
    """Serves one request at a time."""

    bases: LruBytes
    adapters: LruBytes
    host: LruBytes
    totals: DeviceTotals = field(default_factory=DeviceTotals)
    is_busy: bool = False
    turn_base: str = ""
    turn_s: float = 0.0
    """Work done for `turn_base` since its turn began."""

    def has(self, base: str) -> bool:
        return Asset(base) in self.bases


Pick = Callable[[list[TailRequest], list[RequestDevice], float], tuple[int, RequestDevice] | None]
"""(place in the queue, an idle device) to serve next; the queue is in order of arrival and not empty."""


def first_come(queue: list[TailRequest], idle: list[RequestDevice], now_s: float) -> tuple[int, RequestDevice] | None:
    del queue, now_s
    return 0, idle[0]


def affinity(queue: list[TailRequest], idle: list[RequestDevice], now_s: float) -> tuple[int, RequestDevice] | None:
    del now_s
    return 0, next((device for device in idle if device.has(queue[0].base)), idle[0])


def look_ahead(queue: list[TailRequest], idle: list[RequestDevice], now_s: float) -> tuple[int, RequestDevice] | None:
    if now_s - queue[0].at_s <= LOOK_AHEAD_S:
        for place, request in enumerate(queue):
            for device in idle:
                if device.has(request.base):
                    return place, device
    return affinity(queue, idle, now_s)


def grouped(queue: list[TailRequest], idle: list[RequestDevice], now_s: float) -> tuple[int, RequestDevice] | None:
    for device in idle:
        if device.turn_s < QUANTUM_S:
            for place, request in enumerate(queue):
                if request.base == device.turn_base:
                    return place, device
    place, device = affinity(queue, idle, now_s) or (0, idle[0])
    device.turn_base, device.turn_s = queue[place].base, 0.0
    return place, device


BASELINES: dict[str, Pick] = {
    "first-come": first_come,
    "affinity": affinity,
    "look-ahead": look_ahead,
    "grouped": grouped,
}


class RequestFleet:
    """Devices before one queue. `finish` is told of each request that is done."""

    def __init__(
        self,
        world: World,
        devices: list[RequestDevice],
        pick: Pick,
        curves: PassCurves,
        facts_of: Callable[[Asset], AssetFacts],
        finish: Callable[[TailRequest, float], None],
        seed: str,
    ) -> None:
        self.devices = devices
        self._world = world
        self._pick = pick
        self._curves = curves
        self._facts_of = facts_of
        self._finish = finish
        self._noise = Random(seed)
        self._queue: list[TailRequest] = []

    def add(self, request: TailRequest) -> None:
        self._queue.append(request)
        self._serve(self._world.now_s)

    def _serve(self, now_s: float) -> None:
        while self._queue:
            idle = [device for device in self.devices if not device.is_busy]
            picked = self._pick(self._queue, idle, now_s) if idle else None
            if picked is None:
                return
            place, device = picked
            self._begin(self._queue.pop(place), device, now_s)

    def _begin(self, request: TailRequest, device: RequestDevice, now_s: float) -> None:
        device.is_busy = True
        device.totals.served.append(request.base)
        work_s = self._work_s(request) * self._noise.lognormvariate(0.0, NOISE)
        device.turn_s += work_s
        device.totals.busy_s += work_s
        end_s = now_s + self._load_s(request, device) + work_s
        self._world.at(end_s, Priority.STEP_ENDS, lambda at_s: self._end(request, device, at_s))

    def _end(self, request: TailRequest, device: RequestDevice, now_s: float) -> None:
        device.is_busy = False
        self._finish(request, now_s)
        self._serve(now_s)

    def _work_s(self, request: TailRequest) -> float:
        """All images in one batch, as a pipeline runs them."""
        seconds, num = self._seconds, request.num_images
        passes_s = request.num_steps * seconds(request.base, Stage.PASS, num)
        return seconds(request.base, Stage.ENCODE, 1) + passes_s + seconds(request.base, Stage.DECODE, num)

    def _seconds(self, base: str, stage: Stage, rows: int) -> float:
        return self._curves.estimate(base, stage, 0 if stage is Stage.ENCODE else TOKENS, rows).seconds

    def _load_s(self, request: TailRequest, device: RequestDevice) -> float:
        base = Asset(request.base)
        facts = self._facts_of(base)
        load_s = 0.0
        if not device.bases.use(base, facts.device_bytes):
            device.totals.num_loads += 1
            load_s += facts.load_s + (0.0 if base in device.host else facts.fetch_s)
        device.host.use(base, facts.host_bytes)
        return load_s + sum(self._adapter_s(Asset(request.base, name), device) for name in request.adapters)

    def _adapter_s(self, adapter: Asset, device: RequestDevice) -> float:
        facts = self._facts_of(adapter)
        was_in_host = adapter in device.host
        device.host.use(adapter, facts.host_bytes)
        if device.adapters.use(adapter, facts.device_bytes):
            return 0.0
        device.totals.num_adapter_loads += 1
        return facts.load_s + (0.0 if was_in_host else facts.fetch_s)
