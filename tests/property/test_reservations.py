"""Whatever was admitted before, a reservation's owner gets its share, and others leave it alone."""

from hypothesis import given
from hypothesis import strategies as st

from speciate.admission.admit import AdmissionOptions, Demand, admit
from speciate.core.admission import Admitted
from speciate.core.replica import ReplicaLoad, ReservedShare, TierLoad
from speciate.core.segment import Segment, Slo, Tier

VOICE = Segment("voice", Tier.REALTIME, Slo(ttft_s=1.0, tpot_s=0.05))
CHAT = Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=5.0, tpot_s=0.1))
LIMITS = AdmissionOptions()
DECODE_S = 0.001
OWN = DECODE_S / 0.05
"""What one real-time request asks for; a chat asks for half of it."""
ARRIVALS = st.lists(st.tuples(st.sampled_from(["owner", "other"]), st.sampled_from([VOICE, CHAT])), max_size=120)


def load(realtime: dict[str, int], chats: int, share: float, margin: float) -> ReplicaLoad:
    return ReplicaLoad(
        tiers={
            Tier.REALTIME: TierLoad(demand=OWN * sum(realtime.values())),
            Tier.INTERACTIVE: TierLoad(demand=OWN / 2 * chats),
            Tier.BATCH: TierLoad(),
        },
        free_blocks=100,
        total_blocks=100,
        decode_token_s=DECODE_S,
        margin=margin,
        reserved=(ReservedShare("owner", share, OWN * realtime["owner"]),),
    )


@given(arrivals=ARRIVALS, share=st.floats(0.0, 0.6), margin=st.floats(1.0, 2.0))
def test_the_owner_always_gets_its_share(arrivals: list[tuple[str, Segment]], share: float, margin: float) -> None:
    realtime, chats = {"owner": 0, "other": 0}, 0
    for tenant, segment in arrivals:
        now = load(realtime, chats, share, margin)
        verdict = admit(Demand(segment, 10, 10, tenant=tenant), now, LIMITS, 0.0)
        is_within = tenant == "owner" and segment is VOICE and margin * OWN * (realtime["owner"] + 1) <= share
        assert isinstance(verdict, Admitted) or not is_within
        if isinstance(verdict, Admitted):
            realtime[tenant] += segment is VOICE
            chats += segment is CHAT
        _check_left_alone(realtime, share, margin)


def _check_left_alone(realtime: dict[str, int], share: float, margin: float) -> None:
    """What others have leaves the owner's unused share and phi of the device."""
    unused = max(0.0, share - margin * OWN * realtime["owner"])
    assert not realtime["other"] or margin * OWN * realtime["other"] <= 1.0 - LIMITS.phi - unused + 1e-9


@given(share=st.floats(0.3, 0.6))
def test_without_the_reservation_others_take_it_all(share: float) -> None:
    """So that the test above can fail: the same arrivals with nothing reserved leave the owner nothing."""
    count = 0
    while True:
        now = load({"owner": 0, "other": count}, 0, 0.0, 1.0)
        if not isinstance(admit(Demand(VOICE, 10, 10, tenant="other"), now, LIMITS, 0.0), Admitted):
            break
        count += 1
    assert OWN * count > 1.0 - LIMITS.phi - share
