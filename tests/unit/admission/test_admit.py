"""Each reason to refuse, alone; what a refusal says; and that nothing is refused without one."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.admission.admit import AdmissionOptions, Demand, QueueLimits, admit, predict_ttft_s
from speciate.core.admission import Admitted, Refused, Verdict
from speciate.core.replica import ReplicaLoad, TierLoad
from speciate.core.segment import Segment, Slo, Tier

VOICE = Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05))
CHAT = Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1))
DOCS = Segment("docs", Tier.BATCH, Slo(e2e_s=3600.0))
IDLE = {tier: TierLoad() for tier in Tier}
LIMITS = AdmissionOptions()


def load(**tiers: TierLoad) -> ReplicaLoad:
    """A device with 10 ms steps and 1 ms a prompt token."""
    named = {Tier(name): tier for name, tier in tiers.items()}
    return ReplicaLoad(
        tiers={**IDLE, **named},
        free_blocks=100,
        total_blocks=100,
        step_s=0.01,
        prefill_token_s=0.001,
        decode_token_s=0.001,
        margin=1.1,
    )


def refused(verdict: Verdict) -> Refused:
    assert isinstance(verdict, Refused), verdict
    assert 1.0 <= verdict.retry_after_s <= 120.0
    return verdict


@pytest.mark.parametrize("segment", [VOICE, CHAT, DOCS])
def test_an_idle_device_takes_what_it_can_keep(segment: Segment) -> None:
    assert admit(Demand(segment, 50, 10), load(), LIMITS, 0.0) == Admitted(segment.tier)


def test_realtime_is_refused_rather_than_late() -> None:
    verdict = admit(Demand(VOICE, 50, 10), load(realtime=TierLoad(num_waiting=1, backlog_s=0.05)), LIMITS, 0.0)
    assert "expected after 0.12 s, promised are 0.10 s" in refused(verdict).reason


def test_a_cached_prompt_is_cheaper() -> None:
    assert isinstance(admit(Demand(VOICE, 500, 10), load(), LIMITS, 0.0), Refused)
    assert isinstance(admit(Demand(VOICE, 500, 10, cached_tokens=480), load(), LIMITS, 0.0), Admitted)


def test_slower_tiers_do_not_count_against_faster_ones() -> None:
    busy = load(batch=TierLoad(num_waiting=100, backlog_s=1000.0), interactive=TierLoad(num_waiting=9, backlog_s=5.0))
    assert isinstance(admit(Demand(VOICE, 50, 10), busy, LIMITS, 0.0), Admitted)


def test_running_promises_leave_phi_of_the_device() -> None:
    busy = load(realtime=TierLoad(num_running=40, demand=0.76))
    reason = refused(admit(Demand(VOICE, 10, 100), busy, LIMITS, 0.0)).reason
    assert "76% of the device, this needs 2% more, at most 85%" in reason


def test_chat_waits_as_long_as_its_promise_allows() -> None:
    assert isinstance(admit(Demand(CHAT, 50, 10), load(interactive=TierLoad(backlog_s=0.7)), LIMITS, 0.0), Admitted)
    late = load(interactive=TierLoad(num_waiting=3, backlog_s=4.0))
    verdict = refused(admit(Demand(CHAT, 50, 10), late, LIMITS, 0.0))
    assert verdict.retry_after_s == pytest.approx(predict_ttft_s(Tier.INTERACTIVE, Demand(CHAT, 50, 10), late) - 1.0)


def test_chat_becomes_batch_only_if_the_caller_agrees() -> None:
    late = load(interactive=TierLoad(num_waiting=3, backlog_s=4.0))
    assert admit(Demand(CHAT, 50, 10, may_downgrade=True), late, LIMITS, 0.0) == Admitted(Tier.BATCH)
    refused(admit(Demand(CHAT, 50, 10), late, LIMITS, 0.0))


def test_a_downgrade_needs_room_too() -> None:
    limits = msgspec.structs.replace(LIMITS, batch=QueueLimits(0, 0))
    late = load(interactive=TierLoad(num_waiting=3, backlog_s=4.0))
    refused(admit(Demand(CHAT, 50, 10, may_downgrade=True), late, limits, 0.0))


@pytest.mark.parametrize("segment", [VOICE, CHAT, DOCS])
def test_queues_are_bounded(segment: Segment) -> None:
    tiny = QueueLimits(max_waiting=2, max_tokens=100)
    limits = AdmissionOptions(realtime=tiny, interactive=tiny, batch=tiny)
    queue = TierLoad(num_waiting=2, waiting_tokens=20, backlog_s=0.02)
    reason = refused(admit(Demand(segment, 10, 10), load(**{segment.tier: queue}), limits, 0.0)).reason
    assert f"2 {segment.tier} requests wait, at most 2 may" in reason
    queue = TierLoad(num_waiting=1, waiting_tokens=95, backlog_s=0.02)
    reason = refused(admit(Demand(segment, 10, 10), load(**{segment.tier: queue}), limits, 0.0)).reason
    assert f"95 {segment.tier} prompt tokens wait, at most 100 may" in reason


def test_all_choices_of_a_request_count() -> None:
    limits = AdmissionOptions(interactive=QueueLimits(max_waiting=4, max_tokens=1000))
    refused(admit(Demand(CHAT, 10, 10, num_sequences=5), load(), limits, 0.0))


def test_an_infeasible_window_names_the_earliest_that_can_be_kept() -> None:
    verdict = refused(admit(Demand(DOCS, 1000, 200, deadline_s=101.0), load(), LIMITS, 100.0))
    reason, earliest_s = verdict.reason, verdict.earliest_deadline_s
    assert earliest_s == pytest.approx(102.31)
    assert isinstance(admit(Demand(DOCS, 1000, 200, deadline_s=earliest_s), load(), LIMITS, 100.0), Admitted)
    assert "the deadline is in 1.00 s, the earliest that can be kept now is in 2.31 s" in reason
    assert isinstance(admit(Demand(DOCS, 1000, 200, deadline_s=102.4), load(), LIMITS, 100.0), Admitted)


def test_batch_gets_what_faster_promises_leave() -> None:
    busy = load(interactive=TierLoad(num_running=8, demand=0.5))
    refused(admit(Demand(DOCS, 1000, 200, deadline_s=102.4), busy, LIMITS, 100.0))
    assert isinstance(admit(Demand(DOCS, 1000, 200, deadline_s=105.0), busy, LIMITS, 100.0), Admitted)


@given(
    segment=st.sampled_from([VOICE, CHAT, DOCS]),
    prompt=st.integers(1, 100_000),
    outputs=st.integers(1, 10_000),
    waiting=st.integers(0, 30_000),
    backlog_s=st.floats(0, 1e6),
    demand=st.floats(0, 5),
    deadline=st.one_of(st.none(), st.floats(-10, 1e6)),
    downgrade=st.booleans(),
)
def test_every_refusal_says_when_to_come_again(
    segment: Segment,
    prompt: int,
    outputs: int,
    waiting: int,
    backlog_s: float,
    demand: float,
    deadline: float | None,
    downgrade: bool,
) -> None:
    queue = TierLoad(num_waiting=waiting, waiting_tokens=waiting * 10, backlog_s=backlog_s, demand=demand)
    busy = load(realtime=queue, interactive=queue, batch=queue)
    asked = Demand(segment, prompt, outputs, deadline_s=deadline, may_downgrade=downgrade)
    verdict = admit(asked, busy, LIMITS, 0.0)
    if isinstance(verdict, Refused):
        refused(verdict)
        assert "retry in" in verdict.reason
    elif not downgrade:
        assert verdict.tier is segment.tier
