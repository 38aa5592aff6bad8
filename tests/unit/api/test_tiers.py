import pytest

from speciate.api.tiers import TIER_OF_WORD, WORD_OF_TIER, tier_asked
from speciate.core.segment import Tier

HEADER = b"x-gateway-inference-objective"


def test_every_tier_has_a_word_that_means_it() -> None:
    assert {TIER_OF_WORD[word] for word in WORD_OF_TIER.values()} == set(Tier)
    assert all(TIER_OF_WORD[WORD_OF_TIER[tier]] is tier for tier in Tier)


@pytest.mark.parametrize(
    ("service_tier", "priority", "header", "tier"),
    [
        (None, None, None, None),
        ("auto", None, b"batch", None),
        ("default", None, b"batch", Tier.INTERACTIVE),
        ("flex", -5, b"realtime", Tier.BATCH),
        (None, -5, b"batch", Tier.REALTIME),
        (None, 0, b"batch", Tier.INTERACTIVE),
        (None, 3, None, Tier.BATCH),
        (None, None, b"Realtime", Tier.REALTIME),
        (None, None, b"flex", Tier.BATCH),
        (None, None, b"sheddable-of-somebody", None),
    ],
)
def test_the_body_counts_before_the_header(
    service_tier: str | None, priority: int | None, header: bytes | None, tier: Tier | None
) -> None:
    headers = {} if header is None else {HEADER: header}
    assert tier_asked(service_tier, priority, headers) is tier
