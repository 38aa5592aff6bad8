"""Steps one after the other. An engine that computes another number of tokens than the step before has to get ready."""

from msgspec import structs

from speciate.core.engine import StepSizes
from speciate.costs.step_calibration import StepWork


class StepSeries:
    """Says of each step of one engine whether it is of another size than the one before it; the first one is."""

    def __init__(self, sizes: StepSizes) -> None:
        self._sizes = sizes
        self._last = 0

    def next(self, work: StepWork) -> StepWork:
        """The same work, with `is_resized` set; to be called once a step, in order."""
        size = self._sizes.padded(work.num_tokens)
        if size == self._last:
            return work
        self._last = size
        return structs.replace(work, is_resized=True)
