"""What a step of a denoise model will take: the measured table, corrected by what is observed, with a margin.

A correction is kept a cell (model, stage, tokens, rows), and one a model and stage for cells never seen: a machine that
is slower than the one the table came from is known after a few passes.
"""

from speciate.core.denoise import Stage
from speciate.costs.pass_table import PassTable
from speciate.scheduling.margin import Margin

FORGETTING = 0.1
"""Weight of the newest observation of a cell."""

Cell = tuple[str, Stage, int, int]


class PassTimeModel:
    """Owned by a denoise scheduler."""

    def __init__(self, table: PassTable, min_margin: float, max_margin: float) -> None:
        self._curves = table.curves()
        self._cells: dict[Cell, float] = {}
        self._factors: dict[tuple[str, Stage], float] = {}
        self._known: dict[Cell, float] = {}
        self.margin = Margin(min_margin, max_margin)

    @property
    def gamma(self) -> float:
        """95th percentile of observed over predicted."""
        return self.margin.gamma

    def step_s(self, model: str, stage: Stage, num_tokens: int, num_rows: int) -> float:
        """Expected seconds, without margin."""
        key = (model, stage, num_tokens, num_rows)
        found = self._known.get(key)
        if found is None:
            factor = self._cells.get(key)
            if factor is None:
                factor = self._factors.get((model, stage), 1.0)
            found = self._known[key] = self._curves.estimate(model, stage, num_tokens, num_rows).seconds * factor
        return found

    def observe(self, model: str, stage: Stage, num_tokens: int, num_rows: int, observed_s: float) -> None:
        """A step took so long."""
        key = (model, stage, num_tokens, num_rows)
        observed_s = max(observed_s, 1e-9)
        self.margin.observe(observed_s, max(self.step_s(*key), 1e-9))
        ratio = observed_s / max(self._curves.estimate(*key).seconds, 1e-9)
        group = (model, stage)
        self._cells[key] = _towards(self._cells.get(key, ratio), ratio)
        self._factors[group] = _towards(self._factors.get(group, ratio), ratio)
        self._known.clear()


def _towards(old: float, new: float) -> float:
    return old + FORGETTING * (new - old)
