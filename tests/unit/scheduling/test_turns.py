"""Grouping in time: what is displaced, and whose turn it is."""

from hypothesis import given
from hypothesis import strategies as st

from speciate.scheduling.denoise.turns import ModelGroup, Turns, first_group


def test_what_is_loaded_goes_on_while_the_other_can_wait() -> None:
    loaded = ModelGroup("a", 0.0, ((20.0, 5.0), (25.0, 5.0)))
    assert first_group([ModelGroup("b", 10.0, ((40.0, 5.0),)), loaded], 0.0) == "a"


def test_it_is_displaced_when_more_are_in_time_that_way() -> None:
    loaded = ModelGroup("a", 0.0, ((60.0, 20.0),))
    other = ModelGroup("b", 10.0, ((20.0, 3.0), (21.0, 3.0), (22.0, 3.0)))
    assert first_group([loaded, other], 0.0) == "b"


def test_a_load_for_one_does_not_cost_two() -> None:
    loaded = ModelGroup("a", 0.0, ((12.0, 5.0), (14.0, 5.0)))
    assert first_group([loaded, ModelGroup("b", 10.0, ((13.0, 2.0),))], 0.0) == "a"


def test_turns_go_round_and_each_has_its_quantum() -> None:
    turns, served = Turns(10.0), []
    for _ in range(12):
        model = turns.current({"a": 1, "b": 1, "c": 1})
        assert model is not None
        turns.charge(model, 5.0)
        served.append(model)
    assert served == ["a", "a", "b", "b", "c", "c"] * 2


def test_who_has_nothing_left_loses_its_turn_and_its_rest() -> None:
    turns = Turns(10.0)
    assert turns.current({"a": 1, "b": 1}) == "a"
    assert turns.current({"b": 1}) == "b"
    assert turns.current({"a": 1, "b": 1}) == "b"
    assert turns.current({}) is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.1, 8.0)), min_size=1, max_size=120))
def test_nobody_starves_and_nobody_gets_far_ahead(events: list[tuple[str, float]]) -> None:
    """With everyone always waiting, service differs by less than two quanta and a step (Shreedhar and Varghese)."""
    turns, served = Turns(5.0), dict.fromkeys("abcd", 0.0)
    for _, seconds in events:
        model = turns.current(dict.fromkeys("abcd", 1))
        assert model is not None
        turns.charge(model, seconds)
        served[model] += seconds
        turns.check()
    assert max(served.values()) - min(served.values()) <= 2 * 5.0 + 8.0 + 1e-9
