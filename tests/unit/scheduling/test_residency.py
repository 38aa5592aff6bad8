"""Where checkpoints and adapters are: bytes add up, and what is worth least leaves."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speciate.core.denoise_scheduler import Asset, FetchDone, LoadDone, LoadPlan
from speciate.scheduling.denoise.residency import AssetFacts, Residency, ResidencyOptions

MODELS = "abcde"


def facts_of(asset: Asset) -> AssetFacts:
    """Models of 8 to 12 bytes, adapters of 1 or 2."""
    size = 1 + len(asset.adapter) % 2 if asset.adapter else 8 + MODELS.index(asset.model)
    return AssetFacts(asset, size, size, 0.3 * size, 2.0 * size)


def residency(device: int, host: int, **options: float) -> Residency:
    return Residency(ResidencyOptions(device, host, **options), facts_of)


def load(found: Residency, name: str, now_s: float, keep: tuple[Asset, ...] = ()) -> LoadPlan | None:
    """Load it and say what left."""
    plan = found.plan_load((Asset(name),), keep, now_s)
    if plan is not None:
        found.commit(LoadDone(plan, 1.0), now_s)
    return plan


def test_the_rarely_used_leaves_first() -> None:
    found = residency(18, 100)
    for now_s in range(10):
        found.enter((Asset("a"),), now_s)
        found.leave((Asset("a"),))
    found.enter((Asset("b"),), 10.0)
    found.leave((Asset("b"),))
    load(found, "a", 10.0)
    load(found, "b", 10.0)
    plan = load(found, "c", 10.0)
    assert plan is not None
    assert plan.unload == (Asset("b"),)


def test_what_is_expensive_to_have_back_stays() -> None:
    found = residency(20, 17)  # host memory holds a and b, not c: c would come from disk again
    for name in "abc":
        found.enter((Asset(name),), 0.0)
        found.leave((Asset(name),))
    load(found, "b", 0.0)
    load(found, "c", 0.0)
    assert found.missing_s((Asset("a"),), 0.0) > 2.0 * 8
    plan = found.plan_load((Asset("a"),), (), 0.0)
    assert plan is not None
    assert plan.unload == (Asset("b"),)


def test_what_queues_stays() -> None:
    found = residency(20, 100)
    load(found, "a", 0.0)
    load(found, "b", 0.0)
    found.enter((Asset("b"),), 0.0)
    for _ in range(3):
        found.enter((Asset("a"),), 0.0)
        found.leave((Asset("a"),))
    plan = found.plan_load((Asset("c"),), (Asset("b"),), 0.0)
    assert plan is not None
    assert plan.unload == (Asset("a"),)
    found.commit(LoadDone(plan, 1.0, is_failed=True), 0.0)
    assert found.plan_load((Asset("c"),), (Asset("b"), Asset("c")), 0.0) is not None


def test_nothing_leaves_for_what_does_not_fit_anyway() -> None:
    found = residency(18, 100)
    load(found, "a", 0.0)
    assert found.plan_load((Asset("e"),), (Asset("a"),), 0.0) is None
    assert found.is_ready((Asset("a"),))
    assert not found.can_ever_fit((Asset("d"), Asset("e")))


def test_a_model_takes_its_adapters_along_and_comes_before_them() -> None:
    found = residency(11, 100)
    first = found.plan_load((Asset("a"), Asset("a", "x")), (), 0.0)
    assert first is not None
    assert first.asset == Asset("a")
    found.commit(LoadDone(first, 1.0), 0.0)
    second = found.plan_load((Asset("a"), Asset("a", "x")), (), 0.0)
    assert second is not None
    assert second.asset == Asset("a", "x")
    found.commit(LoadDone(second, 1.0), 0.0)
    third = found.plan_load((Asset("b"),), (), 0.0)
    assert third is not None
    assert set(third.unload) == {Asset("a"), Asset("a", "x")}


def test_what_the_queue_needs_is_fetched_while_something_else_loads() -> None:
    found = residency(10, 30)
    found.enter((Asset("a"),), 0.0)
    found.enter((Asset("b"),), 0.0)
    plan = found.plan_load((Asset("a"),), (), 0.0)
    assert found.plan_fetch([Asset("a"), Asset("b")], 0.0) == ((Asset("b"),), ())
    assert found.plan_fetch([Asset("a"), Asset("b")], 0.0) == ((), ())
    before_s = found.missing_s((Asset("b"),), 0.0)
    found.commit(FetchDone(Asset("b"), 5.0), 0.0)
    assert found.missing_s((Asset("b"),), 0.0) < before_s / 5
    assert plan is not None


def test_what_making_room_would_cost_is_foretold() -> None:
    found = residency(22, 100)
    assert found.displaced_s((Asset("c"),), 0.0) == 0.0
    load(found, "a", 0.0)
    load(found, "b", 0.0)
    assert found.displaced_s((Asset("c"),), 0.0) == 0.0, "nobody asks for a or b"
    for now_s in range(20):
        for name in "ab":
            found.enter((Asset(name),), now_s)
            found.leave((Asset(name),))
    busy_s = found.displaced_s((Asset("c"),), 20.0)
    assert 0.0 < busy_s <= found.displaced_s((Asset("c"), Asset("d")), 20.0)
    assert found.displaced_s((Asset("c"),), 200_000.0) < busy_s
    assert found.displaced_s((Asset("a"),), 20.0) == 0.0


class ResidencyMachine(RuleBasedStateMachine):
    """A shadow keeps sets of what was moved where; the two must agree, and bytes must fit."""

    @initialize(device=st.integers(12, 40), host=st.integers(0, 60))
    def setup(self, device: int, host: int) -> None:
        self.found, self.device_room, self.host_room = residency(device, host), device, host
        self.on_device: set[Asset] = set()
        self.in_host: set[Asset] = set()
        self.queued: dict[Asset, int] = {}
        self.loading: LoadPlan | None = None
        self.fetching: Asset | None = None
        self.now_s = 0.0

    @rule(model=st.sampled_from(MODELS), adapter=st.sampled_from(["", "", "x", "yy"]), seconds=st.floats(0, 900))
    def arrive(self, model: str, adapter: str, seconds: float) -> None:
        self.now_s += seconds
        assets = (Asset(model),) if not adapter else (Asset(model), Asset(model, adapter))
        self.found.enter(assets, self.now_s)
        for asset in assets:
            self.queued[asset] = self.queued.get(asset, 0) + 1

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        asset = data.draw(st.sampled_from(sorted(self.queued)))
        self.found.leave((asset,))
        self.queued[asset] -= 1
        if not self.queued[asset]:
            del self.queued[asset]

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        asset = data.draw(st.sampled_from(sorted(self.queued)))
        keep = data.draw(st.sets(st.sampled_from(sorted(self.on_device)))) if self.on_device else set()
        assets = tuple(sorted({Asset(asset.model), asset}))
        is_missing = not self.found.is_ready(assets)
        plan = self.found.plan_load(assets, keep, self.now_s)
        if plan is None:
            return
        assert is_missing
        assert self.loading is None
        assert plan.asset in assets
        assert not set(plan.unload) & (keep | set(assets))
        assert set(plan.unload) <= self.on_device
        self.on_device -= set(plan.unload)
        self.loading = plan

    @precondition(lambda self: self.loading is not None)
    @rule(is_failed=st.booleans(), seconds=st.floats(0.01, 60))
    def loaded(self, is_failed: bool, seconds: float) -> None:
        self.now_s += seconds
        assert self.loading is not None
        if not is_failed:
            self.on_device.add(self.loading.asset)
            self.in_host.add(self.loading.asset)
        self.found.commit(LoadDone(self.loading, seconds, is_failed), self.now_s)
        self.loading = None

    @precondition(lambda self: self.queued)
    @rule()
    def fetch(self) -> None:
        fetched, dropped = self.found.plan_fetch(sorted(self.queued), self.now_s)
        assert set(dropped) <= self.in_host
        self.in_host -= set(dropped)
        if fetched:
            assert self.fetching is None
            (self.fetching,) = fetched
            assert self.fetching not in self.in_host | self.on_device

    @precondition(lambda self: self.fetching is not None)
    @rule(is_failed=st.booleans())
    def fetched(self, is_failed: bool) -> None:
        assert self.fetching is not None
        if not is_failed:
            self.in_host.add(self.fetching)
        self.found.commit(FetchDone(self.fetching, 3.0, is_failed), self.now_s)
        self.fetching = None

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "found"):
            return
        self.found.check(self.queued)
        assert set(self.found.on_device) == self.on_device
        coming = set() if self.loading is None else {self.loading.asset}
        assert sum(facts_of(asset).device_bytes for asset in self.on_device | coming) <= self.device_room
        for asset in self.on_device:
            assert not asset.adapter or Asset(asset.model) in self.on_device


TestResidency = ResidencyMachine.TestCase
TestResidency.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
