"""What is said to be left is what `admit` still lets in, and no more."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.admission.admit import AdmissionOptions, Demand, QueueLimits, admit
from speciate.admission.room import room_after_refusal, room_beside
from speciate.core.admission import Admitted, Refused
from speciate.core.replica import ReplicaLoad, TierLoad
from speciate.core.segment import Segment, Slo, Tier

SEGMENTS = {
    Tier.REALTIME: Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05)),
    Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1)),
    Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=3600.0)),
}
LIMITS = AdmissionOptions()


def load(**tiers: TierLoad) -> ReplicaLoad:
    """A device with 10 ms steps and 1 ms a prompt token."""
    named = {tier: TierLoad() for tier in Tier} | {Tier(name): tier for name, tier in tiers.items()}
    return ReplicaLoad(
        named, free_blocks=100, total_blocks=100, step_s=0.01, prefill_token_s=0.001, decode_token_s=0.001, margin=1.1
    )


def test_an_idle_queue_is_told_as_it_is_set() -> None:
    room = room_beside(Tier.BATCH, Demand(SEGMENTS[Tier.BATCH], 100, 10), load(), LIMITS)
    assert (room.requests.limit, room.requests.remaining) == (20_000, 19_999)
    assert (room.tokens.limit, room.tokens.remaining) == (67_108_864, 67_108_764)


def test_a_promise_that_binds_before_the_queue_is_the_limit() -> None:
    waiting = TierLoad(num_waiting=2, waiting_tokens=300, backlog_s=0.3)
    room = room_beside(Tier.INTERACTIVE, Demand(SEGMENTS[Tier.INTERACTIVE], 100, 10), load(interactive=waiting), LIMITS)
    assert room.tokens.limit == 909  # 1 s / 1.1 at 1 ms a token
    assert room.tokens.remaining == 909 - 10 - 300 - 100
    assert room.tokens.reset_s == pytest.approx(1.1 * (0.01 + 0.3 + 0.1))
    assert room.requests.remaining == 512 - 2 - 1


def test_real_time_room_is_bounded_by_its_pace() -> None:
    running = TierLoad(num_running=30, demand=0.6)
    room = room_beside(Tier.REALTIME, Demand(SEGMENTS[Tier.REALTIME], 10, 50), load(realtime=running), LIMITS)
    assert room.requests.limit == 38  # 85 % of the device / 1.1, 2 % each
    assert room.requests.remaining == 7  # after this one


def test_a_refusal_leaves_nothing_of_its_kind_until_its_retry() -> None:
    demand = Demand(SEGMENTS[Tier.REALTIME], 500, 10)
    refused = Refused("late", 3.0)
    room = room_after_refusal(Tier.REALTIME, demand, load(), LIMITS, refused)
    assert (room.requests.remaining, room.requests.reset_s) == (0, 3.0)
    assert room.tokens.remaining == 80  # what would still come in time
    full = msgspec.structs.replace(LIMITS, realtime=QueueLimits(0, 0))
    assert room_after_refusal(Tier.REALTIME, demand, load(), full, refused).tokens.remaining == 0


@given(
    tier=st.sampled_from(list(Tier)),
    prompt=st.integers(1, 2000),
    waiting=st.integers(0, 600),
    waiting_tokens=st.integers(0, 100_000),
    backlog_s=st.floats(0, 2),
    demand=st.floats(0, 1),
)
def test_one_more_prompt_of_the_tokens_that_are_left_would_be_admitted(
    tier: Tier, prompt: int, waiting: int, waiting_tokens: int, backlog_s: float, demand: float
) -> None:
    """Told after the first was admitted; the load that the second meets has the first in it."""
    now = load(**{tier: TierLoad(waiting, 0, waiting_tokens, backlog_s, demand)})
    first = Demand(SEGMENTS[tier], prompt, 10)
    if not isinstance(admit(first, now, LIMITS, 0.0), Admitted):
        return
    room = room_beside(tier, first, now, LIMITS)
    assert 0 <= room.requests.remaining <= room.requests.limit
    assert 0 <= room.tokens.remaining <= room.tokens.limit
    if not room.requests.remaining or not room.tokens.remaining or tier is Tier.BATCH:
        return
    own = now.decode_token_s / (SEGMENTS[tier].slo.tpot_s or 1.0) if tier is Tier.REALTIME else 0.0
    later = load(**{tier: TierLoad(waiting + 1, 0, waiting_tokens + prompt, backlog_s + prompt * 0.001, demand + own)})
    second = Demand(SEGMENTS[tier], max(1, room.tokens.remaining - 1), 10)
    assert isinstance(admit(second, later, LIMITS, 0.0), Admitted)
    if tier is Tier.INTERACTIVE:
        more = Demand(SEGMENTS[tier], room.tokens.remaining + 2, 10)
        assert isinstance(admit(more, later, LIMITS, 0.0), Refused)
