"""An engine as a benchmark lends it to a replica: it records steps, ends outputs where told, and survives `close`."""

from time import perf_counter

from msgspec import Struct, structs

from speciate.core.engine import SampledToken, SequenceSpec, StepEngine, StepPlan, StepResult, TokenEngineShape
from speciate.costs.step_calibration import StepWork
from speciate.costs.step_series import StepSeries
from speciate.sim.replica import work_of

END_TOKEN = 1
"""Requests of a run name it as their stop token."""
PLAIN_TOKEN = 10
"""What every other output token becomes: which token the model likes changes no duration."""


class StepRecord(Struct, frozen=True, gc=False):
    """One step: what, when (seconds of this process's own clock), how long."""

    work: StepWork
    began_s: float
    seconds: float


class LentEngine:
    """Implements `StepEngine`. An output ends at its `min_tokens`, whatever the model would say next."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine
        self._left: dict[int, int] = {}
        """Tokens still to come, by sequence."""
        self.records: list[StepRecord] = []
        self._series = StepSeries(engine.shape.step_sizes)

    @property
    def shape(self) -> TokenEngineShape:
        return self._engine.shape

    def add(self, sequence: SequenceSpec) -> None:
        self._left[sequence.seq_id] = sequence.min_tokens
        self._engine.add(structs.replace(sequence, min_tokens=0))

    def step(self, plan: StepPlan) -> StepResult:
        began_s = perf_counter()
        result = self._engine.step(plan)
        seconds = perf_counter() - began_s
        self.records.append(StepRecord(self._series.next(work_of(plan)), began_s, seconds))
        return structs.replace(result, samples=tuple(self._scripted(sample) for sample in result.samples))

    def _scripted(self, sample: SampledToken) -> SampledToken:
        self._left[sample.seq_id] -= 1
        return structs.replace(sample, token_id=PLAIN_TOKEN if self._left[sample.seq_id] > 0 else END_TOKEN)

    def remove(self, seq_id: int) -> None:
        self._left.pop(seq_id, None)
        self._engine.remove(seq_id)

    def close(self) -> None:
        """The lender closes the engine; what a replica left in it is removed."""
        for seq_id in list(self._left):
            self.remove(seq_id)


class NoText:
    """A `TextCodec` for models without a tokenizer: tokens show nothing."""

    def stream(self, stop: tuple[str, ...], include_stop: bool, skip_special: bool) -> "_Silence":
        del stop, include_stop, skip_special
        return _Silence()

    def token_bytes(self, token_id: int) -> bytes:
        del token_id
        return b""


class _NothingShown(Struct, frozen=True):
    text: str = ""
    stopped_by: str | None = None


class _Silence:
    def push(self, token_id: int) -> _NothingShown:
        del token_id
        return _NothingShown()

    def flush(self) -> str:
        return ""
