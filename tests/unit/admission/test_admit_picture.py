"""Pictures enter when they will be in time; refusals say when they could be."""

from speciate.admission.admit_picture import PictureDemand, PictureLimits, admit_picture
from speciate.core.admission import Admitted, Refused
from speciate.core.denoise import ItemFacts, Stage
from speciate.core.denoise_scheduler import DenoiseLoad, DenoiseWork, StepDone
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassTable
from speciate.scheduling.denoise.scheduler import DenoiseScheduler

ART = Segment("art", Tier.INTERACTIVE, Slo(e2e_s=10.0))
TABLE = PassTable("test", (PassCost("ink", Stage.PASS, 4, 1, 0.1), PassCost("ink", Stage.PASS, 4, 2, 0.2)), 0.001, 4)
LIMITS = PictureLimits(interactive=8)


def work(item_id: int, num_passes: int = 30, deadline_s: float | None = None) -> DenoiseWork:
    return DenoiseWork(item_id, "ink", ItemFacts((4,), 4, num_passes), ART, 0.0, deadline_s=deadline_s)


def busy(num_items: int) -> DenoiseScheduler:
    scheduler = DenoiseScheduler(TABLE)
    for item_id in range(num_items):
        scheduler.add(work(item_id), 0.0)
    return scheduler


def ask(scheduler: DenoiseScheduler, wanted: DenoiseWork, num: int = 1, may_downgrade: bool = False) -> object:
    forecast = scheduler.forecast(wanted, 0.0, num)
    demand = PictureDemand(ART.tier, forecast, num, may_downgrade)
    return admit_picture(demand, scheduler.load(0.0), LIMITS, 0.0)


def test_an_idle_device_takes_what_it_can_finish() -> None:
    assert ask(busy(0), work(9)) == Admitted(Tier.INTERACTIVE)
    assert isinstance(ask(busy(0), work(9, num_passes=200)), Refused)


def test_who_would_be_late_is_told_the_earliest_time_and_that_time_is_taken() -> None:
    scheduler = busy(3)
    verdict = ask(scheduler, work(9, num_passes=60))
    assert isinstance(verdict, Refused)
    assert verdict.earliest_deadline_s is not None
    assert "fewer steps" in verdict.reason
    later = work(9, num_passes=60, deadline_s=verdict.earliest_deadline_s + 0.01)
    assert ask(scheduler, later) == Admitted(Tier.INTERACTIVE)
    sooner = work(9, num_passes=60, deadline_s=verdict.earliest_deadline_s - 1.0)
    assert isinstance(ask(scheduler, sooner), Refused)


def test_nobody_is_admitted_at_the_cost_of_who_was_promised() -> None:
    """Two fill ten seconds less four; one due before them would push the last out."""
    scheduler = busy(2)
    tight = work(9, num_passes=30, deadline_s=9.0)
    assert isinstance(ask(scheduler, tight), Refused)
    assert ask(scheduler, work(9, num_passes=10, deadline_s=9.0)) == Admitted(Tier.INTERACTIVE)


def test_what_is_admitted_is_in_time() -> None:
    scheduler, now_s, ends = busy(0), 0.0, {}
    for item_id in range(10):
        if ask(scheduler, work(item_id)) == Admitted(Tier.INTERACTIVE):
            scheduler.add(work(item_id), 0.0)
            ends[item_id] = 0.0
    assert len(ends) >= 2
    while (plan := (decision := scheduler.plan(now_s)).plan) is not None:
        now_s += decision.predicted_s
        scheduler.commit(StepDone(plan, decision.predicted_s), now_s)
        if plan.stage is Stage.DECODE:
            ends[plan.items[0].item_id] = now_s
    assert 0.0 < min(ends.values()) < max(ends.values()) <= 10.0


def test_several_pictures_are_one_demand() -> None:
    assert ask(busy(0), work(9), num=2) == Admitted(Tier.INTERACTIVE)
    assert isinstance(ask(busy(0), work(9), num=5), Refused)


def test_who_allows_it_goes_to_batch() -> None:
    assert ask(busy(0), work(9, num_passes=200), may_downgrade=True) == Admitted(Tier.BATCH)


def test_a_full_queue_refuses_until_somebody_leaves() -> None:
    verdict = ask(busy(8), work(9, num_passes=1))
    assert isinstance(verdict, Refused)
    assert "8 interactive pictures are pending" in verdict.reason
    assert 1.0 <= verdict.retry_after_s <= 120.0
    empty = DenoiseLoad(())
    too_many = PictureDemand(ART.tier, busy(0).forecast(work(9, 1), 0.0), 9)
    assert isinstance(admit_picture(too_many, empty, LIMITS, 0.0), Refused)
