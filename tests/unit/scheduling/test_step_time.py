"""The step-time model: it learns, forgets, survives pauses, and its inverse is exact."""

from random import Random

import pytest

from speciate.scheduling.options import StepTimePrior
from speciate.scheduling.step_costs import StepCosts, StepFeatures
from speciate.scheduling.step_time import Margin, StepTimeModel

TRUTH = StepCosts(base_s=0.008, decode_s=0.0015, context_s=1e-6, prefill_s=0.0015, prefill_context_s=1e-8)
GUESSES = [StepTimePrior(), StepTimePrior(0.1, 0.1, 1e-4, 0.1, 1e-6), StepTimePrior(1e-4, 1e-5, 1e-9, 1e-5, 1e-12)]


def random_step(random: Random) -> StepFeatures:
    decodes, start = random.randint(0, 8), random.randint(0, 3000)
    prefill = 0 if random.random() < 0.6 else random.choice([16, 64, 256])
    context = decodes * random.randint(100, 2000)
    return StepFeatures(decodes, context, prefill, prefill * (start + prefill / 2))


def errors(
    model: StepTimeModel, random: Random, num: int, scale: float = 1.0, noise: float = 0.03, pauses: float = 0.0
) -> list[float]:
    """Relative errors of the prediction against the machine without noise, while learning from the noisy one."""
    found = []
    for _ in range(num):
        step = random_step(random)
        exact_s = scale * TRUTH.predict_s(step)
        found.append(abs(model.costs.predict_s(step) / exact_s - 1.0))
        pause = 10.0 if random.random() < pauses else 1.0
        model.observe(step, exact_s * pause * max(0.1, random.gauss(1.0, noise)))
    return found


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("prior", GUESSES)
def test_it_learns_from_any_prior(prior: StepTimePrior) -> None:
    model, random = StepTimeModel(prior), Random(1)
    errors(model, random, 300)
    assert mean(errors(model, random, 200)) < 0.05
    assert model.error.mean < 0.15
    assert model.margin.gamma < 1.3


@pytest.mark.parametrize("scale", [0.5, 1.3, 2.0])
def test_it_recovers_from_a_shift_within_tens_of_steps(scale: float) -> None:
    model, random = StepTimeModel(StepTimePrior()), Random(2)
    errors(model, random, 300)
    errors(model, random, 30, scale)
    assert mean(errors(model, random, 50, scale)) < 0.08


def test_pauses_do_not_wreck_it() -> None:
    model, random = StepTimeModel(StepTimePrior()), Random(3)
    errors(model, random, 200)
    assert mean(errors(model, random, 400, pauses=0.02)) < 0.06


def test_the_margin_covers_95_of_100_steps() -> None:
    model, random = StepTimeModel(StepTimePrior()), Random(4)
    errors(model, random, 700, noise=0.15)
    covered = 0
    for _ in range(500):
        step = random_step(random)
        observed_s = TRUTH.predict_s(step) * max(0.1, random.gauss(1.0, 0.15))
        covered += observed_s <= model.margin.gamma * model.costs.predict_s(step)
        model.observe(step, observed_s)
    assert 0.92 <= covered / 500 <= 0.98
    assert model.margin.strict_for(1) > model.margin.gamma


def test_the_margin_is_cautious_while_cold_and_never_below_its_floor() -> None:
    margin = Margin(1.05, 4.0)
    assert margin.gamma == 1.25
    for _ in range(600):
        margin.observe(1.0, 1.0)
    assert margin.gamma == 1.05
    for _ in range(600):
        margin.observe(10.0, 1.0)
    assert margin.gamma == 4.0


def test_steps_of_one_kind_for_long_do_not_destabilise_the_rest() -> None:
    model, random = StepTimeModel(StepTimePrior()), Random(5)
    errors(model, random, 300)
    for _ in range(2000):
        model.observe(StepFeatures(4, 4000), TRUTH.predict_s(StepFeatures(4, 4000)) * random.gauss(1.0, 0.03))
    chunk = StepFeatures(4, 4000, 256, 256 * 1128.0)
    assert model.costs.predict_s(chunk) == pytest.approx(TRUTH.predict_s(chunk), rel=0.25)


@pytest.mark.parametrize("start", [0, 100, 30_000])
@pytest.mark.parametrize("room_s", [0.0, 1e-4, 0.05, 3.0])
def test_the_largest_chunk_fits_and_one_more_token_does_not(start: int, room_s: float) -> None:
    num = TRUTH.largest_chunk(room_s, start)
    assert TRUTH.chunk_s(num, start) <= room_s * (1 + 1e-9)
    assert TRUTH.chunk_s(num + 1, start) > room_s


def test_an_endless_budget_is_a_finite_chunk() -> None:
    assert TRUTH.largest_chunk(float("inf"), 0) > 1_000_000
    assert TRUTH.largest_chunk(-1.0, 0) == 0


def lone_decodes(model: StepTimeModel, num: int, scale: float = 1.0) -> list[int]:
    """Steps of the same four decodes; which of them (from 1) were learnt from."""
    taught = []
    for number in range(1, num + 1):
        before = model.costs
        step = StepFeatures(4, 4000 + 4 * number)
        model.observe(step, scale * TRUTH.predict_s(step))
        if model.costs is not before:
            taught.append(number)
    return taught


def test_steps_that_repeat_the_one_before_teach_ever_more_seldom() -> None:
    model, random = StepTimeModel(StepTimePrior()), Random(6)
    errors(model, random, 300, noise=0.0)
    model.observe(StepFeatures(5, 4000), TRUTH.predict_s(StepFeatures(5, 4000)))
    assert lone_decodes(model, 130) == [1, 2, 4, 8, 16, 32, 64, 96, 128]


def test_a_step_that_the_budget_cut_always_teaches() -> None:
    model, random = StepTimeModel(StepTimePrior()), Random(6)
    errors(model, random, 300, noise=0.0)
    lone_decodes(model, 40)
    before, step = model.costs, StepFeatures(4, 4200)
    model.observe(step, TRUTH.predict_s(step), is_cut=True)
    assert model.costs is not before


def test_a_surprise_among_repeats_makes_every_step_teach_until_it_is_understood() -> None:
    model, random = StepTimeModel(StepTimePrior()), Random(6)
    errors(model, random, 300, noise=0.0)
    lone_decodes(model, 40)
    taught = lone_decodes(model, 60, scale=2.0)
    assert taught[0] <= 24
    assert taught[:6] == list(range(taught[0], taught[0] + 6))
    assert model.costs.predict_s(StepFeatures(4, 4200)) == pytest.approx(
        2 * TRUTH.predict_s(StepFeatures(4, 4200)), rel=0.05
    )


def test_a_run_teaches_what_its_steps_teach_one_by_one() -> None:
    random = Random(7)
    one, other = StepTimeModel(StepTimePrior()), StepTimeModel(StepTimePrior())
    for _ in range(40):
        step, num = StepFeatures(random.randint(1, 3), random.randint(100, 4000)), random.randint(1, 90)
        durations_s = [0.01 * random.choice([1.0, 1.0, 1.0, 1.02, 2.0]) for _ in range(num)]
        one.observe_repeats(step, durations_s)
        for index, duration_s in enumerate(durations_s):
            other.observe(StepFeatures(step.decodes, step.context + index * step.decodes), duration_s)
        assert one.costs == other.costs
        assert one.margin.gamma == other.margin.gamma
