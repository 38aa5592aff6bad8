"""The clock and the order of events."""

from speciate.sim.world import Priority, World


def test_events_happen_by_time_then_priority_then_posting() -> None:
    world, seen = World(), []
    for name, at_s, priority in [
        ("plan", 1.0, Priority.PLAN),
        ("late", 2.0, Priority.STEP_ENDS),
        ("first arrival", 1.0, Priority.ARRIVAL),
        ("second arrival", 1.0, Priority.ARRIVAL),
        ("step", 1.0, Priority.STEP_ENDS),
    ]:
        world.at(at_s, priority, lambda now_s, name=name: seen.append((now_s, name)))  # type: ignore[misc]
    world.run()
    assert seen == [
        (1.0, "step"),
        (1.0, "first arrival"),
        (1.0, "second arrival"),
        (1.0, "plan"),
        (2.0, "late"),
    ]


def test_nothing_happens_in_the_past_or_after_the_end() -> None:
    world, seen = World(), []
    world.at(5.0, Priority.ARRIVAL, lambda _: world.at(1.0, Priority.PLAN, seen.append))
    world.at(9.0, Priority.ARRIVAL, seen.append)
    world.run(until_s=8.0)
    assert (seen, world.now_s) == ([5.0], 8.0)
    world.run()
    assert (seen, world.now_s) == ([5.0, 9.0], 9.0)


def test_soon_happens_at_once_only_if_nothing_else_can_come_before() -> None:
    world, seen = World(), []
    world.at(
        1.0, Priority.STEP_ENDS, lambda _: world.soon(2.0, Priority.PLAN, lambda at_s: seen.append(("free", at_s)))
    )
    world.at(3.0, Priority.ARRIVAL, lambda at_s: seen.append(("arrival", at_s)))
    world.at(
        2.5, Priority.STEP_ENDS, lambda _: world.soon(3.0, Priority.PLAN, lambda at_s: seen.append(("after", at_s)))
    )
    world.run(until_s=4.0)
    assert seen == [("free", 2.0), ("arrival", 3.0), ("after", 3.0)]
    assert (world.now_s, world.num_events) == (3.0, 5)
