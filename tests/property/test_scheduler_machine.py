"""The token scheduler against a shadow memory, under random arrivals, aborts, lost steps and jumps of the clock.

The shadow remembers what stands at every slot of every block, as a real engine's KV would. Each planned step is
"computed" on it: every position that a sequence reads must hold exactly the sequence's own token with exactly its own
past. That one check catches lost writes, early sharing, two writers of a block, and recomputes that skip tokens.

Two drivers: hypothesis, which shrinks what it finds, and seeded random lives, which are longer and fill memory more.

Mutants planted by hand, each caught here by the check in brackets:
 1. half-filled blocks are published                             [crash in the key list]
 2. blocks are published when they are handed out                [reads someone else's KV]
 3. a prefix hit may cover the whole prompt                      [work is there and nothing runs]
 4. block keys are not chained to their parents                  [a block twice in one table]
 5. block keys ignore the salt                                   [reads someone else's KV]
 6. one block in seven is not retired                            [holders and reference counts]
 7. a shared idle block stays in the idle list                   [holders and reference counts]
 8. a forgotten block keeps its key                              [key table]
 9. abort frees the blocks of a running step at once             [sums of held blocks]
10. a sequence without a token advances                          [whether a step samples]
11. a step samples whenever it passes the prompt's end           [whether a step samples]
12. growth is one token late                                     [no place for a token]
13. real-time work is not pinned                                 [real-time evicted]
14. room for pinned work is not set aside                        [work is there and nothing runs]
15. sequences already in the step are evicted for equals         [a block that is written is shared]
16. no eviction at a standstill over blocks                      [work is there and nothing runs]
17. no batch progress when the budget is nil                     [work is there and nothing runs]
18. a relegated prompt goes back to its old queue                [a queue lost or doubled a sequence]
19. prompts that were only looked at are not put back            [a queue lost or doubled a sequence]
20. chunks do not count against the step's tokens                [max_step_tokens]
"""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speciate.core.engine import SequenceStep, StepPlan, TokenEngineShape
from speciate.core.scheduler import Decision, StepOutcome, TokenWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.scheduling.options import StepTimePrior, TokenSchedulerOptions
from speciate.scheduling.token import TokenScheduler

BLOCK = 4
CONTEXT = 64
FAST = StepTimePrior(base_s=0.004, decode_s=0.001, context_s=1e-5, prefill_s=0.001, prefill_context_s=1e-6)
SLOW = StepTimePrior(base_s=0.4, decode_s=0.1, context_s=1e-3, prefill_s=0.1, prefill_context_s=1e-4)
SEGMENTS = (
    Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05)),
    Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1), jitter_buffer=1.0),
    Segment("code", Tier.INTERACTIVE, Slo(ttft_s=0.3), preemptible=False),
    Segment("whenever", Tier.INTERACTIVE, Slo()),
    Segment("docs", Tier.BATCH, Slo(e2e_s=60.0)),
    Segment("bulk", Tier.BATCH, Slo()),
    Segment("kept", Tier.BATCH, Slo(), preemptible=False),
)
STEMS = ((), (1,) * 8, (1,) * 4 + (2,) * 8)
"""Beginnings that prompts share."""


@dataclass(slots=True)
class Client:
    """What the outside knows of one sequence."""

    work: TokenWork
    num_outputs: int
    """It ends after so many tokens."""
    tier: Tier
    tokens: list[int] = field(default_factory=list)
    was_relegated: bool = False


def next_token(history: tuple[int, ...]) -> int:
    """The 'model': a token that depends on all before it."""
    return (hash(history) & 0xFF) + 1000


def written(step: SequenceStep) -> set[tuple[int, int]]:
    """(block, slot) of every position that it computes."""
    return {(step.block_ids[p // BLOCK], p % BLOCK) for p in range(step.start, step.start + len(step.tokens))}


class ShadowMemory:
    """Blocks as an engine sees them: at each slot the whole history that its KV stands for."""

    def __init__(self, num_blocks: int) -> None:
        self.slots: list[list[tuple[str, tuple[int, ...]] | None]] = [[None] * BLOCK for _ in range(num_blocks)]

    def run(self, step: SequenceStep, salt: str, expected: list[int]) -> int:
        """Compute one sequence's share; returns the token after it."""
        end = step.start + len(step.tokens)
        assert list(step.tokens) == expected[step.start : end]
        assert len(step.block_ids) * BLOCK >= end
        assert len(set(step.block_ids)) == len(step.block_ids)
        for position in range(step.start):
            history = self.slots[step.block_ids[position // BLOCK]][position % BLOCK]
            assert history == (salt, tuple(expected[: position + 1])), f"position {position} reads someone else's KV"
        for position in range(step.start, end):
            self.slots[step.block_ids[position // BLOCK]][position % BLOCK] = (salt, tuple(expected[: position + 1]))
        return next_token(tuple(expected[:end]))

    def spoil(self, step: SequenceStep) -> None:
        for block, slot in written(step):
            self.slots[block][slot] = None


class Replica:
    """Drives `TokenScheduler` as a replica does, and checks everything it is told."""

    def __init__(self, num_blocks: int, max_step_tokens: int, max_step_sequences: int, **options: object) -> None:
        self.shape = TokenEngineShape(
            model="m",
            vocab_size=2000,
            context_tokens=CONTEXT,
            block_tokens=BLOCK,
            num_blocks=num_blocks,
            block_bytes=1,
            eos_token_ids=(),
            max_step_tokens=max_step_tokens,
            max_step_sequences=max_step_sequences,
        )
        self.scheduler = TokenScheduler(self.shape, TokenSchedulerOptions(**options))
        self.shadow = ShadowMemory(num_blocks)
        self.clients: dict[int, Client] = {}
        self.started: set[int] = set()
        self.decision: Decision | None = None
        self.num_added = 0
        self.num_evicted = 0
        self.now_s = 0.0

    def add(
        self, segment: Segment, prompt: tuple[int, ...], num_outputs: int, spare: int, copies: int, **fields: object
    ) -> None:
        room = min(CONTEXT, self.shape.num_blocks * BLOCK)
        prompt = (prompt or (1,))[: room - 1]
        max_tokens = min(num_outputs + spare, room - len(prompt))
        for _ in range(copies):
            seq_id = self.num_added
            self.num_added += 1
            work = TokenWork(seq_id, prompt, segment, self.now_s, max_tokens, **fields)
            self.scheduler.add(work, self.now_s)
            self.clients[seq_id] = Client(work, min(num_outputs, max_tokens), segment.tier, list(prompt))
        self.check()

    def abort(self, seq_id: int) -> None:
        self.scheduler.abort(seq_id, self.now_s)
        del self.clients[seq_id]
        self.check()

    def plan(self) -> None:
        decision = self.scheduler.plan(self.now_s)
        for seq_id in decision.expired:
            deadline_s = self.clients.pop(seq_id).work.deadline_s
            assert deadline_s is not None
            assert deadline_s <= self.now_s
        self._check_notices(decision)
        if decision.plan is None:
            assert not self.clients, "work is there, nothing else constrains, and nothing runs"
        else:
            self._check_plan(decision.plan)
            self.decision = decision
        self.check()

    def commit(self, factor: float = 1.0, is_lossy: bool = False) -> None:
        """The step took `factor` of what was predicted; a lossy one gives no tokens."""
        assert self.decision is not None
        assert self.decision.plan is not None
        plan, observed_s = self.decision.plan, max(1e-4, self.decision.predicted_s * factor)
        self.decision = None
        self.now_s += observed_s
        tokens: list[tuple[int, int]] = []
        finished = set()
        for step in plan.sequences:
            client = self.clients.get(step.seq_id)
            if client is None:
                self.shadow.spoil(step)  # aborted while the step ran: nobody may read what it wrote
            elif step.samples and is_lossy:
                self.shadow.spoil(step)
            else:
                token = self.shadow.run(step, client.work.cache_salt, client.tokens)
                if step.samples:
                    tokens.append((step.seq_id, token))
                    client.tokens.append(token)
                    if len(client.tokens) - len(client.work.prompt_tokens) == client.num_outputs:
                        finished.add(step.seq_id)
                        del self.clients[step.seq_id]
        self.scheduler.commit(StepOutcome(plan, observed_s, tuple(tokens), frozenset(finished)), self.now_s)
        self.check()

    def check(self) -> None:
        self.scheduler.check()
        tiers = self.scheduler.load(self.now_s).tiers
        assert sum(tier.num_waiting + tier.num_running for tier in tiers.values()) == len(self.clients)

    def drain(self) -> None:
        """When arrivals stop everything finishes, and every block comes back."""
        for _ in range(50_000):
            if self.decision is not None:
                self.commit()
            elif self.clients:
                self.plan()
            else:
                break
        assert not self.clients, f"{len(self.clients)} sequences starve"
        load = self.scheduler.load(self.now_s)
        assert load.free_blocks == load.total_blocks

    def _check_notices(self, decision: Decision) -> None:
        for seq_id, tier in decision.relegated:
            client = self.clients[seq_id]
            assert client.work.may_downgrade
            assert not client.was_relegated
            assert seq_id not in self.started
            client.tier, client.was_relegated = tier, True
        for seq_id in decision.evicted:
            assert self.clients[seq_id].tier is not Tier.REALTIME
            assert self.clients[seq_id].work.segment.preemptible
            self.num_evicted += 1
        for start in decision.started:
            assert start.seq_id not in self.started
            assert start.cached_tokens < len(self.clients[start.seq_id].work.prompt_tokens)
            assert start.cached_tokens % BLOCK == 0
            self.started.add(start.seq_id)

    def _check_plan(self, plan: StepPlan) -> None:
        assert 0 < plan.num_tokens <= self.shape.max_step_tokens
        assert len(plan.sequences) <= self.shape.max_step_sequences
        ids = [step.seq_id for step in plan.sequences]
        assert len(set(ids)) == len(ids)
        assert set(ids) <= self.started
        for step in plan.sequences:
            client = self.clients[step.seq_id]
            assert step.samples == (step.start + len(step.tokens) == len(client.tokens))
            blocks = {block for block, _ in written(step)}
            others = {b for other in plan.sequences if other is not step for b in other.block_ids}
            assert not blocks & others, "a block that is written is shared"


class SchedulerMachine(RuleBasedStateMachine):
    """Hypothesis plays the world of a `Replica`."""

    @initialize(
        num_blocks=st.integers(2, 20),
        step_tokens=st.integers(3, 40),
        step_sequences=st.integers(1, 8),
        prefix_cache=st.booleans(),
        arm_s=st.sampled_from([0.0, 30.0]),
        pause_batch=st.booleans(),
        min_chunk=st.sampled_from([1, 4, 32]),
        prior=st.sampled_from([FAST, SLOW]),
    )
    def setup(self, num_blocks: int, step_tokens: int, step_sequences: int, min_chunk: int, **options: object) -> None:
        self.replica = Replica(num_blocks, step_tokens, step_sequences, min_chunk_tokens=min_chunk, **options)

    @rule(
        segment=st.sampled_from(SEGMENTS),
        stem=st.sampled_from(STEMS),
        tail=st.lists(st.integers(1, 3), max_size=12),
        num_outputs=st.one_of(st.integers(1, 4), st.integers(8, 40)),
        spare=st.integers(0, 6),
        tenant=st.sampled_from("abc"),
        deadline=st.one_of(st.none(), st.floats(0.01, 5.0)),
        may_downgrade=st.booleans(),
        cache_salt=st.sampled_from(["", "", "adapter"]),
        copies=st.sampled_from([1, 1, 1, 3]),
    )
    def add(
        self, segment: Segment, stem: tuple[int, ...], tail: list[int], deadline: float | None, **fields: object
    ) -> None:
        deadline_s = None if deadline is None else self.replica.now_s + deadline
        self.replica.add(segment, (*stem, *tail), deadline_s=deadline_s, **fields)

    @precondition(lambda self: self.replica.clients)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.replica.abort(data.draw(st.sampled_from(sorted(self.replica.clients))))

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.replica.now_s += seconds

    @precondition(lambda self: self.replica.decision is None)
    @rule()
    def plan(self) -> None:
        self.replica.plan()

    @precondition(lambda self: self.replica.decision is not None)
    @rule(factor=st.sampled_from([0.5, 1.0, 1.0, 1.2, 10.0]), is_lossy=st.sampled_from([False] * 9 + [True]))
    def commit(self, factor: float, is_lossy: bool) -> None:
        self.replica.commit(factor, is_lossy)

    @rule(num=st.integers(1, 8))
    def run(self, num: int) -> None:
        """Several steps in a row, as most of a replica's life."""
        for _ in range(num):
            if self.replica.decision is not None:
                self.replica.commit()
            self.replica.plan()

    @invariant()
    def adds_up(self) -> None:
        if hasattr(self, "replica"):
            self.replica.check()

    def teardown(self) -> None:
        if hasattr(self, "replica"):
            self.replica.drain()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


class DeepSchedulerMachine(SchedulerMachine):
    """The same, for longer."""


TestSchedulerDeep = pytest.mark.timeout(1800)(pytest.mark.slow(DeepSchedulerMachine.TestCase))
TestSchedulerDeep.settings = settings(
    max_examples=600, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)


def live(seed: int, num_events: int = 60) -> Replica:
    """One life from a seed: some hours of a tiny device, then the drain."""
    random = Random(seed)
    replica = Replica(
        random.randint(2, 20),
        random.randint(3, 40),
        random.randint(1, 8),
        prefix_cache=random.random() < 0.5,
        arm_s=random.choice([0.0, 30.0]),
        pause_batch=random.random() < 0.5,
        min_chunk_tokens=random.choice([1, 4, 32]),
        prior=random.choice([FAST, SLOW]),
    )
    segments = random.sample(SEGMENTS, random.randint(1, len(SEGMENTS)))
    business = random.random()
    for _ in range(num_events):
        event = random.random() / business
        if event < 0.35:
            add_something(random, replica, random.choice(segments))
        elif event < 0.4 and replica.clients:
            replica.abort(random.choice(sorted(replica.clients)))
        elif event < 0.45:
            replica.now_s += random.choice([0.001, 0.05, 0.5, 3.0])
        elif replica.decision is None:
            replica.plan()
        else:
            replica.commit(random.choice([0.5, 1.0, 1.0, 1.2, 10.0]), random.random() < 0.05)
    replica.drain()
    return replica


def add_something(random: Random, replica: Replica, segment: Segment) -> None:
    tail = tuple(random.randint(1, 3) for _ in range(random.randint(0, 12)))
    replica.add(
        segment,
        random.choice(STEMS) + tail,
        num_outputs=random.choice([random.randint(1, 4), random.randint(8, 40)]),
        spare=random.randint(0, 6),
        copies=random.choice([1] * 12 + [3, 3, 3, 20]),
        tenant=random.choice("abc"),
        deadline_s=random.choice([None, None, replica.now_s + random.uniform(0.01, 5.0)]),
        may_downgrade=random.random() < 0.5,
        cache_salt=random.choice(["", "", "adapter"]),
    )


def test_random_lives() -> None:
    num_evicted = sum(live(seed).num_evicted for seed in range(80))
    assert num_evicted > 20, "these lives must fill memory to mean anything"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_random_lives() -> None:
    for seed in range(1000, 5000):
        live(seed)
