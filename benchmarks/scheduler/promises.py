"""What the guard and pausing are worth: one device under a virtual clock, three tiers, and a batch backlog.

    python benchmarks/scheduler/promises.py [--quick] [--json PATH]

A request counts as kept if its first token was in time and at most 1 % of its tokens came after `first + n x TPOT`.
Step times come from two cost models with noise; the scheduler knows neither. Lengths: real-time 64 to 256 prompt and
8 to 32 output tokens; interactive and batch log-normal around 1155 and 211 (the means of Azure's 2023 conversation
trace). On the slow device interactive and batch are 0.05 times as long, real-time prompts 0.1 and outputs half.
"""

import argparse
import json
from dataclasses import dataclass, field
from math import log, sqrt
from pathlib import Path
from random import Random
from statistics import mean

from speciate.core.engine import StepPlan, TokenEngineShape
from speciate.core.scheduler import StepOutcome, TokenWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.step_costs import StepCosts, StepFeatures
from speciate.scheduling.token import TokenScheduler

VOICE = Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05))
CHAT = Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1), jitter_buffer=1.0)
DOCS = Segment("docs", Tier.BATCH, Slo(e2e_s=86_400.0))
FAST = StepCosts(base_s=0.008, decode_s=5e-5, context_s=8.5e-8, prefill_s=8e-5, prefill_context_s=1e-8)
SLOW = StepCosts(base_s=0.008, decode_s=0.0015, context_s=1e-7, prefill_s=0.0015, prefill_context_s=1e-8)
DEVICES = {"fast": (FAST, 1.0), "slow": (SLOW, 0.05)}
VARIANTS = {
    "all": TokenSchedulerOptions(),
    "no guard": TokenSchedulerOptions(arm_s=0.0),
    "no pausing": TokenSchedulerOptions(pause_batch=False),
    "neither": TokenSchedulerOptions(arm_s=0.0, pause_batch=False),
}


@dataclass(slots=True)
class Request:
    """One request and when its tokens came."""

    at_s: float
    segment: Segment
    prompt: int
    outputs: int
    token_s: list[float] = field(default_factory=list)

    def is_kept(self) -> bool:
        slo, times = self.segment.slo, self.token_s
        if len(times) < self.outputs or times[0] - self.at_s > (slo.ttft_s or 0.0):
            return False
        late = sum(at_s > times[0] + n * (slo.tpot_s or 0.0) + 1e-9 for n, at_s in enumerate(times))
        return late <= 0.01 * len(times)


def trace(random: Random, scale: float, until_s: float, chat_per_s: float) -> list[Request]:
    """Real-time 2/s; chat in a square wave of 0.5 and 1.5 times its rate; 3,000 documents at the start."""
    requests = []
    for at_s in arrivals(random, 2.0, until_s):
        prompt, outputs = int(random.randint(64, 256) * (scale * 2 if scale < 1 else 1)), random.randint(8, 32)
        requests.append(Request(at_s, VOICE, prompt, max(2, outputs // (2 if scale < 1 else 1))))
    chats = [t for t in arrivals(random, 1.5 * chat_per_s, until_s) if int(t) // 30 % 2 or random.random() < 1 / 3]
    requests += [Request(at_s, CHAT, *lengths(random, scale)) for at_s in chats]
    requests += [Request(0.0, DOCS, *lengths(random, scale)) for _ in range(3000)]
    return sorted(requests, key=lambda request: request.at_s)


def arrivals(random: Random, rate: float, until_s: float) -> list[float]:
    times, now_s = [], 0.0
    while (now_s := now_s + random.expovariate(rate)) < until_s:
        times.append(now_s)
    return times


def lengths(random: Random, scale: float) -> tuple[int, int]:
    prompt = min(4000, log_normal(random, 1020, 1155))
    outputs = min(1000, log_normal(random, 129, 211))
    return max(4, int(prompt * scale)), max(2, int(outputs * scale))


def log_normal(random: Random, median: float, average: float) -> float:
    return random.lognormvariate(log(median), sqrt(2 * log(average / median)))


class Device:
    """Serves a trace on a virtual clock."""

    def __init__(self, costs: StepCosts, options: TokenSchedulerOptions, noise: float, seed: int) -> None:
        self._costs, self._noise, self._random = costs, noise, Random(seed)
        shape = TokenEngineShape(
            model="m",
            vocab_size=1000,
            context_tokens=8192,
            block_tokens=16,
            num_blocks=4000,
            block_bytes=1,
            eos_token_ids=(),
        )
        self.scheduler = TokenScheduler(shape, options)
        self._now_s = 0.0
        self._requests: list[Request] = []

    def serve(self, requests: list[Request], until_s: float) -> None:
        self._requests = requests
        num_added = 0
        while self._now_s < until_s:
            while num_added < len(requests) and requests[num_added].at_s <= self._now_s:
                self._add(num_added)
                num_added += 1
            decision = self.scheduler.plan(self._now_s)
            if decision.plan is not None:
                self._compute(decision.plan)
            else:
                self._now_s = requests[num_added].at_s if num_added < len(requests) else until_s

    def _add(self, index: int) -> None:
        request = self._requests[index]
        prompt = tuple((index * 31 + i) % 997 for i in range(request.prompt))
        most = 1000 if self._costs is FAST else 60
        self.scheduler.add(TokenWork(index, prompt, request.segment, request.at_s, most), self._now_s)

    def _compute(self, plan: StepPlan) -> None:
        observed_s = self._costs.predict_s(self._features(plan)) * max(0.3, self._random.gauss(1.0, self._noise))
        self._now_s += observed_s
        tokens, finished = [], set()
        for step in plan.sequences:
            request = self._requests[step.seq_id]
            if step.samples:
                request.token_s.append(self._now_s)
                tokens.append((step.seq_id, 1))
                if len(request.token_s) == request.outputs:
                    finished.add(step.seq_id)
        self.scheduler.commit(StepOutcome(plan, observed_s, tuple(tokens), frozenset(finished)), self._now_s)

    def _features(self, plan: StepPlan) -> StepFeatures:
        decodes = context = prefill = 0
        pairs = 0.0
        for step in plan.sequences:
            num = len(step.tokens)
            if step.start >= self._requests[step.seq_id].prompt:
                decodes, context = decodes + 1, context + step.start
            else:
                prefill, pairs = prefill + num, pairs + num * (step.start + num / 2)
        return StepFeatures(decodes, context, prefill, pairs)


def measure(
    device: str, variant: str, noise: float, chat_per_s: float, seeds: int, until_s: float
) -> dict[str, object]:
    """One row: means over seeds."""
    costs, scale = DEVICES[device]
    kept: dict[str, list[float]] = {VOICE.name: [], CHAT.name: []}
    output_rate, gammas = [], []
    for seed in range(1, seeds + 1):
        requests = trace(Random(seed), scale, until_s, chat_per_s)
        served = Device(costs, VARIANTS[variant], noise, seed)
        served.serve(requests, until_s)
        for segment in (VOICE, CHAT):
            due = [r for r in requests if r.segment is segment and r.at_s < until_s - 20.0]
            kept[segment.name].append(mean(r.is_kept() for r in due))
        output_rate.append(sum(len(r.token_s) for r in requests if r.segment is DOCS) / until_s)
        gammas.append(served.scheduler.load(until_s).margin)
    return {
        "device": device,
        "variant": variant,
        "noise": noise,
        "chat_per_s": chat_per_s,
        "realtime_kept_%": round(100 * mean(kept[VOICE.name]), 1),
        "interactive_kept_%": round(100 * mean(kept[CHAT.name]), 1),
        "batch_tok_per_s": round(mean(output_rate)),
        "margin": round(mean(gammas), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, 60 s")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    args = parser.parse_args()
    seeds, until_s = (1, 60.0) if args.quick else (2, 150.0)
    cases = [(device, variant, 0.03, 2.0) for device in DEVICES for variant in VARIANTS]
    cases += [(device, "all", 0.15, 2.0) for device in DEVICES] + [(device, "all", 0.03, 5.0) for device in DEVICES]
    rows = []
    for case in cases:
        rows.append(measure(*case, seeds, until_s))
        if len(rows) == 1:
            print("  ".join(f"{name:>18}" for name in rows[0]))
        print("  ".join(f"{value!s:>18}" for value in rows[-1].values()), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"seeds": seeds, "seconds": until_s, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
