"""How long outputs become: by tenant where enough is known, and given what is generated."""

import pytest

from speciate.scheduling.lengths import MAX_TENANTS, MIN_OBSERVATIONS, OutputLengths


def test_before_anything_is_known_half_of_what_is_allowed() -> None:
    lengths = OutputLengths()
    assert lengths.estimate("a", 1000) == 500
    assert lengths.estimate("a", 1000, generated=600) == 751
    assert lengths.estimate("a", 1000, generated=990) == 1000
    assert lengths.typical() is None


def test_the_90th_percentile_of_the_last_ones_within_what_is_allowed() -> None:
    lengths = OutputLengths()
    for num in range(1, 101):
        lengths.observe("a", num)
    assert lengths.estimate("a", 4096) == 94  # of 37..100, its last 64
    assert lengths.estimate("a", 50) == 50
    assert lengths.typical() == 90


def test_what_is_generated_leaves_only_longer_ones() -> None:
    lengths = OutputLengths()
    for num in [10] * 50 + [400] * 10:
        lengths.observe("a", num)
    assert lengths.estimate("a", 4096, generated=0) == 400
    assert lengths.estimate("a", 4096, generated=10) == 400
    assert lengths.estimate("a", 4096, generated=400) == 501


def test_each_tenant_has_its_own_and_a_new_one_everybodys() -> None:
    lengths = OutputLengths()
    for _ in range(20):
        lengths.observe("terse", 5)
        lengths.observe("wordy", 900)
    assert lengths.estimate("terse", 4096) == 5
    assert lengths.estimate("wordy", 4096) == 900
    assert lengths.estimate("new", 4096) == 900
    for _ in range(MIN_OBSERVATIONS):
        lengths.observe("new", 50)
    assert lengths.estimate("new", 4096) == 50


def test_tenants_that_ended_nothing_for_long_are_forgotten() -> None:
    lengths = OutputLengths()
    for _ in range(MIN_OBSERVATIONS):
        lengths.observe("old", 7)
    for index in range(MAX_TENANTS):
        lengths.observe(f"tenant {index}", 300)
    assert lengths.estimate("old", 4096) == 300


@pytest.mark.parametrize("generated", [0, 5, 50, 5000])
def test_an_estimate_never_falls_behind_what_is_there(generated: int) -> None:
    lengths = OutputLengths()
    for num in (1, 2, 3, 4, 5, 6, 7, 8, 9, 60):
        lengths.observe("a", num)
    assert generated < lengths.estimate("a", 8192, generated) <= 8192
