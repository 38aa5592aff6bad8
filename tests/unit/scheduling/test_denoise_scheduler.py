"""What the denoise scheduler promises, one thing a test."""

import pytest
from tests.unit.scheduling.denoise_items import H200_512, H200_1024, table, work

from speciate.core.denoise import Stage
from speciate.core.denoise_scheduler import Asset, DenoiseDecision, DenoiseWork, LoadDone, StepDone
from speciate.core.errors import InvalidRequest, InvariantError
from speciate.core.segment import Tier
from speciate.costs.pass_table import PassTable
from speciate.scheduling.denoise.options import DenoiseOptions
from speciate.scheduling.denoise.residency import AssetFacts, Residency, ResidencyOptions
from speciate.scheduling.denoise.scheduler import DenoiseScheduler


class Bench:
    """Steps a scheduler; everything takes what is predicted."""

    def __init__(self, costs: PassTable, residency: Residency | None = None, **options: object) -> None:
        self.scheduler = DenoiseScheduler(costs, residency, DenoiseOptions(**options))  # type: ignore[arg-type]
        self.now_s = 0.0
        self.decisions: list[DenoiseDecision] = []
        self.ended: dict[int, float] = {}
        self.works: dict[int, DenoiseWork] = {}

    def add(self, *works: DenoiseWork) -> None:
        for one in works:
            self.works[one.item_id] = one
            self.scheduler.add(one, self.now_s)

    def step(self, within_s: float = float("inf")) -> DenoiseDecision:
        decision = self.scheduler.plan(self.now_s, within_s)
        self.decisions.append(decision)
        if decision.plan is not None:
            self.now_s += decision.predicted_s
            self.scheduler.commit(StepDone(decision.plan, decision.predicted_s), self.now_s)
            if decision.plan.stage is Stage.DECODE:
                for share in decision.plan.items:
                    if share.index + 1 == self.works[share.item_id].facts.num_decode_slices:
                        self.ended[share.item_id] = self.now_s
        if decision.load is not None:
            self.now_s += 1.0 if decision.plan is None else 0.0
            self.scheduler.commit(LoadDone(decision.load, 1.0), self.now_s)
        self.scheduler.check()
        return decision

    def run(self, until_s: float = 1e9) -> None:
        while self.scheduler.load(self.now_s).pending and self.now_s < until_s:
            self.step()

    def until_pass(self, item_id: int, index: int) -> None:
        while True:
            plan = self.step().plan
            assert plan is not None
            if plan.stage is Stage.PASS and (item_id, index) in [(s.item_id, s.index) for s in plan.items]:
                return

    def passes(self) -> list[list[int]]:
        plans = [d.plan for d in self.decisions if d.plan is not None and d.plan.stage is Stage.PASS]
        return [sorted(share.item_id for share in plan.items) for plan in plans]


def test_who_is_due_first_is_done_first() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(1, 10, deadline_s=18.0), work(2, 10, deadline_s=9.0), work(3, 10, deadline_s=30.0))
    bench.run()
    assert sorted(bench.ended, key=bench.ended.__getitem__) == [2, 1, 3]


def test_who_is_more_urgent_takes_the_next_pass_and_the_other_goes_on_where_it_stood() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(1, 20))
    bench.until_pass(1, 5)
    bench.add(work(2, 3, Tier.REALTIME, arrival_s=bench.now_s))
    bench.run()
    assert bench.passes() == [[1]] * 6 + [[2]] * 3 + [[1]] * 14
    assert sum(len(decision.paused) for decision in bench.decisions) == 1
    assert bench.scheduler.load(bench.now_s).num_pauses == 1


def test_where_sharing_pays_a_newcomer_is_encoded_and_joins() -> None:
    bench = Bench(table(H200_512))
    bench.add(work(1, 20))
    bench.until_pass(1, 5)
    bench.add(work(2, 20, arrival_s=bench.now_s))
    bench.run()
    assert bench.passes() == [[1]] * 6 + [[1, 2]] * 14 + [[2]] * 6


def test_where_it_does_not_pay_it_waits() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(1, 10), work(2, 10))
    bench.run()
    assert bench.passes() == [[1]] * 10 + [[2]] * 10


def test_a_reproducible_item_is_always_alone() -> None:
    bench = Bench(table(H200_512))
    bench.add(work(1, 6), work(2, 6, is_reproducible=True), work(3, 6))
    bench.run()
    assert all(shared == [2] or 2 not in shared for shared in bench.passes())
    assert [1, 3] in bench.passes()


def test_guidance_takes_two_rows() -> None:
    bench = Bench(table({1: 1.0, 8: 1.1}), max_rows=4)
    bench.add(*(work(i, 3, rows=2) for i in range(4)))
    bench.run()
    assert max(map(len, bench.passes())) == 2


def test_one_that_cannot_be_in_time_does_not_pull_down_those_that_can() -> None:
    """Plain earliest due first would do the long one first, and lose all."""
    bench = Bench(table(H200_1024))
    bench.add(work(1, 190, deadline_s=None), *(work(i, 15) for i in range(2, 10)))
    bench.run()
    late = [item_id for item_id, end_s in bench.ended.items() if end_s > 20.0]
    assert late == [1]


def test_deadlines_end_items_and_count_as_waste() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(1, 100, deadline_s=1.0))
    bench.run()
    assert bench.decisions[-1].expired == (1,)
    load = bench.scheduler.load(bench.now_s)
    assert load.wasted_s == pytest.approx(1.0, abs=0.11)


def test_who_leaves_during_its_last_step_is_gone_and_its_seconds_are_waste() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(1, 3))
    bench.until_pass(1, 2)
    decision = bench.scheduler.plan(bench.now_s)
    assert decision.plan is not None
    assert decision.plan.stage is Stage.DECODE
    bench.scheduler.abort(1, bench.now_s)
    bench.scheduler.check()
    bench.scheduler.commit(StepDone(decision.plan, 0.5), bench.now_s + 0.5)
    bench.scheduler.check()
    assert bench.scheduler.load(bench.now_s).wasted_s == pytest.approx(bench.now_s + 0.5)


def test_wake_is_the_next_deadline() -> None:
    residency = Residency(ResidencyOptions(10, 10), lambda asset: AssetFacts(asset, 10, 10, 1.0, 1.0))
    scheduler = DenoiseScheduler(table(H200_1024), residency)
    scheduler.add(work(1, 100, deadline_s=7.0), 0.0)
    decision = scheduler.plan(0.0)
    assert decision.plan is None
    assert decision.load is not None
    assert decision.wake_s == 7.0


def test_who_is_late_and_may_be_slower_becomes_batch_and_is_told() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(1, 300, may_downgrade=True), work(2, 300))
    decision = bench.step()
    assert decision.relegated == ((1, Tier.BATCH),)
    assert {p.item_id: p.tier for p in bench.scheduler.load(0.0).pending} == {1: Tier.BATCH, 2: Tier.INTERACTIVE}


def test_batch_runs_in_what_is_left() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(1, 30, Tier.BATCH), work(2, 30))
    bench.run()
    assert bench.passes() == [[2]] * 30 + [[1]] * 30


def test_batch_is_in_time_although_others_keep_coming() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(0, 100, Tier.BATCH, deadline_s=60.0))
    for item_id in range(1, 12):
        bench.add(work(item_id, 30, arrival_s=bench.now_s))
        bench.run(until_s=5.0 * item_id)
    bench.run()
    assert bench.ended[0] <= 60.0
    assert all(bench.ended[i] - bench.works[i].arrival_s <= 20.0 for i in range(1, 12))


def test_equals_go_by_how_little_their_tenant_was_served() -> None:
    bench = Bench(table(H200_1024))
    bench.add(*(work(i, 10, tenant="many") for i in range(8)), work(8, 10, tenant="one"))
    bench.run()
    order = sorted(bench.ended, key=bench.ended.__getitem__)
    assert order.index(8) == 1


def test_fairness_makes_nobody_late() -> None:
    """The one of the tenant that was served more is due first, and would be late behind the other."""
    bench = Bench(table(H200_1024), min_margin=1.0, max_margin=1.0)
    bench.add(work(1, 5, tenant="served"))
    bench.run()
    start_s = bench.now_s
    bench.add(work(2, 40, tenant="served", arrival_s=start_s, deadline_s=start_s + 5.0))
    bench.add(work(3, 15, tenant="fresh", arrival_s=start_s, deadline_s=start_s + 5.9))
    bench.run()
    assert bench.ended[2] - start_s <= 5.0
    assert bench.ended[3] - start_s <= 5.9


def test_previews_come_after_their_passes() -> None:
    bench = Bench(table(H200_1024))
    bench.add(work(1, 4, preview_after=(1, 3), slices=2))
    bench.run()
    stages = [d.plan.stage.value for d in bench.decisions if d.plan is not None]
    assert stages == ["encode", "pass", *["preview"] * 2, *["pass"] * 2, *["preview"] * 2, "pass", *["decode"] * 2]


def test_a_step_that_would_take_too_long_is_not_planned() -> None:
    bench = Bench(table(H200_512))
    bench.add(*(work(i, 5) for i in range(4)))
    while (plan := bench.step(within_s=0.2).plan) is not None and plan.stage is not Stage.PASS:
        pass
    assert bench.step(within_s=0.05).plan is None
    one = bench.step(within_s=0.13).plan
    assert one is not None
    assert len(one.items) == 1


def test_models_are_used_before_they_are_displaced() -> None:
    """One fits; requests for three alternate. In their order each would be loaded ten times."""
    residency = Residency(ResidencyOptions(10, 100), lambda asset: AssetFacts(asset, 10, 10, 1.0, 0.1))
    costs = PassTable("test", (*table(H200_1024).cells, *table(H200_1024, "oil").cells, *table(H200_1024, "wax").cells))
    bench = Bench(costs, residency)
    bench.add(*(work(i, 2, model=("ink", "oil", "wax")[i % 3]) for i in range(30)))
    bench.run()
    assert sum(decision.load is not None for decision in bench.decisions) == 3
    assert max(bench.ended.values()) <= 20.0


def test_late_work_of_a_rare_model_is_served_in_the_end() -> None:
    """More than the device can do in time keeps coming; who waited for too long gets a tenth of it."""
    residency = Residency(ResidencyOptions(10, 100), lambda asset: AssetFacts(asset, 10, 10, 1.0, 0.1))
    costs = PassTable("test", (*table(H200_1024).cells, *table(H200_1024, "oil").cells))
    bench = Bench(costs, residency, starvation_s=10.0, quantum_s=5.0)
    bench.add(work(0, 210, model="oil"))
    for item_id in range(1, 1000):
        bench.add(work(item_id, 15, arrival_s=bench.now_s))
        bench.run(until_s=item_id * 1.0)
        if 0 in bench.ended:
            break
    assert 100.0 < bench.ended[0] < 400.0


def test_what_can_never_run_is_refused() -> None:
    residency = Residency(ResidencyOptions(10, 10), lambda asset: AssetFacts(asset, 6, 6, 1.0, 1.0))
    scheduler = DenoiseScheduler(table(H200_512), residency, DenoiseOptions(max_rows=1))
    for wrong, why in (
        (work(1, 0), "passes"),
        (work(1, rows=2), "at most 1 run here"),
        (work(1, adapters=("ink",)), "does not fit"),
        (work(1, preview_after=(3, 2)), "rise"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            scheduler.add(wrong, 0.0)
    scheduler.add(work(1), 0.0)
    with pytest.raises(InvalidRequest, match="in use"):
        scheduler.add(work(1), 0.0)


def test_plan_and_commit_alternate() -> None:
    scheduler = DenoiseScheduler(table(H200_512))
    scheduler.add(work(1), 0.0)
    decision = scheduler.plan(0.0)
    assert decision.plan is not None
    with pytest.raises(InvariantError, match="plan called twice"):
        scheduler.plan(0.0)
    scheduler.commit(StepDone(decision.plan, 0.1), 0.1)
    with pytest.raises(InvariantError, match="not in flight"):
        scheduler.commit(StepDone(decision.plan, 0.1), 0.1)


def test_residency_is_asked_for_what_the_queue_needs() -> None:
    residency = Residency(ResidencyOptions(10, 100), lambda asset: AssetFacts(asset, 10, 10, 1.0, 5.0))
    scheduler = DenoiseScheduler(table(H200_512), residency)
    scheduler.add(work(1), 0.0)
    scheduler.add(work(2, model="oil"), 0.0)
    decision = scheduler.plan(0.0)
    assert decision.load is not None
    assert decision.load.asset == Asset("ink")
    assert decision.fetch == (Asset("oil"),)
