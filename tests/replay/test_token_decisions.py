"""Decisions replay: the same calls give the same decisions, and four small scenes show what the rules are for.

The scenes run under a virtual clock; steps take what a cost model of a small CPU says, with 3 % noise from a seed.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from random import Random

from speciate.core.engine import TokenEngineShape
from speciate.core.scheduler import Decision, StepOutcome, TokenWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.scheduling.options import StepTimePrior, TokenSchedulerOptions
from speciate.scheduling.step_costs import StepCosts, StepFeatures
from speciate.scheduling.token import TokenScheduler

TRUTH = StepCosts(base_s=0.008, decode_s=0.0015, context_s=1e-7, prefill_s=0.0015, prefill_context_s=1e-8)
GUESS = StepTimePrior(base_s=0.005, decode_s=0.001, context_s=1e-7, prefill_s=0.001, prefill_context_s=1e-8)
VOICE = Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05))
CHAT = Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1), jitter_buffer=1.0)
DOCS = Segment("docs", Tier.BATCH, Slo(e2e_s=86_400.0))


@dataclass(slots=True)
class Arrival:
    at_s: float
    segment: Segment
    prompt: int
    outputs: int
    tenant: str = "one"


@dataclass(slots=True)
class Served:
    arrival: Arrival
    token_s: list[float] = field(default_factory=list)

    @property
    def ttft_s(self) -> float:
        return self.token_s[0] - self.arrival.at_s if self.token_s else float("inf")

    @property
    def max_gap_s(self) -> float:
        return max((b - a for a, b in zip(self.token_s, self.token_s[1:], strict=False)), default=0.0)


class World:
    """One device under a virtual clock; every call and every decision is recorded."""

    def __init__(self, options: TokenSchedulerOptions, num_blocks: int = 4000, seed: int = 1) -> None:
        self.shape = TokenEngineShape(
            model="m",
            vocab_size=1000,
            context_tokens=8192,
            block_tokens=16,
            num_blocks=num_blocks,
            block_bytes=1,
            eos_token_ids=(),
        )
        self.scheduler = TokenScheduler(self.shape, options)
        self.random = Random(seed)
        self.now_s = 0.0
        self.served: dict[int, Served] = {}
        self.calls: list[tuple[str, object, float]] = []
        self.decisions: list[Decision] = []
        self.tokens_by = defaultdict[str, int](int)

    def run(self, arrivals: list[Arrival], until_s: float) -> "World":
        waiting = sorted(arrivals, key=lambda arrival: arrival.at_s)[::-1]
        while self.now_s < until_s:
            while waiting and waiting[-1].at_s <= self.now_s:
                self._add(waiting.pop())
            if not self._step():
                self.now_s = waiting[-1].at_s if waiting else until_s
        return self

    def of(self, segment: Segment) -> list[Served]:
        return [served for served in self.served.values() if served.arrival.segment is segment]

    def attainment(self, segment: Segment) -> float:
        """Share whose first token was in time, among those that could have been."""
        ttft_s = segment.slo.ttft_s or 0.0
        due = [served for served in self.of(segment) if served.arrival.at_s + ttft_s < self.now_s]
        return sum(served.ttft_s <= ttft_s for served in due) / len(due)

    def _add(self, arrival: Arrival) -> None:
        seq_id = len(self.served)
        prompt = tuple((seq_id * 31 + i) % 997 for i in range(arrival.prompt))
        work = TokenWork(seq_id, prompt, arrival.segment, arrival.at_s, 2 * arrival.outputs, arrival.tenant)
        self.calls.append(("add", work, self.now_s))
        self.scheduler.add(work, self.now_s)
        self.served[seq_id] = Served(arrival)

    def _step(self) -> bool:
        decision = self.scheduler.plan(self.now_s)
        self.calls.append(("plan", None, self.now_s))
        self.decisions.append(decision)
        if decision.plan is None:
            return False
        observed_s = TRUTH.predict_s(self._features(decision)) * max(0.5, self.random.gauss(1.0, 0.03))
        self.now_s += observed_s
        tokens, finished = [], set()
        for step in decision.plan.sequences:
            served = self.served[step.seq_id]
            if step.samples:
                tokens.append((step.seq_id, 1))
                served.token_s.append(self.now_s)
                self.tokens_by[served.arrival.tenant] += 1
                if len(served.token_s) == served.arrival.outputs:
                    finished.add(step.seq_id)
        outcome = StepOutcome(decision.plan, observed_s, tuple(tokens), frozenset(finished))
        self.calls.append(("commit", outcome, self.now_s))
        self.scheduler.commit(outcome, self.now_s)
        return True

    def _features(self, decision: Decision) -> StepFeatures:
        assert decision.plan is not None
        decodes = context = prefill = 0
        prefill_context = 0.0
        for step in decision.plan.sequences:
            num = len(step.tokens)
            if step.start >= self.served[step.seq_id].arrival.prompt:
                decodes, context = decodes + 1, context + step.start
            else:
                prefill, prefill_context = prefill + num, prefill_context + num * (step.start + num / 2)
        return StepFeatures(decodes, context, prefill, prefill_context)


def poisson(random: Random, rate: float, until_s: float) -> list[float]:
    times, now_s = [], 0.0
    while (now_s := now_s + random.expovariate(rate)) < until_s:
        times.append(now_s)
    return times


def mixed(seed: int, until_s: float = 30.0) -> list[Arrival]:
    """Voice twice a second, chat twice a second, and more documents than can be done."""
    random = Random(seed)
    voice = [Arrival(t, VOICE, random.randint(8, 24), random.randint(4, 12)) for t in poisson(random, 2.0, until_s)]
    chat = [Arrival(t, CHAT, random.randint(20, 100), random.randint(4, 16)) for t in poisson(random, 2.0, until_s)]
    docs = [Arrival(0.0, DOCS, random.randint(20, 120), random.randint(4, 16)) for _ in range(600)]
    return voice + chat + docs


def test_a_recorded_trace_gives_equal_decisions() -> None:
    world = World(TokenSchedulerOptions(prior=GUESS), num_blocks=200).run(mixed(3, 8.0), 8.0)
    replayed = TokenScheduler(world.shape, TokenSchedulerOptions(prior=GUESS))
    decisions = []
    for name, argument, now_s in world.calls:
        if name == "plan":
            decisions.append(replayed.plan(now_s))
        else:
            getattr(replayed, name)(argument, now_s)
    assert len(decisions) > 100
    assert decisions == world.decisions
    assert replayed.load(8.0) == world.scheduler.load(8.0)


def test_all_promises_are_kept_beside_batch_work() -> None:
    world = World(TokenSchedulerOptions(prior=GUESS)).run(mixed(1), 30.0)
    alone = World(TokenSchedulerOptions(prior=GUESS)).run([a for a in mixed(1) if a.segment is DOCS], 30.0)
    assert world.attainment(VOICE) >= 0.95
    assert world.attainment(CHAT) >= 0.97
    batch, most = (sum(len(s.token_s) for s in w.of(DOCS)) for w in (world, alone))
    assert batch >= 0.35 * most, f"{batch} of {most} batch tokens"


def test_a_realtime_burst_inside_a_long_prefill_needs_the_guard() -> None:
    random = Random(5)
    burst = [Arrival(2.0 + t, VOICE, 12, 6) for t in poisson(random, 3.0, 20.0)]
    long = [Arrival(1.0 + 3.0 * i, DOCS, 2000, 4) for i in range(8)]
    first = [Arrival(0.0, VOICE, 12, 6)]
    guarded = World(TokenSchedulerOptions(prior=GUESS)).run(first + burst + long, 22.0)
    bare = World(TokenSchedulerOptions(prior=GUESS, arm_s=0.0)).run(first + burst + long, 22.0)
    assert guarded.attainment(VOICE) >= 0.95
    assert bare.attainment(VOICE) <= 0.6


def test_pausing_batch_in_place_keeps_the_gaps_of_chat() -> None:
    chat = [Arrival(3.0 + 0.7 * i, CHAT, 40, 20) for i in range(20)]
    docs = [Arrival(0.0, DOCS, 10, 400) for _ in range(120)]
    paused = World(TokenSchedulerOptions(prior=GUESS)).run(chat + docs, 18.0)
    bare = World(TokenSchedulerOptions(prior=GUESS, pause_batch=False)).run(chat + docs, 18.0)
    late = {w: sum(s.max_gap_s > 0.2 for s in w.of(CHAT) if s.token_s) for w in (paused, bare)}
    assert late[paused] == 0
    assert late[bare] >= 10
    assert paused.scheduler.load(18.0).num_evictions == 0


def test_overload_is_late_for_few_not_for_all() -> None:
    random = Random(7)
    chat = [Arrival(t, CHAT, random.randint(20, 100), 8) for t in poisson(random, 9.0, 40.0)]
    world = World(TokenSchedulerOptions(prior=GUESS)).run(chat, 40.0)
    assert 0.6 <= world.attainment(CHAT) <= 0.98


def test_a_flood_of_one_tenant_does_not_starve_another() -> None:
    flood = [Arrival(0.0, CHAT, 100, 4, "flood") for _ in range(200)]
    modest = [Arrival(1.0 + i, CHAT, 40, 4, "modest") for i in range(10)]
    world = World(TokenSchedulerOptions(prior=GUESS)).run(flood + modest, 14.0)
    waits = [s.ttft_s for s in world.of(CHAT) if s.arrival.tenant == "modest"]
    assert max(waits) <= 1.2, waits
    assert world.tokens_by["flood"] > 100


def test_memory_at_the_brim_loses_no_promise_and_no_work() -> None:
    docs = [Arrival(0.0, DOCS, 100, 60) for _ in range(40)]
    chat = [Arrival(2.0 + 0.5 * i, CHAT, 60, 10) for i in range(20)]
    voice = [Arrival(2.2 + 0.8 * i, VOICE, 12, 8) for i in range(12)]
    world = World(TokenSchedulerOptions(prior=GUESS), num_blocks=64).run(docs + chat + voice, 60.0)
    assert world.attainment(VOICE) >= 0.9
    assert world.attainment(CHAT) >= 0.95
    assert all(len(s.token_s) == s.arrival.outputs for s in world.served.values())
    load = world.scheduler.load(60.0)
    assert load.free_blocks == load.total_blocks
