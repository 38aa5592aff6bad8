"""The denoise scheduler against fake engines, under random arrivals, aborts, lost steps, loads and jumps of the clock.

Each step runs on a fake engine that refuses a pass out of order; each picture must be the one that its spec asks for.
What is planned may only use what is on the device, share what may be shared, and take no longer than was granted.

Two drivers: hypothesis, which shrinks what it finds, and seeded random lives, which are longer. Mutants are planted in
`test_denoise_mutants`.
"""

from dataclasses import dataclass, field
from math import inf
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speciate.core.denoise import AdapterUse, DenoisePlan, DenoiseShape, DenoiseSpec, Picture, Stage
from speciate.core.denoise_scheduler import Asset, DenoiseDecision, DenoiseWork, FetchDone, LoadDone, LoadPlan, StepDone
from speciate.core.errors import EngineFailed
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassTable
from speciate.engines.fake_denoise import FakeDenoiseEngine, expected_picture, fake_facts
from speciate.scheduling.denoise.options import DenoiseOptions
from speciate.scheduling.denoise.residency import AssetFacts, Residency, ResidencyOptions
from speciate.scheduling.denoise.scheduler import DenoiseScheduler

MODELS = ("alpha", "beta", "gamma")
ADAPTERS = ("ink", "oil")
SEGMENTS = (
    Segment("draft", Tier.REALTIME, Slo(e2e_s=2.0)),
    Segment("art", Tier.INTERACTIVE, Slo(e2e_s=20.0)),
    Segment("whenever", Tier.INTERACTIVE, Slo()),
    Segment("bulk", Tier.BATCH, Slo(e2e_s=600.0)),
    Segment("night", Tier.BATCH, Slo()),
)
PAYS = {1: 0.10, 2: 0.11, 4: 0.13, 8: 0.2}
PAYS_NOT = {1: 0.10, 2: 0.21, 4: 0.43, 8: 0.9}
MAX_ROWS = 8


def table(costs: dict[int, float]) -> PassTable:
    cells = [PassCost(model, Stage.PASS, 4, rows, s) for model in MODELS for rows, s in costs.items()]
    cells += [PassCost(model, Stage.ENCODE, 0, 1, 0.02) for model in MODELS]
    cells += [PassCost(model, Stage.DECODE, 4, 1, 0.05) for model in MODELS]
    return PassTable("test", tuple(cells))


def facts_of(asset: Asset) -> AssetFacts:
    size = 2 if asset.adapter else 10
    return AssetFacts(asset, size, size, 0.05 * size, 0.2 * size)


def shape_of(model: str) -> DenoiseShape:
    return DenoiseShape(model, 16, 16, 64, max_frames=4, adapters=ADAPTERS)


@dataclass(slots=True)
class Client:
    """What the outside knows of one item."""

    spec: DenoiseSpec
    work: DenoiseWork
    tier: Tier
    passes_done: int
    was_relegated: bool = False


@dataclass(slots=True)
class Told:
    """What the world has to do for the scheduler."""

    load: LoadPlan | None = None
    fetch: Asset | None = None
    on_device: set[Asset] = field(default_factory=set)
    in_host: set[Asset] = field(default_factory=set)


class Device:
    """Drives `DenoiseScheduler` as a replica does, and checks everything it is told."""

    def __init__(self, costs: dict[int, float], slots: int | None, num_slices: int, **options: object) -> None:
        self.now_s = 0.0
        self.table = table(costs)
        self.num_slices = num_slices
        self.engines = {
            model: FakeDenoiseEngine(shape_of(model), self.table, num_slices=num_slices, wait=lambda _: None)
            for model in MODELS
        }
        self.told = Told()
        residency = None if slots is None else self.residency(slots)
        self.scheduler = DenoiseScheduler(self.table, residency, DenoiseOptions(max_rows=MAX_ROWS, **options))
        self.has_residency = slots is not None
        self.clients: dict[int, Client] = {}
        self.decision: DenoiseDecision | None = None
        self.num_added = 0
        self.num_painted = 0
        self.num_shared = 0
        self.num_loads = 0

    def residency(self, slots: int) -> Residency:
        return Residency(ResidencyOptions(device_bytes=12 * slots + 2, host_bytes=22), facts_of)

    def add(self, segment: Segment, num_steps: int, *, model: str, **fields: object) -> None:
        item_id = self.num_added
        self.num_added += 1
        adapters = fields.pop("adapters")
        spec = DenoiseSpec(
            item_id,
            prompt=f"picture {item_id}",
            width=fields.pop("width"),
            height=32,
            num_steps=num_steps,
            seed=item_id,
            guidance=fields.pop("guidance"),
            adapters=tuple(AdapterUse(name) for name in adapters),
            is_reproducible=fields["is_reproducible"],
        )
        facts = self.engines[model].add(spec)
        work = DenoiseWork(item_id, model, facts, segment, self.now_s, adapters=adapters, **fields)
        self.scheduler.add(work, self.now_s)
        self.clients[item_id] = Client(spec, work, segment.tier, 0)
        self.check()

    def abort(self, item_id: int) -> None:
        self.scheduler.abort(item_id, self.now_s)
        del self.clients[item_id]
        self.check()

    def plan(self, within_s: float = inf) -> None:
        decision = self.scheduler.plan(self.now_s, within_s)
        for item_id in decision.expired:
            deadline_s = self.clients.pop(item_id).work.deadline_s
            assert deadline_s is not None
            assert deadline_s <= self.now_s
        for item_id, tier in decision.relegated:
            client = self.clients[item_id]
            assert client.work.may_downgrade
            assert not client.was_relegated
            client.tier, client.was_relegated = tier, True
        self._obey(decision)
        if decision.plan is not None:
            self._check_plan(decision.plan, decision.predicted_s, within_s)
            self.decision = decision
        elif within_s == inf:
            is_busy = self.told.load is not None
            assert is_busy or not self.clients, "work is there, nothing is loading, and nothing runs"
        self.check()

    def commit(self, factor: float = 1.0, fault: str = "") -> None:
        """The step took `factor` of what was predicted."""
        assert self.decision is not None
        assert self.decision.plan is not None
        plan, observed_s = self.decision.plan, self.decision.predicted_s * factor
        self.decision = None
        self.now_s += observed_s
        engine = self.engines[plan.model]
        if fault == "item":
            engine.spoil.add(plan.items[-1].item_id)
        engine.fail_next_step = fault == "step"
        try:
            result = engine.step(plan)
        except EngineFailed:
            assert fault == "step"
            self.scheduler.commit(StepDone(plan, observed_s, is_failed=True), self.now_s)
            self.check()
            return
        lost = frozenset(item_id for item_id, _ in result.failed)
        self.scheduler.commit(StepDone(plan, observed_s, lost), self.now_s)
        for item_id in lost:
            self.clients.pop(item_id, None)
        for picture in result.pictures:
            self._take(picture)
        if plan.stage is Stage.PASS:
            for step in plan.items:
                if step.item_id in self.clients:
                    self.clients[step.item_id].passes_done += 1
        self.check()

    def end_load(self, is_failed: bool = False) -> None:
        load = self.told.load
        assert load is not None
        self.told.load = None
        if not is_failed:
            self.told.on_device.add(load.asset)
        self.scheduler.commit(LoadDone(load, 0.5, is_failed), self.now_s)
        self.check()

    def end_fetch(self, is_failed: bool = False) -> None:
        asset = self.told.fetch
        assert asset is not None
        self.told.fetch = None
        self.scheduler.commit(FetchDone(asset, 2.0, is_failed), self.now_s)
        self.check()

    def check(self) -> None:
        self.scheduler.check()
        load = self.scheduler.load(self.now_s)
        assert sorted(pending.item_id for pending in load.pending) == sorted(self.clients)
        for pending in load.pending:
            assert pending.passes_done <= self.clients[pending.item_id].passes_done + 1
            assert pending.eta_s >= self.now_s
        wish = self.scheduler.wish(self.now_s)
        assert all(claim.min_step_s > 0 for claim in wish.claims)
        assert all(guard.longest_step_s > 0 for guard in wish.guards)

    def drain(self) -> None:
        """When arrivals stop everything finishes."""
        for _ in range(20_000):
            if self.told.load is not None:
                self.now_s += 0.1
                self.end_load()
            if self.told.fetch is not None:
                self.end_fetch()
            if self.decision is not None:
                self.commit()
            elif self.clients:
                self.plan()
            else:
                break
        assert not self.clients, f"{len(self.clients)} items starve"

    def _obey(self, decision: DenoiseDecision) -> None:
        if decision.load is not None:
            assert self.told.load is None, "two loads at once"
            assert decision.load.asset not in self.told.on_device
            self.told.on_device -= set(decision.load.unload)
            self.told.load = decision.load
            self.num_loads += 1
        if decision.fetch:
            assert self.told.fetch is None
            (self.told.fetch,) = decision.fetch

    def _check_plan(self, plan: DenoisePlan, predicted_s: float, within_s: float) -> None:
        clients = [self.clients[step.item_id] for step in plan.items]
        assert len({client.spec.item_id for client in clients}) == len(clients) > 0
        assert {client.work.model for client in clients} == {plan.model}
        assert predicted_s <= within_s
        if len(clients) > 1:
            self.num_shared += 1
            assert not any(client.spec.is_reproducible for client in clients), "the reproducible lane is shared"
        if plan.stage is not Stage.ENCODE:
            assert len({client.work.facts.latent_shape for client in clients}) == 1
        if plan.stage is Stage.PASS:
            assert sum(client.work.facts.num_rows for client in clients) <= MAX_ROWS
        if self.has_residency:
            for client in clients:
                needed = {Asset(plan.model), *(Asset(plan.model, name) for name in client.work.adapters)}
                assert needed <= self.told.on_device, "it runs what is not on the device"

    def _take(self, picture: Picture) -> None:
        client = self.clients.get(picture.item_id)
        if client is None:
            return
        if picture.is_preview:
            assert client.passes_done in client.work.preview_after
            return
        expected = expected_picture(shape_of(client.work.model), client.spec)
        assert picture.rgb == expected.rgb
        del self.clients[picture.item_id]
        self.num_painted += 1


class DenoiseMachine(RuleBasedStateMachine):
    """Hypothesis plays the world of a `Device`."""

    @initialize(
        costs=st.sampled_from([PAYS, PAYS_NOT]),
        slots=st.sampled_from([None, 1, 2]),
        num_slices=st.integers(1, 3),
        starvation_s=st.sampled_from([1.0, 300.0]),
        quantum_s=st.sampled_from([0.5, 60.0]),
        arm_s=st.sampled_from([0.0, 60.0]),
    )
    def setup(self, costs: dict[int, float], slots: int | None, num_slices: int, **options: object) -> None:
        self.device = Device(costs, slots, num_slices, **options)

    @rule(
        segment=st.sampled_from(SEGMENTS),
        num_steps=st.one_of(st.integers(1, 4), st.integers(10, 60)),
        model=st.sampled_from(MODELS),
        width=st.sampled_from([32, 32, 64]),
        guidance=st.sampled_from([None, 7.0]),
        adapters=st.sampled_from([(), (), ("ink",), ("oil", "ink")]),
        tenant=st.sampled_from("ab"),
        deadline=st.one_of(st.none(), st.none(), st.floats(0.05, 30.0)),
        may_downgrade=st.booleans(),
        is_reproducible=st.sampled_from([False, False, False, True]),
        preview_after=st.sampled_from([(), (), (1,), (2, 3)]),
        copies=st.sampled_from([1, 1, 3]),
    )
    def add(self, segment: Segment, num_steps: int, deadline: float | None, copies: int, **fields: object) -> None:
        for _ in range(copies):
            deadline_s = None if deadline is None else self.device.now_s + deadline
            self.device.add(segment, num_steps, deadline_s=deadline_s, **fields)

    @precondition(lambda self: self.device.clients)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.device.abort(data.draw(st.sampled_from(sorted(self.device.clients))))

    @rule(seconds=st.sampled_from([0.01, 0.5, 5.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.device.now_s += seconds

    @precondition(lambda self: self.device.decision is None)
    @rule(within_s=st.sampled_from([inf, inf, 0.3, 0.06]))
    def plan(self, within_s: float) -> None:
        self.device.plan(within_s)

    @precondition(lambda self: self.device.decision is not None)
    @rule(factor=st.sampled_from([0.5, 1.0, 1.0, 1.2, 5.0]), fault=st.sampled_from([""] * 8 + ["item", "step"]))
    def commit(self, factor: float, fault: str) -> None:
        self.device.commit(factor, fault)

    @precondition(lambda self: self.device.told.load is not None)
    @rule(is_failed=st.sampled_from([False, False, False, True]))
    def end_load(self, is_failed: bool) -> None:
        self.device.end_load(is_failed)

    @precondition(lambda self: self.device.told.fetch is not None)
    @rule(is_failed=st.sampled_from([False, False, False, True]))
    def end_fetch(self, is_failed: bool) -> None:
        self.device.end_fetch(is_failed)

    @rule(num=st.integers(1, 10))
    def run(self, num: int) -> None:
        """Several steps in a row, as most of a replica's life."""
        for _ in range(num):
            if self.device.decision is not None:
                self.device.commit()
            self.device.plan()

    @invariant()
    def adds_up(self) -> None:
        if hasattr(self, "device"):
            self.device.check()

    def teardown(self) -> None:
        if hasattr(self, "device"):
            self.device.drain()


TestDenoise = DenoiseMachine.TestCase
TestDenoise.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


class DeepDenoiseMachine(DenoiseMachine):
    """The same, for longer."""


TestDenoiseDeep = pytest.mark.timeout(1800)(pytest.mark.slow(DeepDenoiseMachine.TestCase))
TestDenoiseDeep.settings = settings(
    max_examples=600, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)


def live(seed: int, num_events: int = 60) -> Device:
    """One life from a seed: some minutes of a device, then the drain."""
    random = Random(seed)
    device = Device(
        random.choice([PAYS, PAYS_NOT]),
        random.choice([None, 1, 2]),
        random.randint(1, 3),
        starvation_s=random.choice([1.0, 300.0]),
        quantum_s=random.choice([0.5, 60.0]),
        arm_s=random.choice([0.0, 60.0]),
    )
    for _ in range(num_events):
        event = random.random()
        if event < 0.3:
            add_something(random, device)
        elif event < 0.34 and device.clients:
            device.abort(random.choice(sorted(device.clients)))
        elif event < 0.38:
            device.now_s += random.choice([0.01, 0.5, 5.0, 100.0])
        elif event < 0.45 and device.told.load is not None:
            device.end_load(random.random() < 0.1)
        elif event < 0.5 and device.told.fetch is not None:
            device.end_fetch(random.random() < 0.1)
        elif device.decision is None:
            device.plan(random.choice([inf, inf, inf, 0.3]))
        else:
            device.commit(random.choice([0.5, 1.0, 1.0, 1.2, 5.0]), random.choice([""] * 18 + ["item", "step"]))
    device.drain()
    return device


def add_something(random: Random, device: Device) -> None:
    for _ in range(random.choice([1, 1, 1, 4])):
        device.add(
            random.choice(SEGMENTS),
            random.choice([random.randint(1, 4), random.randint(10, 40)]),
            model=random.choice(MODELS),
            width=random.choice([32, 32, 64]),
            guidance=random.choice([None, 7.0]),
            adapters=random.choice([(), (), ("ink",), ("oil", "ink")]),
            tenant=random.choice("ab"),
            deadline_s=random.choice([None, None, device.now_s + random.uniform(0.05, 30.0)]),
            may_downgrade=random.random() < 0.5,
            is_reproducible=random.random() < 0.2,
            preview_after=random.choice([(), (), (1,), (2, 3)]),
        )


def test_random_lives() -> None:
    lives = [live(seed) for seed in range(60)]
    assert sum(device.num_painted for device in lives) > 300
    assert sum(device.num_shared for device in lives) > 100, "these lives must share steps to mean anything"
    assert sum(device.num_loads for device in lives) > 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_random_lives() -> None:
    for seed in range(1000, 4000):
        live(seed)


def test_facts_of_the_fake_are_those_of_its_spec() -> None:
    spec = DenoiseSpec(1, "a", 64, 32, 10, 0, guidance=5.0)
    facts = fake_facts(shape_of("alpha"), spec)
    assert (facts.num_tokens, facts.num_rows, facts.num_passes) == (8, 2, 10)
