"""Margins by how many wait for a step, and by kind of step."""

from random import Random

from speciate.scheduling.margin import Margin


def noisy(margin: Margin, spread: float, num_streams: int, seed: int = 1) -> None:
    draw = Random(seed)
    for _ in range(400):
        margin.observe(draw.lognormvariate(0.0, spread), 1.0, is_cut=True, num_streams=num_streams)


def test_the_more_streams_wait_for_a_step_the_wider_its_margin() -> None:
    margin = Margin(1.0, 4.0)
    noisy(margin, 0.03, num_streams=1)
    margins = [margin.strict_for(num) for num in (1, 2, 4, 8)]
    assert margins == sorted(set(margins))
    assert margin.strict_for(1000) == margin.strict_for(16)


def test_steps_that_streams_wait_for_are_judged_by_their_own_errors() -> None:
    margin = Margin(1.0, 4.0)
    noisy(margin, 0.15, num_streams=0)
    assert margin.strict_for(1) > 1.4, "the other kind stands in while nothing is known"
    noisy(margin, 0.02, num_streams=2)
    assert margin.strict_for(1) < 1.15
    assert margin.strict_for(0) > 1.4
    assert margin.gamma_for(2) < 1.05 < margin.gamma_for(0)


def test_a_late_step_widens_only_the_margin_of_its_kind() -> None:
    margin = Margin(1.0, 4.0)
    noisy(margin, 0.03, num_streams=1)
    noisy(margin, 0.03, num_streams=0)
    streamed, others = margin.strict_for(1), margin.strict_for(0)
    margin.observe(1.5, 1.0, is_cut=True, num_streams=3)
    assert margin.strict_for(1) > 1.01 * streamed
    assert margin.strict_for(0) == others


def test_after_a_change_of_the_machine_both_kinds_begin_with_the_widest_margin_known() -> None:
    margin = Margin(1.0, 4.0)
    noisy(margin, 0.15, num_streams=0)
    noisy(margin, 0.02, num_streams=1)
    widest = margin.strict_for(0)
    margin.forget()
    assert margin.strict_for(1) == margin.strict_for(0) == widest


def test_steps_beside_interactive_prompts_are_judged_by_their_own_errors() -> None:
    """Deep chunks take longer than the model says: a bias of one kind must not be averaged away."""
    margin = Margin(1.0, 4.0)
    noisy(margin, 0.02, num_streams=1)
    for _ in range(400):
        margin.observe(1.2, 1.0, is_cut=True, num_streams=1, has_prompts=True)
    assert margin.strict_for(1, has_prompts=True) >= 1.2
    assert margin.strict_for(1, has_prompts=False) < 1.15


def test_few_observations_are_trusted_little() -> None:
    margin = Margin(1.0, 4.0)
    draw, margins = Random(2), []
    for _ in range(400):
        margin.observe(draw.lognormvariate(0.0, 0.02), 1.0, is_cut=True, num_streams=1)
        margins.append(margin.strict_for(1))
    assert margins[18] == margins[19] == 1.25
    assert margins[39] >= 1.125
    assert margins[-1] < 1.1
