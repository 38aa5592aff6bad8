"""How much longer a line will run."""

from speciate.batch.line_times import LineTimes


def test_of_those_that_lasted_as_long() -> None:
    times = LineTimes()
    for took_s in range(1, 101):
        times.add("m", float(took_s))
    assert times.left_s("m", 0.0) == 91.0
    assert times.left_s("m", 90.0) == 10.0
    assert times.left_s("m", 99.5) == 0.5


def test_where_none_lasted_as_long_or_none_is_known_as_long_again() -> None:
    times = LineTimes()
    times.add("m", 2.0)
    assert times.left_s("m", 5.0) == 5.0
    assert times.left_s("other", 3.0) == 3.0


def test_old_ones_are_forgotten() -> None:
    times = LineTimes()
    for took_s in [100.0] * 300 + [1.0] * 256:
        times.add("m", took_s)
    assert times.left_s("m", 0.0) == 1.0
