"""The compiled form (`make fast`) decides as the plain one does: every decision of every policy, and folded reports."""

import json
import subprocess
import sys
from filecmp import cmp
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILED = ROOT / "out" / "compiled"
DECIDE = """
import hashlib, sys
import msgspec
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.step_calibration import A100_LLAMA3_8B
from speciate.scheduling import token
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.sim.faults import Faults, Shift
from speciate.sim.policies import POLICIES, seats
from speciate.sim.simulation import Setting, simulate
from speciate.sim.workload import CONVERSATION, backlog, generate, merged, poisson, uniform

SEGMENTS = {
    Tier.REALTIME: Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05), preemptible=False),
    Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.05), jitter_buffer=0.5),
    Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=600.0)),
}
CALIBRATION = msgspec.structs.replace(A100_LLAMA3_8B, num_blocks=1500)


class Recorder:
    def __init__(self, scheduler, digest):
        self._scheduler, self._digest = scheduler, digest

    def plan(self, now_s):
        decision = self._scheduler.plan(now_s)
        self._digest.update(msgspec.json.encode(decision))
        return decision

    def __getattr__(self, name):
        return getattr(self._scheduler, name)


def requests():
    return merged(
        generate(Tier.REALTIME, poisson(1.0), uniform((64, 256), (8, 32)), duration_s=15, seed=4),
        generate(Tier.INTERACTIVE, poisson(2.0), CONVERSATION, duration_s=15, seed=4, tenants=("a", "b")),
        backlog(Tier.BATCH, 30, CONVERSATION, 4),
    )


def run(policy, record, has_cache):
    digest = hashlib.sha256()
    options = TokenSchedulerOptions(prefix_cache=has_cache)

    def build():
        made = seats(policy, CALIBRATION, options)
        if not record:
            return made
        return tuple(msgspec.structs.replace(s, scheduler=Recorder(s.scheduler, digest)) for s in made)

    faults = Faults(noise=0.1, shifts=(Shift(8.0, 1.5),), disconnect_share=0.1)
    setting = Setting(policy, CALIBRATION, SEGMENTS, build, window_s=15, drain_s=20, faults=faults, seed=1)
    report = msgspec.structs.replace(simulate(requests(), setting), cpu_s=0.0)
    print(msgspec.json.encode((policy, record, has_cache, digest.hexdigest(), report)).decode())


print(token.__file__.rpartition(".")[2], file=sys.stderr)
for policy in POLICIES:
    run(policy, True, policy == "speciate")
run("speciate", False, False)
run("fcfs-512", False, False)
"""


def is_fresh() -> bool:
    sources = [path.relative_to(ROOT / "src") for path in (ROOT / "src" / "speciate").rglob("*.py")]
    return all((COMPILED / path).exists() and cmp(ROOT / "src" / path, COMPILED / path) for path in sources)


def decided(folder: Path) -> tuple[str, list[object]]:
    """(the kind of file that the scheduler was loaded from, what each run gave)."""
    ran = subprocess.run(
        [sys.executable, "-c", DECIDE], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    )
    return ran.stderr.strip(), [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.skipif(not is_fresh(), reason="no fresh compiled form: `make fast` builds it in out/compiled")
def test_both_forms_decide_equally() -> None:
    plain_kind, plain = decided(ROOT / "src")
    compiled_kind, compiled = decided(COMPILED)
    assert (plain_kind, compiled_kind) == ("py", "so")
    assert len(plain) > 20
    assert plain == compiled
