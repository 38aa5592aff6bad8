"""The token scheduler: slack-budgeted steps with an arrival guard. Pure: time and data in, data out.

One round: `plan` drops what expired, sets the step's budget and lets the stages fill it; the engine computes; `commit`
books what came back. Computed tokens catch up with tokens (as in vLLM V1): a prompt chunk, a decode and a recompute
after eviction are one thing. The stages are in `fill_*`, memory in `evict`, what is learnt in `step_time`.
"""

from math import inf

from speciate.core.engine import StepPlan, TokenEngineShape
from speciate.core.errors import InvalidRequest, InvariantError
from speciate.core.replica import ReplicaLoad
from speciate.core.scheduler import Decision, StepOutcome, TokenWork
from speciate.core.segment import Tier
from speciate.scheduling.draft import Draft
from speciate.scheduling.fill import Stage
from speciate.scheduling.fill_batch import (
    break_standstill,
    fill_all_batch_decodes,
    fill_batch_decodes,
    fill_batch_prompts,
    force_batch,
)
from speciate.scheduling.fill_interactive import fill_interactive_decodes, fill_interactive_prompts
from speciate.scheduling.fill_realtime import fill_realtime_decodes, fill_realtime_prompts
from speciate.scheduling.limits import set_limits, spare_arrivals
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.report import ResidentLoad, replica_load, resident_load
from speciate.scheduling.sequence import BATCH, INTERACTIVE, REALTIME, Phase, Sequence
from speciate.scheduling.state import make_state
from speciate.scheduling.tenants import OUTPUT_WEIGHT

DEFAULTS = TokenSchedulerOptions()
TICKING_S = 1.5 * 2**22
"""Doubles of this size are 2^-30 s apart: whoever adds it and takes it off has rounded to that."""


class TokenScheduler:
    """Implements `StepScheduler` for autoregressive models."""

    def __init__(self, shape: TokenEngineShape, options: TokenSchedulerOptions = DEFAULTS) -> None:
        self._shape = shape
        self._options = options
        self._state = make_state(shape, options)
        self._stages = _stages(options)
        self._num_arrivals = 0
        self._num_plans = 0
        self._in_flight: Draft | None = None
        self._resident_load: ResidentLoad | None = None

    def add(self, work: TokenWork, now_s: float) -> None:
        """Queue a sequence. Raises InvalidRequest if it can never fit or its id is in use."""
        state = self._state
        self._refuse_impossible(work)
        seq = self._sequence(work)
        state.memory.prepare(seq)
        state.live[work.seq_id] = seq
        self._expect_realtime(now_s)
        state.waiting[seq.tier].add(seq)
        state.deadlines.add(seq, len(state.live))
        state.guards[seq.tier].observe_arrival(seq.ttft_s, now_s)
        if seq.tier is REALTIME:
            state.realtime[seq.seq_id] = seq
            num_outputs = state.lengths[seq.tier].estimate(work.tenant, work.max_tokens)
            state.model.margin.promise(work.segment.slo.share, num_outputs)

    def abort(self, seq_id: int, now_s: float) -> None:
        """Forget a sequence; one in the step that runs keeps its blocks until that step is committed."""
        seq = self._state.live.get(seq_id)
        if seq is not None:
            self._resident_load = None
            self._drop(seq)

    def plan(self, now_s: float) -> Decision:
        """Decide the next step. Raises InvariantError while one is in flight."""
        if self._in_flight is not None:
            raise InvariantError("plan called twice without a commit in between")
        self._resident_load = None
        draft = self._draft(now_s)
        while (late := self._state.deadlines.pop_due(now_s)) is not None:
            self._drop(late)
            draft.expired.append(late.seq_id)
        draft.num_live = len(self._state.live)
        if self._state.live:
            for stage in self._stages:
                stage(self._state, draft)
        return self._decide(draft)

    def commit(self, outcome: StepOutcome, now_s: float) -> None:
        """Book the step that `plan` gave. A sampling sequence without a token did not advance."""
        draft = self._in_flight
        if draft is None or outcome.plan.step_id != draft.step_id:
            raise InvariantError(f"commit of step {outcome.plan.step_id}, which is not in flight")
        self._in_flight = self._resident_load = None
        if not outcome.lost:
            self._state.model.observe(
                draft.features(), outcome.observed_s, draft.is_cut, draft.num_streams, draft.has_prompts
            )
        self._observe_pace(draft, now_s)
        tokens = dict(outcome.tokens)
        token_s = in_ticks_s(outcome.observed_s / max(1, draft.num_tokens))
        self._book_decodes(draft.decodes, outcome, tokens, token_s, now_s)
        for seq, num, samples in draft.chunks:
            if seq.phase is Phase.GONE or seq.seq_id in outcome.lost:
                self._book_loss(seq, num, token_s)
            elif not samples or seq.seq_id in tokens:
                self._advance(seq, num, token_s, now_s)
                if samples:
                    self._take_token(seq, tokens[seq.seq_id], seq.seq_id in outcome.finished, now_s)

    def load(self, now_s: float) -> ReplicaLoad:
        """Costs O(running sequences) once a step, then O(real-time ones)."""
        if self._resident_load is None:
            self._resident_load = resident_load(self._state)
        return replica_load(self._state, self._resident_load)

    def check(self) -> None:
        """Raise InvariantError if blocks or sequences do not add up. Costs O(everything)."""
        state = self._state
        if self._resident_load not in (None, resident_load(state)):
            raise InvariantError("the load of running sequences is out of date")
        holders = [seq for tier in Tier for seq in state.residents.of_tier(tier)]
        if len(holders) != state.residents.count:
            raise InvariantError(f"{len(holders)} resident sequences, {state.residents.count} counted")
        aborted = [seq for seq in self._taken() if seq.phase is Phase.GONE]
        state.memory.check(holders + aborted)
        waiting = [seq for seq in state.live.values() if seq.phase is Phase.WAITING]
        if len(waiting) + len(holders) != len(state.live):
            raise InvariantError(f"{len(state.live)} sequences: {len(waiting)} waiting, {len(holders)} resident")
        if state.realtime.keys() != {seq.seq_id for seq in state.live.values() if seq.tier is REALTIME}:
            raise InvariantError(f"{len(state.realtime)} real-time sequences in the books are not those that live")
        for tier, queue in state.waiting.items():
            queue.check([seq for seq in waiting if seq.tier is tier])

    def _taken(self) -> list[Sequence]:
        draft = self._in_flight
        return [] if draft is None else [*draft.decodes, *(seq for seq, _, _ in draft.chunks)]

    def _refuse_impossible(self, work: TokenWork) -> None:
        num_prompt, num_max = len(work.prompt_tokens), len(work.prompt_tokens) + work.max_tokens
        if work.seq_id in self._state.live:
            raise InvalidRequest(f"sequence id {work.seq_id} is in use; give each sequence its own")
        if num_prompt == 0 or work.max_tokens < 1:
            raise InvalidRequest(f"{num_prompt} prompt and {work.max_tokens} output tokens; both must be at least 1")
        if num_max > self._shape.context_tokens:
            raise InvalidRequest(
                f"{num_prompt} prompt and {work.max_tokens} output tokens exceed the context of "
                f"{self._shape.context_tokens}; shorten the prompt or lower max_tokens"
            )
        if self._max_blocks(work) > self._shape.num_blocks:
            raise InvalidRequest(
                f"{num_max} tokens need {self._max_blocks(work)} KV blocks, the device has {self._shape.num_blocks}; "
                "shorten the prompt or lower max_tokens"
            )

    def _expect_realtime(self, now_s: float) -> None:
        """With the first request of all: what else may come is not known yet."""
        expected = self._options.expected
        if self._num_arrivals == 1 and expected is not None:
            until_s = now_s + self._options.start_arm_s
            self._state.guards[REALTIME].expect(expected.ttft_s, expected.prompt_tokens, until_s)

    def _max_blocks(self, work: TokenWork) -> int:
        """The last output token is never computed."""
        return self._state.memory.num_blocks_for(len(work.prompt_tokens) + work.max_tokens - 1)

    def _sequence(self, work: TokenWork) -> Sequence:
        slo, tier = work.segment.slo, work.segment.tier
        is_batch = tier is BATCH
        ttft_s = inf if slo.ttft_s is None or is_batch else slo.ttft_s
        tpot_s = inf if slo.tpot_s is None or is_batch else slo.tpot_s
        self._num_arrivals += 1
        return Sequence(
            work=work,
            seq_id=work.seq_id,
            order=self._num_arrivals,
            tier=tier,
            tenant=self._state.tenants.join(work.tenant),
            ttft_s=ttft_s,
            tpot_s=tpot_s,
            max_gap_s=(1.0 + work.segment.jitter_buffer) * tpot_s,
            deadline_s=work.arrival_s + ttft_s,
            due_s=_due_s(work, self._options.batch_window_s),
            max_outputs=work.max_tokens,
            max_blocks=self._max_blocks(work),
            advanced_s=work.arrival_s,
        )

    def _draft(self, now_s: float) -> Draft:
        self._num_plans += 1
        state, margin = self._state, self._state.model.margin
        num_streams = len(state.residents.decoding[REALTIME])
        has_prompts = bool(state.residents.prefilling[INTERACTIVE] or state.waiting[INTERACTIVE].num_waiting)
        return Draft(
            step_id=self._num_plans,
            now_s=now_s,
            costs=state.model.costs,
            num_streams=num_streams,
            has_prompts=has_prompts,
            gamma=margin.gamma_for(num_streams, has_prompts),
            strict_gamma=margin.strict_for(num_streams, has_prompts),
            block_tokens=self._shape.block_tokens,
            tokens_left=self._shape.max_step_tokens,
            sequences_left=self._shape.max_step_sequences,
            sizes=self._shape.step_sizes,
        )

    def _decide(self, draft: Draft) -> Decision:
        plan = StepPlan(draft.step_id, tuple(draft.steps)) if draft.steps else None
        if plan is not None:
            self._in_flight = draft
        return Decision(
            plan=plan,
            predicted_s=draft.predicted_s if plan is not None else 0.0,
            started=tuple(draft.started),
            relegated=tuple(draft.relegated),
            expired=tuple(draft.expired),
            evicted=tuple(draft.evicted),
            wake_s=None if plan is not None else self._state.deadlines.next_s(),
        )

    def _drop(self, seq: Sequence) -> None:
        """Nobody waits for it any more; what was spent on it is waste."""
        state = self._state
        state.wasted_s += seq.spent_s
        if seq.phase is Phase.WAITING:
            state.waiting[seq.tier].remove(seq)
        else:
            state.residents.remove(seq)
            if self._in_flight is None or not self._in_flight.is_taken(seq):
                state.memory.detach(seq)
        state.leave(seq)

    def _observe_pace(self, draft: Draft, now_s: float) -> None:
        """One batch decode a step is sample enough."""
        if not self._state.residents.decoding[BATCH]:
            return
        for seq in draft.decodes:
            if seq.tier is BATCH and seq.phase is Phase.DECODE:
                self._state.pace.observe(now_s - seq.advanced_s)
                return

    def _book_decodes(
        self, decodes: list[Sequence], outcome: StepOutcome, tokens: dict[int, int], token_s: float, now_s: float
    ) -> None:
        """What `_advance` and `_take_token` do for prompts: a hot loop, one call in the usual case."""
        lost, finished = outcome.lost, outcome.finished
        for seq in decodes:
            if seq.phase is Phase.GONE or seq.seq_id in lost:
                self._book_loss(seq, 1, token_s)
            elif (token_id := tokens.get(seq.seq_id)) is not None:
                seq.spent_s += token_s
                seq.advanced_s = now_s
                seq.computed += 1
                seq.tenant.served += OUTPUT_WEIGHT
                num_outputs = seq.take_token(token_id, now_s)
                if seq.computed >= seq.publish_at:
                    self._state.memory.publish(seq)
                if seq.seq_id in finished:
                    self._finish(seq)
                elif num_outputs >= seq.max_outputs:
                    raise InvariantError(_unfinished(seq))

    def _book_loss(self, seq: Sequence, num: int, token_s: float) -> None:
        """It was aborted while the step ran, or its share of the step failed."""
        if seq.phase is Phase.GONE:
            self._state.wasted_s += num * token_s
            self._state.memory.detach(seq)
        else:
            self._drop(seq)

    def _advance(self, seq: Sequence, num: int, token_s: float, now_s: float) -> None:
        if seq.lost_until > seq.computed:
            self._count_recompute(seq, num, token_s)
        seq.spent_s += num * token_s
        seq.tenant.served += num
        seq.computed += num
        seq.advanced_s = now_s
        if seq.computed >= seq.publish_at:
            self._state.memory.publish(seq)

    def _count_recompute(self, seq: Sequence, num: int, token_s: float) -> None:
        again_s = token_s * (min(seq.lost_until, seq.computed + num) - seq.computed)
        self._state.wasted_s += again_s
        seq.spent_s -= again_s

    def _take_token(self, seq: Sequence, token_id: int, is_finished: bool, now_s: float) -> None:
        seq.take_token(token_id, now_s)
        seq.tenant.served += OUTPUT_WEIGHT
        if is_finished:
            self._finish(seq)
        elif len(seq.outputs) >= seq.max_outputs:
            raise InvariantError(_unfinished(seq))
        else:
            self._state.residents.begin_decoding(seq)

    def _finish(self, seq: Sequence) -> None:
        state = self._state
        state.lengths[seq.tier].observe(seq.work.tenant, len(seq.outputs))
        state.residents.remove(seq)
        state.memory.detach(seq)
        state.leave(seq)


def _stages(options: TokenSchedulerOptions) -> tuple[Stage, ...]:
    return (
        set_limits,
        fill_realtime_decodes,
        fill_realtime_prompts,
        fill_interactive_decodes,
        fill_interactive_prompts,
        spare_arrivals,
        fill_batch_decodes if options.pause_batch else fill_all_batch_decodes,
        fill_batch_prompts,
        force_batch,
        break_standstill,
    )


def in_ticks_s(seconds: float) -> float:
    """Seconds of steps are booked in whole ticks of 2^-30 s: sums are then exact, in whatever order they are added."""
    return (seconds + TICKING_S) - TICKING_S


def _unfinished(seq: Sequence) -> str:
    return f"sequence {seq.seq_id} has its {seq.max_outputs} tokens but was not finished"


def _due_s(work: TokenWork, window_s: float) -> float:
    """When all of it should be done: the deadline, else the E2E promise, else the default window."""
    if work.deadline_s is not None:
        return work.deadline_s
    return work.arrival_s + (window_s if work.segment.slo.e2e_s is None else work.segment.slo.e2e_s)
