"""What a step of a denoise model will take: the measured table, corrected by what is observed, with a margin.

A correction is kept a cell (model, stage, tokens, rows), and one a model and stage for cells never seen: a machine that
is slower than the one the table came from is known after a few passes.
"""

from msgspec import Struct

from speciate.core.denoise import Stage
from speciate.costs.pass_table import PassTable
from speciate.scheduling.margin import Margin
from speciate.scheduling.recent_error import RecentError

FORGETTING = 0.1
"""Weight of the newest observation of a cell."""

Cell = tuple[str, Stage, int, int]
Kind = tuple[str, int, int]
"""(model, tokens, rows) of an item: what its steps cost alone."""


class KindSeconds(Struct, frozen=True, gc=False):
    """Expected seconds of an item's steps, alone."""

    encode_s: float
    pass_s: float
    slice_s: float


class PassTimeModel:
    """Owned by a denoise scheduler."""

    def __init__(self, table: PassTable, min_margin: float, max_margin: float) -> None:
        self._curves = table.curves()
        self._cells: dict[Cell, float] = {}
        self._factors: dict[tuple[str, Stage], float] = {}
        self._known: dict[Cell, float] = {}
        self._kinds: dict[Kind, KindSeconds] = {}
        self._shared: dict[tuple[Kind, int], float] = {}
        self.margin = Margin(min_margin, max_margin)
        self.error = RecentError()

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

    def kind(self, kind: Kind) -> KindSeconds:
        """What the steps of such an item cost alone."""
        found = self._kinds.get(kind)
        if found is None:
            model, num_tokens, num_rows = kind
            found = self._kinds[kind] = KindSeconds(
                self.step_s(model, Stage.ENCODE, 0, 1),
                self.step_s(model, Stage.PASS, num_tokens, num_rows),
                self.step_s(model, Stage.DECODE, num_tokens, 1),
            )
        return found

    def shared_pass_s(self, kind: Kind, num_items: int, max_rows: int, min_share: float) -> float:
        """Seconds of the device that one pass of such an item costs where so many like it may share it."""
        most = max(1, min(num_items, max_rows // kind[2]))
        found = self._shared.get((kind, most))
        if found is None:
            found = self._shared[kind, most] = self._best_share_s(kind, most, min_share)
        return found

    def _best_share_s(self, kind: Kind, most: int, min_share: float) -> float:
        model, num_tokens, num_rows = kind
        alone_s = best_s = self.step_s(model, Stage.PASS, num_tokens, num_rows)
        best_score = 1.0 - min_share
        for num in range(2, most + 1):
            step_s = self.step_s(model, Stage.PASS, num_tokens, num * num_rows)
            score = num * (alone_s / step_s - min_share)
            if score > best_score:
                best_s, best_score = step_s / num, score
        return best_s

    def observe(self, model: str, stage: Stage, num_tokens: int, num_rows: int, observed_s: float) -> None:
        """A step took so long."""
        key = (model, stage, num_tokens, num_rows)
        observed_s = max(observed_s, 1e-9)
        predicted_s = max(self.step_s(*key), 1e-9)
        self.margin.observe(observed_s, predicted_s)
        self.error.add(observed_s, predicted_s)
        ratio = observed_s / max(self._curves.estimate(*key).seconds, 1e-9)
        group = (model, stage)
        self._cells[key] = _towards(self._cells.get(key, ratio), ratio)
        self._factors[group] = _towards(self._factors.get(group, ratio), ratio)
        for known in (self._known, self._kinds, self._shared):
            known.clear()


def _towards(old: float, new: float) -> float:
    return old + FORGETTING * (new - old)
