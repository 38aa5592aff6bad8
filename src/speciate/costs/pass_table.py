"""How long a step of a denoise model takes: a measured table of (model, stage, tokens, rows) -> seconds.

Interpolates with statistics, extrapolates with physics: between two measured sizes linearly in rows and by a power of
tokens; beyond them a pass costs in proportion (no faster than the last measured row or token). `source` says which.

    rows ^   x----x-----------x          x measured
         |   |    |     o     |          o between four: interpolated in rows on both sides, then in tokens
         |   x----x-----------x
         +---------------------------> tokens
"""

from bisect import bisect_left
from math import exp, log
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from speciate.core.denoise import Stage
from speciate.core.errors import ConfigError

Source = Literal["measured", "interpolated", "extrapolated", "unknown"]


class PassCost(Struct, frozen=True):
    """One measured cell: the median seconds of a step."""

    model: str
    stage: Stage
    num_tokens: int
    num_rows: int
    """Items times the rows of each; of encode and decode steps, items."""
    seconds: float


class PassTable(Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured on one machine. `speciate bench calibrate` writes it."""

    hardware: str
    cells: tuple[PassCost, ...]
    unknown_s: float = 0.1
    """A pass of one row of `unknown_tokens` tokens of a model that was never measured."""
    unknown_tokens: int = 1024

    def curves(self) -> "PassCurves":
        return PassCurves(self)


class Estimate(Struct, frozen=True, gc=False):
    """Seconds and where they come from."""

    seconds: float
    source: Source


class PassCurves:
    """A table made ready to be asked. Cells are remembered: one look-up costs under a microsecond."""

    def __init__(self, table: PassTable) -> None:
        self._table = table
        self._curves: dict[tuple[str, Stage], dict[int, _Line]] = {}
        for cell in table.cells:
            line = self._curves.setdefault((cell.model, cell.stage), {}).setdefault(cell.num_tokens, _Line())
            line.add(cell.num_rows, cell.seconds)
        self._known: dict[tuple[str, Stage, int, int], Estimate] = {}

    def estimate(self, model: str, stage: Stage, num_tokens: int, num_rows: int) -> Estimate:
        key = (model, stage, num_tokens, num_rows)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._look_up(model, stage, num_tokens, num_rows)
        return found

    def _look_up(self, model: str, stage: Stage, num_tokens: int, num_rows: int) -> Estimate:
        lines = self._curves.get((model, stage))
        if lines is None:
            return Estimate(self._unknown_s(stage, num_tokens, num_rows), "unknown")
        if num_tokens in lines:
            return lines[num_tokens].at(num_rows)
        sizes = sorted(lines)
        place = bisect_left(sizes, num_tokens)
        if 0 < place < len(sizes):
            left, right = sizes[place - 1], sizes[place]
            return _between(num_tokens, (left, lines[left].at(num_rows)), (right, lines[right].at(num_rows)))
        nearest = sizes[0] if place == 0 else sizes[-1]
        inner = sizes[min(1, len(sizes) - 1)] if place == 0 else sizes[max(0, len(sizes) - 2)]
        return _beyond(num_tokens, (nearest, lines[nearest].at(num_rows)), (inner, lines[inner].at(num_rows)))

    def _unknown_s(self, stage: Stage, num_tokens: int, num_rows: int) -> float:
        """In proportion to tokens and rows: batching seems to gain nothing until it is measured."""
        share = 1.0 if stage is not Stage.ENCODE else 0.5
        return share * self._table.unknown_s * num_rows * max(1, num_tokens) / self._table.unknown_tokens


class _Line:
    """Seconds by rows at one number of tokens."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._seconds: list[float] = []

    def add(self, num_rows: int, seconds: float) -> None:
        place = bisect_left(self._rows, num_rows)
        if place < len(self._rows) and self._rows[place] == num_rows:
            self._seconds[place] = seconds
            return
        self._rows.insert(place, num_rows)
        self._seconds.insert(place, seconds)

    def at(self, num_rows: int) -> Estimate:
        rows, seconds = self._rows, self._seconds
        place = bisect_left(rows, num_rows)
        if place < len(rows) and rows[place] == num_rows:
            return Estimate(seconds[place], "measured")
        if 0 < place < len(rows):
            share = (num_rows - rows[place - 1]) / (rows[place] - rows[place - 1])
            return Estimate(seconds[place - 1] + share * (seconds[place] - seconds[place - 1]), "interpolated")
        if place == 0:
            return Estimate(seconds[0], "extrapolated")  # fewer rows than measured: no faster than that
        return Estimate(seconds[-1] * num_rows / rows[-1], "extrapolated")


def _between(num_tokens: int, left: tuple[int, Estimate], right: tuple[int, Estimate]) -> Estimate:
    """A power law between two sizes: attention makes it steeper than a line."""
    (small, small_cost), (large, large_cost) = left, right
    if small <= 0 or min(small_cost.seconds, large_cost.seconds) <= 0:
        share = (num_tokens - small) / (large - small)
        return Estimate(small_cost.seconds + share * (large_cost.seconds - small_cost.seconds), "interpolated")
    share = log(num_tokens / small) / log(large / small)
    power = log(small_cost.seconds) + share * (log(large_cost.seconds) - log(small_cost.seconds))
    return Estimate(exp(power), "interpolated")


def _beyond(num_tokens: int, nearest: tuple[int, Estimate], inner: tuple[int, Estimate]) -> Estimate:
    """The last measured power goes on, held between 1 (arithmetic) and 2 (attention); below, no faster than a line."""
    size, cost = nearest
    if size <= 0:
        return Estimate(cost.seconds, "extrapolated")
    power = 1.0
    if inner[0] != size and inner[0] > 0 and inner[1].seconds > 0 and cost.seconds > 0:
        power = min(2.0, max(1.0, log(cost.seconds / inner[1].seconds) / log(size / inner[0])))
    if num_tokens < size:
        power = 1.0
    return Estimate(cost.seconds * (max(1, num_tokens) / size) ** power, "extrapolated")


def load_pass_table(path: Path) -> PassTable:
    """A JSON file that `speciate bench calibrate` wrote. Raises ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PassTable)
    except OSError as error:
        raise ConfigError(
            f"The table of pass times {path} cannot be read: {error.strerror}. Check the path."
        ) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is not a table of pass times: {error}") from error
