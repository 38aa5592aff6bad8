"""Devices of a long-tail replay under the production decisions: `DenoiseScheduler` and `Residency`, pass by pass."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from speciate.core.denoise import DenoisePlan, ItemFacts, Stage
from speciate.core.denoise_scheduler import Asset, DenoiseWork, FetchDone, LoadDone, LoadPlan, StepDone
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassCurves, PassTable
from speciate.scheduling.denoise.residency import AssetFacts
from speciate.scheduling.denoise.scheduler import DenoiseScheduler
from speciate.sim.longtail_trace import TailRequest
from speciate.sim.world import Priority, World

PASS_S = 0.1
"""One pass of one image, as in the published replay (steps x 0.1 s)."""
ENCODE_S, DECODE_S = 0.03, 0.12
TOKENS = 1024
GAINS = {
    "512": {1: 1.0, 2: 1.82, 3: 2.69, 4: 2.77, 16: 3.21},
    "1024": {1: 1.0, 2: 1.02, 4: 1.03, 16: 1.03},
}
"""Throughput of a batch over one alone: Qwen-Image on an H200, 512 and 1024 px (SGLang pull request 22183)."""
NOISE = 0.03
"""Standard deviation of the logarithm of observed over expected seconds."""


def tail_table(regime: str, bases: list[str]) -> PassTable:
    """The same seconds for every base."""
    cells = []
    for base in bases:
        cells += [PassCost(base, Stage.PASS, TOKENS, n, PASS_S * n / gain) for n, gain in GAINS[regime].items()]
        cells += [PassCost(base, Stage.ENCODE, 0, n, ENCODE_S * (0.7 + 0.3 * n)) for n in (1, 8)]
        cells += [PassCost(base, Stage.DECODE, TOKENS, n, DECODE_S * n) for n in (1, 8)]
    return PassTable(f"one pass {PASS_S} s, gains at {regime} px", tuple(cells))


@dataclass(slots=True)
class _Open:
    request: TailRequest
    num_left: int
    was_served: bool = False


@dataclass(slots=True)
class DeviceTotals:
    """What a device did."""

    num_loads: int = 0
    num_adapter_loads: int = 0
    num_steps: int = 0
    busy_s: float = 0.0
    served: list[str] = field(default_factory=list)
    """Bases in the order in which requests first ran."""


class PassDevice:
    """One device that serves requests by the pass. `finish` is told of each request that is done."""

    def __init__(
        self,
        world: World,
        scheduler: DenoiseScheduler,
        curves: PassCurves,
        facts_of: Callable[[Asset], AssetFacts],
        promise_s: float,
        finish: Callable[[TailRequest, float], None],
        seed: str,
    ) -> None:
        self.scheduler = scheduler
        self.totals = DeviceTotals()
        self._world = world
        self._curves = curves
        self._facts_of = facts_of
        self._segment = Segment("image", Tier.INTERACTIVE, Slo(e2e_s=promise_s))
        self._finish = finish
        self._noise = Random(seed)
        self._num_items = 0
        self._open: dict[int, _Open] = {}
        self._in_host: set[Asset] = set()
        self._is_stepping = False
        self._is_planned = False

    def work(self, request: TailRequest, item_id: int = 0) -> DenoiseWork:
        facts = ItemFacts((TOKENS,), TOKENS, request.num_steps)
        return DenoiseWork(
            item_id,
            request.base,
            facts,
            self._segment,
            request.at_s,
            tenant=request.tenant,
            adapters=request.adapters,
        )

    def add(self, request: TailRequest) -> None:
        """Its images are items of their own."""
        opened = _Open(request, request.num_images)
        for _ in range(request.num_images):
            self._num_items += 1
            self._open[self._num_items] = opened
            self.scheduler.add(self.work(request, self._num_items), self._world.now_s)
        self._wake()

    def _wake(self) -> None:
        if not self._is_stepping and not self._is_planned:
            self._is_planned = True
            self._world.at(self._world.now_s, Priority.PLAN, self._plan)

    def _plan(self, now_s: float) -> None:
        self._is_planned = False
        if self._is_stepping:
            return
        decision = self.scheduler.plan(now_s)
        self._in_host.difference_update(decision.drop)
        if decision.load is not None:
            self._load(decision.load, now_s)
        for asset in decision.fetch:
            self._fetch(asset, now_s)
        if decision.plan is not None:
            self._begin(decision.plan, now_s)

    def _begin(self, plan: DenoisePlan, now_s: float) -> None:
        self._is_stepping = True
        self._note(plan)
        tokens = 0 if plan.stage is Stage.ENCODE else TOKENS
        expected_s = self._curves.estimate(plan.model, plan.stage, tokens, len(plan.items)).seconds
        seconds = expected_s * self._noise.lognormvariate(0.0, NOISE)
        self.totals.num_steps += 1
        self.totals.busy_s += seconds
        self._world.soon(now_s + seconds, Priority.STEP_ENDS, lambda end_s: self._end(plan, seconds, end_s))

    def _note(self, plan: DenoisePlan) -> None:
        for share in plan.items:
            opened = self._open[share.item_id]
            if not opened.was_served:
                opened.was_served = True
                self.totals.served.append(opened.request.base)

    def _end(self, plan: DenoisePlan, seconds: float, now_s: float) -> None:
        self.scheduler.commit(StepDone(plan, seconds), now_s)
        self._is_stepping = False
        if plan.stage is Stage.DECODE:
            for share in plan.items:
                self._close(self._open.pop(share.item_id), now_s)
        self._wake()

    def _close(self, opened: _Open, now_s: float) -> None:
        opened.num_left -= 1
        if opened.num_left == 0:
            self._finish(opened.request, now_s)

    def _load(self, plan: LoadPlan, now_s: float) -> None:
        facts = self._facts_of(plan.asset)
        seconds = facts.load_s + (0.0 if plan.asset in self._in_host else facts.fetch_s)
        self.totals.num_loads += not plan.asset.adapter
        self.totals.num_adapter_loads += plan.asset.adapter != ""
        self._world.at(now_s + seconds, Priority.STEP_ENDS, lambda end_s: self._loaded(plan, seconds, end_s))

    def _loaded(self, plan: LoadPlan, seconds: float, now_s: float) -> None:
        self._in_host.add(plan.asset)
        self.scheduler.commit(LoadDone(plan, seconds), now_s)
        self._wake()

    def _fetch(self, asset: Asset, now_s: float) -> None:
        seconds = self._facts_of(asset).fetch_s
        self._world.at(now_s + seconds, Priority.STEP_ENDS, lambda end_s: self._fetched(asset, seconds, end_s))

    def _fetched(self, asset: Asset, seconds: float, now_s: float) -> None:
        self._in_host.add(asset)
        self.scheduler.commit(FetchDone(asset, seconds), now_s)
        self._wake()
