"""The settings of the denoise scheduler, in one frozen tree."""

from msgspec import Struct


class DenoiseOptions(Struct, frozen=True):
    """What an operator may turn. Everything else is measured."""

    max_rows: int = 32
    """Of one pass; an item with guidance is two rows."""
    min_share: float = 0.05
    """One more item shares a pass only while each item of it brings at least this share of what it would bring alone:
    below, everyone waits for next to nothing."""
    starvation_s: float = 300.0
    """Who is late anyway goes behind, but after so long gets `late_share` of the device."""
    late_share: float = 0.1
    quantum_s: float = 60.0
    """Late work is served a model at a time, so many seconds each (deficit round robin)."""
    fairness: float = 0.2
    """Items due within this share of a promise of each other go by how little their tenant was served."""
    batch_window_s: float = 86_400.0
    """The window of batch work that has neither a deadline nor an E2E promise."""
    arm_s: float = 60.0
    """How long after a tier's last arrival the next one is expected: steps of others are then held short for it."""
    min_margin: float = 1.02
    max_margin: float = 3.0
