"""What passes between two steps: `python -m benchmarks.overhead.step_gaps [--json PATH] [--seconds 15]`.

The server's own parts in one process, without sockets: batch lines through the dialect code, gateway, admission,
scheduler and pocket model, a fixed number of lines at a time. The engine is wrapped by a clock. A gap is what the
device waits while there is work: from a step's end to the next one's beginning.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from msgspec import Struct

from speciate.api.auth import KeyRing
from speciate.api.batches_lines import LineRunner
from speciate.api.call import Services
from speciate.assembly import Server, api_options, build_server, load_model
from speciate.batch.line_job import LineJob
from speciate.bench.machine import describe_machine
from speciate.bench.report import percentile
from speciate.config import ModelSettings, Settings
from speciate.core.engine import SequenceSpec, StepEngine, StepPlan, StepResult, TokenEngineShape
from speciate.models.pocket.tasks import extraction_request
from speciate.runtime.garbage import collect_seldom

KINDS = ("invoice", "ticket", "sensor_log")
MOST_OUTPUT_TOKENS = 200
RAMP_S = 3.0


class TimedStep(Struct, frozen=True, gc=False):
    """Seconds of the process's clock."""

    began_s: float
    ended_s: float
    num_sequences: int


class ClockedEngine:
    """Implements `StepEngine`; notes when steps begin and end."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine
        self.steps: list[TimedStep] = []

    @property
    def shape(self) -> TokenEngineShape:
        return self._engine.shape

    def add(self, sequence: SequenceSpec) -> None:
        self._engine.add(sequence)

    def step(self, plan: StepPlan) -> StepResult:
        began_s = time.perf_counter()
        result = self._engine.step(plan)
        self.steps.append(TimedStep(began_s, time.perf_counter(), len(plan.sequences)))
        return result

    def remove(self, seq_id: int) -> None:
        self._engine.remove(seq_id)

    def close(self) -> None:
        self._engine.close()


def main() -> None:
    """Run, print, write."""
    given = _arguments()
    settings = Settings(models=(ModelSettings(name="pocket"),))
    model = load_model(settings.models[0])
    if model.engine is None:
        raise AssertionError("the pocket model writes text")
    engine = ClockedEngine(model.engine)
    server = build_server(settings, [msgspec.structs.replace(model, engine=engine)])
    collect_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lines_per_s = runner.run(_load(server, settings, given.lines, given.seconds))
    figures = _figures(engine.steps, given.seconds) | {"lines_per_s": round(lines_per_s, 2)}
    print(json.dumps(figures))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        document = figures | {"lines_at_once": given.lines, "machine": describe_machine()}
        given.json.write_text(json.dumps(document, indent=1) + "\n")


async def _load(server: Server, settings: Settings, num_lines: int, seconds: float) -> float:
    """Keep so many lines under way; lines done a second after the ramp."""
    server.start()
    run = LineRunner(Services(server.gateway, api_options(settings), KeyRing(()))).run
    rng, began_s, done = random.Random(0), time.perf_counter(), [0]

    async def keep_busy(number: int) -> None:
        while (elapsed_s := time.perf_counter() - began_s) < RAMP_S + seconds:
            body = _body(number, rng)
            await run(LineJob("/v1/chat/completions", body, "", 86_400.0, 86_400.0, f"line-{number}"))
            done[0] += elapsed_s > RAMP_S

    await asyncio.gather(*(keep_busy(number) for number in range(num_lines)))
    await server.stop()
    return done[0] / seconds


def _body(number: int, rng: random.Random) -> bytes:
    task = extraction_request(KINDS[number % len(KINDS)], rng, rng.randrange(80, 400))
    return msgspec.json.encode(
        {"model": "pocket", "messages": task.messages, "max_tokens": MOST_OUTPUT_TOKENS, "temperature": 0}
    )


def _figures(steps: Sequence[TimedStep], seconds: float) -> dict[str, Any]:
    """Of the steps after the ramp, while the load lasts."""
    first_s = steps[0].began_s + RAMP_S
    inner = [step for step in steps if first_s <= step.began_s <= first_s + seconds]
    gaps = [after.began_s - step.ended_s for step, after in itertools.pairwise(inner)]
    lengths = [step.ended_s - step.began_s for step in inner]
    wall_s = inner[-1].ended_s - inner[0].began_s
    return {
        "num_steps": len(inner),
        "sequences_a_step": round(statistics.fmean(step.num_sequences for step in inner), 1),
        "step_ms": _spread(lengths),
        "gap_ms": _spread(gaps),
        "busy_share": round(sum(lengths) / wall_s, 4),
    }


def _spread(values_s: Sequence[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    spread = {name: round(1000 * (percentile(values_s, share) or 0.0), 3) for name, share in shares.items()}
    return spread | {"mean": round(1000 * statistics.fmean(values_s), 3)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.overhead.step_gaps")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--lines", type=int, default=100, help="batch lines under way (default 100)")
    parser.add_argument("--seconds", type=float, default=15.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
