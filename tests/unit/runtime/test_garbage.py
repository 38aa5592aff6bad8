"""The server's collector settings hold, and short-lived objects do not wake it."""

import gc

from speciate.runtime.garbage import THRESHOLDS, collect_seldom


def test_a_step_of_256_sequences_wakes_no_collection() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_threshold() == THRESHOLDS
        num_before = sum(generation["collections"] for generation in gc.get_stats())
        for step in range(50):
            tokens = [(seq_id, (step,)) for seq_id in range(256)]
            assert len(tokens) == 256
        assert sum(generation["collections"] for generation in gc.get_stats()) == num_before
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
