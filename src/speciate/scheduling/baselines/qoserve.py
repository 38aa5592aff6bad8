"""QoServe (Goel et al., ASPLOS 2026; earlier Niyama): slack-sized chunks, hybrid order, eager relegation.

After its artifact, microsoft/sarathi-serve branch niyama_asplos2026, deadline_scheduler.py and sequence.py:

    chunk   the largest total of a grid whose predicted time x 1.2 fits the least slack of the running decodes,
            where a decode's n-th token is due at max(first token, arrival + TTFT) + n TBT
    order   due + alpha x prompt tokens left; batch is due early enough to write its output at the batch TBT
    relegation  once, if now + prompt left / prefill throughput > due: behind all others; nobody is told

Not as there: step times come from our online model (the same for all policies), and a decode that lacks memory evicts
the least important one (the artifact asserts that this does not happen). Knobs: alpha, the safety factor.
"""

from math import inf

from msgspec import Struct

from speciate.core.engine import TokenEngineShape
from speciate.core.segment import Tier
from speciate.scheduling.baselines.staged import (
    Prompts,
    StagedScheduler,
    above_watermark,
    all_decodes,
    arrival,
    decoding,
    prompt_chunks,
)
from speciate.scheduling.draft import Draft
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.sequence import Phase, Sequence
from speciate.scheduling.state import TokenState
from speciate.scheduling.step_costs import StepFeatures

GRID = (128, *range(256, 2049, 256), 2552)
LOW_MEMORY_GRID = (128, 256, 384, 512)
LOW_MEMORY_TOKENS = 32_000
"""With less free KV than this the small grid is used (its 1000 x 32)."""
RELEGATED_S = 1e9
RATE = 0.005
"""Weight of one step in the observed prefill throughput (its decay of 0.995)."""
MAX_RELEGATED = 64
"""Relegations of one step; bounds its cost."""


class QoServeOptions(Struct, frozen=True):
    """Defaults of the artifact."""

    alpha_s: float = 0.008
    """Per prompt token left."""
    safety: float = 1.2
    batch_tbt_s: float = 0.4
    batch_output_tokens: int = 150
    """Its guess of a batch output's length on conversation traces."""
    prefill_tokens_per_s: float = 8500.0
    """Before any was observed."""


def qoserve(shape: TokenEngineShape, options: TokenSchedulerOptions, knobs: QoServeOptions) -> StagedScheduler:
    policy = _QoServe(knobs)
    prompts = prompt_chunks(policy.key, above_watermark)
    stages = (_open, all_decodes(arrival), policy.set_chunk, policy.relegate, prompts, policy.remember)
    return StagedScheduler(shape, options, policy.key, stages)


def _open(state: TokenState, draft: Draft) -> None:
    draft.used_s = state.model.costs.base_s


class _QoServe:
    """Owns the observed prefill throughput."""

    def __init__(self, knobs: QoServeOptions) -> None:
        self._knobs = knobs
        self._tokens_per_s = knobs.prefill_tokens_per_s
        self._step = (0.0, 0)
        """(when the last step was planned, its prompt tokens)."""

    def key(self, seq: Sequence) -> float:
        relegated_s = RELEGATED_S if seq.was_relegated else 0.0
        return relegated_s + self._due_s(seq) + self._knobs.alpha_s * seq.remaining

    def set_chunk(self, state: TokenState, draft: Draft) -> None:
        self._observe_rate(draft.now_s)
        running = decoding(state)
        slack_s = min((self._token_due_s(seq) for seq in running), default=inf) - draft.now_s
        free_tokens = state.memory.pool.num_available * draft.block_tokens
        grid = GRID if free_tokens >= LOW_MEMORY_TOKENS else LOW_MEMORY_GRID
        total = max((size for size in grid if self._fits(draft, size, slack_s)), default=grid[0])
        draft.tokens_left = min(draft.tokens_left, max(0, total - len(draft.decodes)))

    def relegate(self, state: TokenState, draft: Draft) -> None:
        """Send those behind that will be late anyway, until one is found that will not."""
        prompts = Prompts(state, self.key)
        late: list[Sequence] = []
        while len(late) < MAX_RELEGATED and (seq := prompts.next()) is not None:
            if not self._is_late(seq, draft.now_s):
                break
            if seq.phase is Phase.WAITING:
                late.append(seq)
        prompts.close()
        for seq in late:
            state.waiting[seq.tier].remove(seq)
            seq.was_relegated = True
            state.waiting[seq.tier].add(seq)

    def remember(self, state: TokenState, draft: Draft) -> None:
        """What this step reads, to see how long it took."""
        del state
        self._step = (draft.now_s, draft.num_prefill)

    def _fits(self, draft: Draft, num_tokens: int, slack_s: float) -> bool:
        num_prefill = max(0, num_tokens - len(draft.decodes))
        predicted_s = draft.costs.predict_s(StepFeatures(len(draft.decodes), draft.context, num_prefill, 0.0))
        return predicted_s * self._knobs.safety <= slack_s

    def _observe_rate(self, now_s: float) -> None:
        began_s, num_tokens = self._step
        if num_tokens and now_s > began_s:
            self._tokens_per_s += RATE * (num_tokens / (now_s - began_s) - self._tokens_per_s)

    def _is_late(self, seq: Sequence, now_s: float) -> bool:
        return not seq.was_relegated and now_s + seq.remaining / self._tokens_per_s > self._due_s(seq)

    def _due_s(self, seq: Sequence) -> float:
        """Of its first token."""
        if seq.tier is Tier.BATCH:
            return seq.due_s - self._knobs.batch_tbt_s * self._knobs.batch_output_tokens
        return seq.work.arrival_s + seq.ttft_s

    def _token_due_s(self, seq: Sequence) -> float:
        tbt_s = self._knobs.batch_tbt_s if seq.tier is Tier.BATCH else seq.tpot_s
        first_s = max(seq.first_s or 0.0, self._due_s(seq))
        return first_s + tbt_s * (len(seq.outputs) + 1)
