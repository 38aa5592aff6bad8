"""Every baseline keeps the books and reads the right KV, under pressure; and each decides as its source does."""

import random
from collections.abc import Callable

import pytest

from speciate.core.engine import SequenceSpec, StepPlan, TokenEngineShape
from speciate.core.request import SamplingParams
from speciate.core.scheduler import Decision, StepOutcome, StepScheduler, TokenWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.engines.fake import FakeEngine, expected_tokens
from speciate.scheduling.baselines.aimd import AimdGateway, AimdOptions
from speciate.scheduling.baselines.edf import edf
from speciate.scheduling.baselines.fcfs import fcfs
from speciate.scheduling.baselines.qoserve import QoServeOptions, qoserve
from speciate.scheduling.baselines.sglang import SglangOptions, sglang, sglang_mixed
from speciate.scheduling.baselines.vllm_priority import vllm_priority
from speciate.scheduling.options import StepTimePrior, TokenSchedulerOptions

PRIOR = StepTimePrior(base_s=0.004, decode_s=0.001, context_s=1e-5, prefill_s=0.001, prefill_context_s=1e-6)
SEGMENTS = {
    Tier.REALTIME: Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05), preemptible=False),
    Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1)),
    Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=60.0)),
}
OPTIONS = TokenSchedulerOptions(prior=PRIOR)
Build = Callable[[TokenEngineShape], StepScheduler]

BASELINES: dict[str, Build] = {
    "fcfs": lambda shape: fcfs(shape, OPTIONS, step_tokens=8),
    "vllm": lambda shape: vllm_priority(shape, OPTIONS, step_tokens=8),
    "edf": lambda shape: edf(shape, OPTIONS, step_tokens=8),
    "sglang": lambda shape: sglang(shape, OPTIONS, SglangOptions(chunk_tokens=8)),
    "sglang-mixed": lambda shape: sglang_mixed(shape, OPTIONS, SglangOptions(chunk_tokens=8)),
    "qoserve": lambda shape: qoserve(shape, OPTIONS, QoServeOptions()),
    "aimd": lambda shape: AimdGateway(fcfs(shape, OPTIONS, step_tokens=8), AimdOptions(interval_s=0.05)),
}


def make_shape(num_blocks: int = 24) -> TokenEngineShape:
    return TokenEngineShape(
        model="fake",
        vocab_size=500,
        context_tokens=64,
        block_tokens=4,
        num_blocks=num_blocks,
        block_bytes=1,
        eos_token_ids=(),
        max_step_tokens=64,
        max_step_sequences=8,
    )


class Bench:
    """A scheduler, an engine that reads KV through the block tables, and a clock."""

    def __init__(self, shape: TokenEngineShape, scheduler: StepScheduler) -> None:
        self.scheduler = scheduler
        self.engine = FakeEngine(shape, wait=lambda seconds: None)
        self.now_s = 0.0
        self.works: dict[int, TokenWork] = {}
        self.outputs: dict[int, list[int]] = {}
        self.plans: list[StepPlan] = []
        self.evicted: list[int] = []

    def add(self, tier: Tier, prompt: tuple[int, ...], num_outputs: int, arrival_s: float | None = None) -> int:
        seq_id = len(self.outputs) + 1
        arrival_s = self.now_s if arrival_s is None else arrival_s
        work = TokenWork(seq_id, prompt, SEGMENTS[tier], arrival_s, num_outputs)
        self.engine.add(SequenceSpec(seq_id, prompt, SamplingParams()))
        self.scheduler.add(work, self.now_s)
        self.works[seq_id] = work
        self.outputs[seq_id] = []
        return seq_id

    def abort(self, seq_id: int) -> None:
        self.scheduler.abort(seq_id, self.now_s)
        del self.works[seq_id]

    def step(self, between: Callable[[], None] = lambda: None) -> Decision:
        decision = self.scheduler.plan(self.now_s)
        self.scheduler.check()
        self.evicted += decision.evicted
        if decision.plan is not None:
            self.plans.append(decision.plan)
            self._run(decision.plan, between)
        return decision

    def _run(self, plan: StepPlan, between: Callable[[], None]) -> None:
        samples = self.engine.step(plan).samples
        between()
        finished = set()
        for sample in samples:
            if (work := self.works.get(sample.seq_id)) is not None:
                self.outputs[sample.seq_id].append(sample.token_id)
                if len(self.outputs[sample.seq_id]) == work.max_tokens:
                    finished.add(sample.seq_id)
                    del self.works[sample.seq_id]
        self.now_s += 0.004 + 0.001 * plan.num_tokens
        tokens = tuple((sample.seq_id, sample.token_id) for sample in samples)
        self.scheduler.commit(
            StepOutcome(plan, 0.004 + 0.001 * plan.num_tokens, tokens, frozenset(finished)), self.now_s
        )
        self.scheduler.check()

    def finish(self, most_steps: int = 3000) -> None:
        for _ in range(most_steps):
            if not self.works:
                return
            self.step()
        raise AssertionError(f"{len(self.works)} sequences starve")

    def sequences_of(self, index: int) -> list[int]:
        return [step.seq_id for step in self.plans[index].sequences]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("seed", range(4))
def test_books_balance_and_kv_reads_are_right(name: str, seed: int) -> None:
    draw = random.Random(seed)
    shape = make_shape(draw.choice([16, 24, 60]))
    bench = Bench(shape, BASELINES[name](shape))
    stems: list[tuple[int, ...]] = [(), (1,) * 8, (1,) * 4 + (2,) * 8]
    wanted: dict[int, tuple[tuple[int, ...], int]] = {}
    for _ in range(50):
        prompt = draw.choice(stems) + tuple(draw.randint(1, 3) for _ in range(draw.randint(1, 12)))
        num = draw.randint(1, 20)
        wanted[bench.add(draw.choice(list(Tier)), prompt, num)] = (prompt, num)
        for _ in range(draw.choice([0, 0, 1, 3])):
            leaver = draw.choice(sorted(bench.works)) if bench.works and draw.random() < 0.1 else None
            bench.step(lambda leaver=leaver: bench.abort(leaver) if leaver is not None else None)
            if leaver is not None:
                wanted.pop(leaver, None)
    bench.finish()
    for seq_id, (prompt, num) in wanted.items():
        assert tuple(bench.outputs[seq_id]) == expected_tokens(prompt, num, shape)
    load = bench.scheduler.load(bench.now_s)
    assert load.free_blocks == load.total_blocks


def test_fcfs_never_lets_a_later_arrival_overtake() -> None:
    bench = Bench(make_shape(), BASELINES["fcfs"](make_shape()))
    late = bench.add(Tier.BATCH, (1,) * 30, 2)
    urgent = bench.add(Tier.REALTIME, (2,) * 4, 2)
    bench.step()
    assert bench.sequences_of(0) == [late]
    bench.finish()
    assert bench.outputs[urgent]


def test_vllm_orders_the_waiting_by_priority_but_spares_the_running() -> None:
    shape = make_shape(8)
    bench = Bench(shape, BASELINES["vllm"](shape))
    batch = bench.add(Tier.BATCH, (1,) * 20, 8)
    for _ in range(4):
        bench.step()
    urgent = bench.add(Tier.REALTIME, (2,) * 16, 2)
    bench.step()
    assert urgent not in bench.sequences_of(-1), "a waiting request never displaces a running one"
    assert batch in bench.sequences_of(-1)
    bench.finish()


def test_vllm_evicts_the_least_important_when_a_decode_lacks_a_block() -> None:
    shape = make_shape(8)
    bench = Bench(shape, BASELINES["vllm"](shape))
    urgent = bench.add(Tier.REALTIME, (2,) * 12, 16)
    batch = bench.add(Tier.BATCH, (1,) * 12, 16)
    bench.finish()
    assert batch in bench.evicted
    assert urgent not in bench.evicted


def test_sglang_evicts_running_batch_for_a_waiting_prompt_and_stalls_decodes() -> None:
    shape = make_shape(8)
    bench = Bench(shape, BASELINES["sglang"](shape))
    batch = bench.add(Tier.BATCH, (1,) * 20, 8)
    for _ in range(4):
        bench.step()
    urgent = bench.add(Tier.REALTIME, (2,) * 16, 2)
    bench.step()
    assert bench.evicted == [batch]
    assert bench.sequences_of(-1) == [urgent]


def test_sglang_prefills_first_and_mixes_only_when_told() -> None:
    plans = {}
    for name in ("sglang", "sglang-mixed"):
        bench = Bench(make_shape(60), BASELINES[name](make_shape(60)))
        first = bench.add(Tier.INTERACTIVE, (1,) * 4, 8)
        bench.step()
        second = bench.add(Tier.INTERACTIVE, (2,) * 4, 8)
        bench.step()
        plans[name] = set(bench.sequences_of(-1))
    assert plans == {"sglang": {second}, "sglang-mixed": {first, second}}


def test_edf_takes_the_earliest_deadline() -> None:
    bench = Bench(make_shape(60), BASELINES["edf"](make_shape(60)))
    batch = bench.add(Tier.BATCH, (1,) * 30, 2)
    urgent = bench.add(Tier.REALTIME, (2,) * 8, 2)
    bench.step()
    assert bench.sequences_of(0) == [urgent]
    bench.finish()
    assert len(bench.outputs[batch]) == 2


def test_qoserve_sends_hopeless_prompts_behind_the_others() -> None:
    bench = Bench(make_shape(60), BASELINES["qoserve"](make_shape(60)))
    bench.now_s = 10.0
    hopeless = bench.add(Tier.REALTIME, (1,) * 30, 2, arrival_s=0.0)
    fresh = bench.add(Tier.INTERACTIVE, (2,) * 8, 2)
    bench.step()
    assert bench.sequences_of(0) == [fresh, hopeless]


def test_qoserve_sizes_its_chunk_by_the_slack_of_decodes() -> None:
    shape = make_shape(60)
    bench = Bench(shape, qoserve(shape, OPTIONS, QoServeOptions()))
    bench.add(Tier.INTERACTIVE, (1,) * 4, 8)
    bench.step()
    bench.add(Tier.BATCH, (2,) * 40, 2)
    bench.step()
    assert len(bench.plans[1].sequences) == 2, "slack of a decode just begun is a whole TTFT: room for the chunk"


def test_aimd_halves_its_window_when_online_work_is_late_and_grows_when_it_is_not() -> None:
    shape = make_shape(60)
    gateway = AimdGateway(fcfs(shape, OPTIONS, step_tokens=64), AimdOptions(interval_s=0.01, first_window=4))
    bench = Bench(shape, gateway)
    for _ in range(12):
        bench.add(Tier.BATCH, (1,) * 4, 30)
    for _ in range(3):
        bench.step()
    assert [len(plan.sequences) for plan in bench.plans] == [5, 6, 7]
    bench.add(Tier.REALTIME, (3,) * 4, 1, arrival_s=bench.now_s - 1.0)
    for _ in range(3):
        bench.step()
    waiting = gateway.load(bench.now_s).tiers[Tier.BATCH].num_waiting
    assert waiting == 12 - 8, "nothing new enters: the window is half of the eight inside"
    bench.finish()
