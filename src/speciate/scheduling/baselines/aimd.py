"""An AIMD window on batch work, as a gateway in front of an engine keeps one (llm-d Batch Gateway; Tidal's gateway A).

The gateway sees requests, not steps: it lets `window` batch requests into the engine at a time, adds one after each
quiet interval and halves the window after one in which online work was late. What it holds waits outside the engine.
"""

from collections import deque
from math import inf

from msgspec import Struct, structs

from speciate.core.errors import InvariantError
from speciate.core.replica import ReplicaLoad
from speciate.core.scheduler import Decision, StepOutcome, StepScheduler, TokenWork
from speciate.core.segment import Tier


class AimdOptions(Struct, frozen=True):
    """Common values; `interval_s` is how often a gateway looks."""

    interval_s: float = 1.0
    increase: float = 1.0
    decrease: float = 0.5
    first_window: float = 8.0
    max_window: float = 256.0
    allowed_late: float = 0.01
    """Share of the online tokens of an interval that may be late."""


class AimdGateway:
    """A `StepScheduler` around another one."""

    def __init__(self, inner: StepScheduler, options: AimdOptions) -> None:
        self._inner = inner
        self._options = options
        self._window = options.first_window
        self._held: deque[TokenWork] = deque()
        self._batch: set[int] = set()
        self._due: dict[int, tuple[float, float]] = {}
        """Online sequences inside: (when the next token is due, TPOT)."""
        self._num_tokens = 0
        self._num_late = 0
        self._looks_s = -inf

    def add(self, work: TokenWork, now_s: float) -> None:
        if work.segment.tier is Tier.BATCH:
            self._held.append(work)
            self._release(now_s)
            return
        self._inner.add(work, now_s)
        slo = work.segment.slo
        ttft_s, tpot_s = slo.ttft_s or inf, slo.tpot_s or inf
        self._due[work.seq_id] = (work.arrival_s + ttft_s, tpot_s)

    def abort(self, seq_id: int, now_s: float) -> None:
        self._forget(seq_id)
        self._held = deque(work for work in self._held if work.seq_id != seq_id)
        self._inner.abort(seq_id, now_s)

    def plan(self, now_s: float) -> Decision:
        self._adapt(now_s)
        self._release(now_s)
        decision = self._inner.plan(now_s)
        for seq_id in decision.expired:
            self._forget(seq_id)
        return decision

    def commit(self, outcome: StepOutcome, now_s: float) -> None:
        for seq_id, _ in outcome.tokens:
            self._see(seq_id, now_s)
        for seq_id in (*outcome.finished, *outcome.lost):
            self._forget(seq_id)
        self._inner.commit(outcome, now_s)

    def load(self, now_s: float) -> ReplicaLoad:
        """The engine's, with what is held added to the batch that waits."""
        load = self._inner.load(now_s)
        batch = load.tiers[Tier.BATCH]
        held_tokens = sum(len(work.prompt_tokens) for work in self._held)
        waiting = structs.replace(
            batch,
            num_waiting=batch.num_waiting + len(self._held),
            waiting_tokens=batch.waiting_tokens + held_tokens,
            backlog_s=batch.backlog_s + held_tokens * load.prefill_token_s,
        )
        return structs.replace(load, tiers={**load.tiers, Tier.BATCH: waiting})

    def check(self) -> None:
        if len(self._batch) > self._options.max_window + 1:
            raise InvariantError(f"{len(self._batch)} batch sequences inside, the window is {self._window:.1f}")
        self._inner.check()

    def _release(self, now_s: float) -> None:
        while self._held and len(self._batch) < max(1, int(self._window)):
            work = self._held.popleft()
            self._batch.add(work.seq_id)
            self._inner.add(work, now_s)

    def _see(self, seq_id: int, now_s: float) -> None:
        if (due := self._due.get(seq_id)) is not None:
            self._num_tokens += 1
            self._num_late += now_s > due[0]
            self._due[seq_id] = (now_s + due[1], due[1])

    def _adapt(self, now_s: float) -> None:
        if now_s - self._looks_s < self._options.interval_s:
            return
        if self._num_late > self._options.allowed_late * self._num_tokens:
            self._window = max(1.0, self._window * self._options.decrease)
        else:
            self._window = min(self._options.max_window, self._window + self._options.increase)
        self._looks_s, self._num_tokens, self._num_late = now_s, 0, 0

    def _forget(self, seq_id: int) -> None:
        self._batch.discard(seq_id)
        self._due.pop(seq_id, None)
