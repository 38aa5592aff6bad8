"""What one decision costs: plan + commit per step at steady load, p50 and p99, without any model.

    python benchmarks/scheduler/decision_cost.py [--quick] [--json PATH]

Each row holds `running` decodes (a quarter real-time, half interactive, a quarter batch) and `waiting` prompts; what
finishes is replaced, so that both numbers stay. `load` and `add` are timed beside it. All times are CPU time of the
thread, so that other work on the machine does not count. The garbage collector is set as `speciate serve` sets it.
"""

import argparse
import json
import platform
import time
from pathlib import Path

from speciate.core.engine import TokenEngineShape
from speciate.core.scheduler import StepOutcome, TokenWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.runtime.garbage import collect_seldom
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.token import TokenScheduler

SEGMENTS = {
    Tier.REALTIME: Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05)),
    Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1), jitter_buffer=1.0),
    Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=86_400.0)),
}
STEP_S = 0.02
PROMPT = 256
OUTPUT = 200


class Rig:
    """A scheduler, a clock that jumps by one step, and clients that replace what ends."""

    def __init__(self, num_running: int) -> None:
        shape = TokenEngineShape(
            model="none",
            vocab_size=32_000,
            context_tokens=4096,
            block_tokens=16,
            num_blocks=(num_running + 8) * 40,
            block_bytes=1,
            eos_token_ids=(),
            max_step_sequences=num_running,
        )
        self.scheduler = TokenScheduler(shape, TokenSchedulerOptions())
        self.now_s = 0.0
        self.num_added = 0
        self.num_outputs: dict[int, int] = {}

    def add(self, tier: Tier) -> float:
        """Queue one prompt; returns the seconds it took."""
        self.num_added += 1
        seq_id = self.num_added
        work = TokenWork(
            seq_id=seq_id,
            prompt_tokens=tuple((seq_id * 7919 + i) % 32_000 for i in range(PROMPT)),
            segment=SEGMENTS[tier],
            arrival_s=self.now_s,
            max_tokens=OUTPUT,
            tenant=f"t{seq_id % 20}",
        )
        self.num_outputs[seq_id] = OUTPUT // 2 + seq_id * 31 % (OUTPUT // 2)
        began = time.thread_time()
        self.scheduler.add(work, self.now_s)
        return time.thread_time() - began

    def step(self) -> tuple[float, int, int]:
        """(seconds of plan and commit, sequences in the step, sequences that finished)."""
        began = time.thread_time()
        decision = self.scheduler.plan(self.now_s)
        planned = time.thread_time() - began
        plan = decision.plan
        if plan is None:
            raise SystemExit("nothing to run: the rig is wrong")
        tokens, finished = [], set()
        for step in plan.sequences:
            if step.samples:
                tokens.append((step.seq_id, 1))
                self.num_outputs[step.seq_id] -= 1
                if self.num_outputs[step.seq_id] == 0:
                    finished.add(step.seq_id)
        self.now_s += STEP_S
        outcome = StepOutcome(plan, STEP_S, tuple(tokens), frozenset(finished))
        began = time.thread_time()
        self.scheduler.commit(outcome, self.now_s)
        return planned + time.thread_time() - began, len(plan.sequences), len(finished)


def measure(num_running: int, num_waiting: int, num_steps: int) -> dict[str, float]:
    """One row of the table, in microseconds."""
    rig = Rig(num_running)
    tiers = [Tier.REALTIME, Tier.INTERACTIVE, Tier.INTERACTIVE, Tier.BATCH]
    add_s = [rig.add(tiers[i % 4]) for i in range(num_running)]
    for _ in range(20):
        rig.step()
    add_s += [rig.add(Tier.INTERACTIVE if i % 4 == 0 else Tier.BATCH) for i in range(num_waiting)]
    step_s, load_s, num_sequences = [], [], 0
    collect_seldom()
    for _ in range(num_steps):
        spent_s, num, num_finished = rig.step()
        step_s.append(spent_s)
        num_sequences += num
        began = time.thread_time()
        rig.scheduler.load(rig.now_s)
        load_s.append(time.thread_time() - began)
        for i in range(num_finished):
            add_s.append(rig.add(tiers[(rig.num_added + i) % 4]))
    return {
        "running": num_running,
        "waiting": num_waiting,
        "sequences_per_step": round(num_sequences / num_steps, 1),
        "step_p50_us": _percentile_us(step_s, 0.5),
        "step_p99_us": _percentile_us(step_s, 0.99),
        "load_p50_us": _percentile_us(load_s, 0.5),
        "add_p50_us": _percentile_us(add_s, 0.5),
    }


def _percentile_us(seconds: list[float], share: float) -> float:
    return round(sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] * 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and rows")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    args = parser.parse_args()
    grid = [(8, 0), (64, 1000)] if args.quick else [(r, w) for r in (8, 64, 256) for w in (0, 1000, 10_000)]
    rows = [measure(running, waiting, 200 if args.quick else 1000) for running, waiting in grid]
    print("  ".join(f"{name:>18}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>18}" for value in row.values()))
    if args.json:
        args.json.write_text(json.dumps({"python": platform.python_version(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
