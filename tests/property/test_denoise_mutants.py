"""The tests of the denoise decisions catch planted bugs: each, put into a copy of the package, must fail.

A mutant whose text is gone from the source fails too: then it has to be planted anew.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE = "tests/property/test_denoise_machine.py::test_random_lives"
UNIT = "tests/unit/scheduling"
SCHEDULER = f"{UNIT}/test_denoise_scheduler.py"
MUTANTS = {
    "a pass is skipped": ("denoise/item.py", "self.passes_done += 1", "self.passes_done += 2", MACHINE),
    "a lost step advances": ("denoise/scheduler.py", "        if outcome.is_failed:\n", "        if False:\n", MACHINE),
    "a lost item stays": ("denoise/scheduler.py", "elif item.item_id in outcome.lost:", "elif False:", MACHINE),
    "an aborted item is booked": (
        "denoise/scheduler.py",
        "            if item.is_gone:\n",
        "            if False:\n",
        SCHEDULER,
    ),
    "the reproducible lane is shared": (
        "denoise/pass_batch.py",
        "if leader.work.is_reproducible or other.work.is_reproducible:",
        "if leader.work.is_reproducible:",
        MACHINE,
    ),
    "sizes are mixed": ("denoise/pass_batch.py", " or other.shape == leader.shape", " or True", MACHINE),
    "models are mixed": (
        "denoise/pass_batch.py",
        "other.stage is not leader.stage or other.model != leader.model",
        "other.stage is not leader.stage",
        MACHINE,
    ),
    "rows are not bounded": ("denoise/pass_batch.py", "if rows > bounds.max_rows:", "if False:", MACHINE),
    "a step may take longer than granted": (
        "denoise/choice.py",
        "if state.times.gamma * choice.predicted_s <= within_s:",
        "if True:",
        MACHINE,
    ),
    "what is not on the device runs": (
        "denoise/state.py",
        "return self.residency is None or self.residency.is_ready(item.assets)",
        "return True",
        MACHINE,
    ),
    "adapters are not waited for": (
        "denoise/residency.py",
        "return all(asset in self._device for asset in assets)",
        "return next(iter(assets)) in self._device",
        MACHINE,
    ),
    "a model leaves without its adapters": (
        "denoise/residency.py",
        "going = [victim] if victim.adapter else",
        "going = [victim] if True else",
        f"{UNIT}/test_residency.py",
    ),
    "two loads at once": (
        "denoise/residency.py",
        "if self._loading is not None or not missing:",
        "if not missing:",
        f"{UNIT}/test_residency.py",
    ),
    "nothing is loaded at a standstill": (
        "denoise/choice.py",
        "        or _load_at_standstill(state, outlook, now_s)\n",
        "",
        MACHINE,
    ),
    "who leaves still needs its model": (
        "denoise/state.py",
        "            self.residency.leave(item.assets)\n",
        "            pass\n",
        MACHINE,
    ),
    "previews are forgotten": (
        "denoise/item.py",
        "return Stage.PREVIEW if wants_preview else Stage.PASS",
        "return Stage.PASS",
        SCHEDULER,
    ),
    "a preview ends the passes": (
        "denoise/item.py",
        "            self.slices_done = 0\n",
        "",
        MACHINE,
    ),
    "a deadline is ignored": (
        "denoise/scheduler.py",
        "self._expiries[0][0] <= now_s",
        "False",
        SCHEDULER,
    ),
    "relegated although nobody allowed it": (
        "denoise/scheduler.py",
        "if item.work.may_downgrade and item.tier is not BATCH:",
        "if item.tier is not BATCH:",
        MACHINE,
    ),
    "the shortest leaves instead of the longest": (
        "denoise/outlook.py",
        "heappush(kept, (-item.rank, -own_s - load, item.order, item))",
        "heappush(kept, (-item.rank, own_s + load, item.order, item))",
        f"{UNIT}/test_outlook.py",
    ),
    "tiers are equal when somebody must be late": (
        "denoise/outlook.py",
        "heappush(kept, (-item.rank, -own_s - load, item.order, item))",
        "heappush(kept, (0, -own_s - load, item.order, item))",
        f"{UNIT}/test_outlook.py",
    ),
    "slack is not asked before a pass is shared": (
        "denoise/pass_batch.py",
        "        if step_s > latest_s:\n",
        "        if False:\n",
        f"{UNIT}/test_pass_batch.py",
    ),
    "who waited for too long has no share": (
        "denoise/choice.py",
        "if waited is not None and state.late_credit_s >=",
        "if False and state.late_credit_s >=",
        SCHEDULER,
    ),
    "fairness goes before deadlines": (
        "denoise/choice.py",
        "if least_s >= state.times.gamma * item.alone_s:",
        "if True:",
        SCHEDULER,
    ),
    "faster tiers may be made late": (
        "device/arbiter.py",
        "TIER_RANK[claim.tier] < rank or ",
        "",
        f"{UNIT}/test_arbiter.py",
    ),
    "guards are not heard": (
        "device/arbiter.py",
        "within_s = min(within_s, guard.longest_step_s)",
        "pass",
        f"{UNIT}/test_arbiter.py",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught(name: str, tmp_path: Path) -> None:
    file, text, instead, tests = MUTANTS[name]
    _copy(tmp_path)
    path = tmp_path / "speciate" / "scheduling" / file
    source = path.read_text(encoding="utf-8")
    assert text in source, f"{file} no longer has {text!r}: plant this mutant anew"
    path.write_text(source.replace(text, instead, 1), encoding="utf-8")
    assert _run(tmp_path, tests).returncode == 1, f"nothing noticed: {name}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_a_planted_bug_nothing_is_caught(tmp_path: Path) -> None:
    _copy(tmp_path)
    done = _run(tmp_path, *sorted({tests for _, _, _, tests in MUTANTS.values()}))
    assert done.returncode == 0, done.stdout


def _copy(path: Path) -> None:
    ignored = shutil.ignore_patterns("*.safetensors", "*.so", "__pycache__")
    shutil.copytree(ROOT / "src" / "speciate", path / "speciate", ignore=ignored)


def _run(source: Path, *tests: str) -> "subprocess.CompletedProcess[str]":
    """pytest's status: 0 all passed, 1 something failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
