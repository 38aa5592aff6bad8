"""The predicted rate of batch work: more at once is faster, until each line's own share is all that counts."""

import msgspec
import pytest

from speciate.admission.admit import AdmissionOptions, Demand
from speciate.admission.batch_rate import predict_lines_per_s
from speciate.core.replica import ReplicaLoad, TierLoad
from speciate.core.segment import Segment, Slo, Tier

SEGMENT = Segment("text-batch", Tier.BATCH, Slo(e2e_s=86_400.0))
LOAD = ReplicaLoad(
    tiers={tier: TierLoad() for tier in Tier},
    free_blocks=100,
    total_blocks=100,
    step_s=0.02,
    prefill_token_s=0.0001,
    decode_token_s=0.001,
)
LIMITS = AdmissionOptions(output_share=1.0)
DEMAND = Demand(SEGMENT, prompt_tokens=100, max_tokens=10)


def test_one_at_a_time_takes_what_one_takes() -> None:
    alone_s = 100 * 0.0001 + 10 * (0.02 + 0.001)
    assert predict_lines_per_s(DEMAND, LOAD, LIMITS, 1) == pytest.approx(1 / alone_s)


def test_more_at_once_share_the_steps() -> None:
    rates = [predict_lines_per_s(DEMAND, LOAD, LIMITS, num) or 0.0 for num in (1, 8, 64, 512)]
    assert rates == sorted(rates)
    share_s = 100 * 0.0001 + 10 * 0.001
    assert rates[-1] == pytest.approx(1 / share_s, rel=0.05)


def test_promises_of_faster_tiers_and_the_margin_slow_it_down() -> None:
    busy = msgspec.structs.replace(LOAD, tiers={**LOAD.tiers, Tier.REALTIME: TierLoad(demand=0.5)}, margin=1.5)
    assert (predict_lines_per_s(DEMAND, busy, LIMITS, 8) or 0.0) < (predict_lines_per_s(DEMAND, LOAD, LIMITS, 8) or 0.0)


def test_without_step_times_nothing_is_predicted() -> None:
    unknown = msgspec.structs.replace(LOAD, step_s=0.0, prefill_token_s=0.0, decode_token_s=0.0)
    assert predict_lines_per_s(DEMAND, unknown, LIMITS, 8) is None
