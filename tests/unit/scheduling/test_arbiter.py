"""Who gets the device, and for how long."""

from math import inf

from speciate.core.arbiter import DeviceClaim, DeviceGuard, Wish
from speciate.core.segment import Tier
from speciate.scheduling.device.arbiter import Arbiter, Grant


def wish(tier: Tier, laxity_s: float, step_s: float = 0.05, guard_s: float | None = None) -> Wish:
    guards = () if guard_s is None else (DeviceGuard(tier, guard_s),)
    return Wish((DeviceClaim(tier, laxity_s, step_s),), guards)


def test_nobody_has_work() -> None:
    assert Arbiter().choose({"text": Wish(), "image": Wish()}) is None


def test_alone_there_is_no_limit() -> None:
    assert Arbiter().choose({"text": wish(Tier.BATCH, inf), "image": Wish()}) == Grant("text", Tier.BATCH, inf)


def test_who_would_be_late_goes_first_and_the_other_when_there_is_time() -> None:
    text, image = wish(Tier.REALTIME, 0.02, 0.01), wish(Tier.INTERACTIVE, 10.0, 0.05)
    grant = Arbiter().choose({"text": text, "image": image})
    assert grant == Grant("text", Tier.REALTIME, 10.0)
    arbiter = Arbiter()
    arbiter.charge(Grant("text", Tier.REALTIME, inf), 1.0)
    patient = wish(Tier.REALTIME, 0.08, 0.01)
    assert arbiter.choose({"text": patient, "image": image}) == Grant("image", Tier.INTERACTIVE, 0.08)


def test_a_slower_tier_never_makes_a_faster_one_late() -> None:
    late = wish(Tier.REALTIME, -0.5, 0.01)
    image = wish(Tier.INTERACTIVE, -3.0, 0.05)
    assert Arbiter().choose({"text": late, "image": image}) == Grant("text", Tier.REALTIME, inf)
    assert Arbiter().choose({"text": late, "image": image}, passed={"text"}) is None


def test_a_guard_holds_steps_short_although_nobody_waits() -> None:
    guard = Wish((), (DeviceGuard(Tier.REALTIME, 0.07),))
    assert Arbiter().choose({"text": guard, "image": wish(Tier.BATCH, inf, 0.05)}) == Grant("image", Tier.BATCH, 0.07)
    assert Arbiter().choose({"text": guard, "image": wish(Tier.BATCH, inf, 0.08)}) is None


def test_a_guard_of_the_own_tier_shortens_but_does_not_stop() -> None:
    guard = Wish((), (DeviceGuard(Tier.INTERACTIVE, 0.03),))
    grant = Arbiter().choose({"text": guard, "image": wish(Tier.INTERACTIVE, inf, 0.05)})
    assert grant == Grant("image", Tier.INTERACTIVE, 0.05)


def test_a_guard_of_a_slower_tier_does_not_count() -> None:
    guard = Wish((), (DeviceGuard(Tier.INTERACTIVE, 0.03),))
    assert Arbiter().choose({"image": guard, "text": wish(Tier.REALTIME, 0.5, 0.05)}) == Grant(
        "text", Tier.REALTIME, inf
    )


def test_time_that_presses_nobody_is_shared_by_tier() -> None:
    taken = shares({"text": Tier.INTERACTIVE, "image": Tier.INTERACTIVE})
    assert 0.45 < taken["image"] < 0.55
    taken = shares({"text": Tier.INTERACTIVE, "image": Tier.BATCH})
    assert 0.05 < taken["image"] < 0.13


def test_who_was_idle_saved_up_nothing() -> None:
    arbiter = Arbiter()
    busy, idle = wish(Tier.INTERACTIVE, inf), Wish()
    for _ in range(100):
        grant = arbiter.choose({"text": busy, "image": idle})
        assert grant is not None
        arbiter.charge(grant, 1.0)
    turns = []
    for _ in range(10):
        grant = arbiter.choose({"text": busy, "image": busy})
        assert grant is not None
        arbiter.charge(grant, 1.0)
        turns.append(grant.name)
    assert turns.count("image") in (5, 6)


def test_of_those_who_are_late_the_least_served_goes() -> None:
    wishes = {"a": wish(Tier.INTERACTIVE, -1.0), "b": wish(Tier.INTERACTIVE, -9.0)}
    arbiter = Arbiter()
    names = []
    for _ in range(6):
        grant = arbiter.choose(wishes)
        assert grant is not None
        arbiter.charge(grant, 1.0)
        names.append(grant.name)
    assert names == ["a", "b", "a", "b", "a", "b"]


def test_a_scheduler_of_several_tiers_is_taken_for_its_most_urgent() -> None:
    text = Wish((DeviceClaim(Tier.BATCH, inf, 0.01), DeviceClaim(Tier.REALTIME, 0.03, 0.01)))
    grant = Arbiter().choose({"text": text, "image": wish(Tier.INTERACTIVE, 5.0)})
    assert grant == Grant("text", Tier.REALTIME, 5.0)


def shares(tiers: dict[str, Tier]) -> dict[str, float]:
    arbiter, taken = Arbiter(), dict.fromkeys(tiers, 0.0)
    wishes = {name: wish(tier, inf) for name, tier in tiers.items()}
    for turn in range(2000):
        grant = arbiter.choose(wishes)
        assert grant is not None
        seconds = 0.03 if turn % 3 else 0.07
        arbiter.charge(grant, seconds)
        taken[grant.name] += seconds
    total = sum(taken.values())
    return {name: seconds / total for name, seconds in taken.items()}
