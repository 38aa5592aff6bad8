"""The random lives of `test_scheduler_machine` catch planted bugs: each, put into a copy of the package, must fail.

A mutant whose text is gone from the source fails too: then it has to be planted anew.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE = ROOT / "tests" / "property" / "test_scheduler_machine.py"
MUTANTS = {
    "a prefix hit covers the whole prompt": (
        "memory.py",
        "usable = (seq.num_tokens - 1) //",
        "usable = seq.num_tokens //",
    ),
    "keys ignore the salt": ("memory.py", "root_key(seq.work.cache_salt)", 'root_key("")'),
    "keys are not chained": ("blocks.py", "blake2b(parent + packed", "blake2b(packed"),
    "a shared idle block stays idle": (
        "blocks.py",
        "                del self._idle[block]\n",
        "                pass\n",
    ),
    "a forgotten block keeps its key": ("blocks.py", "            key_of[block] = None\n", ""),
    "half-filled blocks are published": (
        "memory.py",
        "num_full = seq.computed // self.block_tokens\n",
        "num_full = -(-seq.computed // self.block_tokens)\n",
    ),
    "a step samples past the prompt's middle": ("draft.py", "samples = end == seq.num_tokens", "samples = True"),
    "chunks do not count against the step": ("draft.py", "        self.tokens_left -= num\n", ""),
    "real-time work is not pinned": ("sequence.py", "return self.tier is ", "return False and self.tier is "),
    "room for pinned work is not set aside": (
        "evict.py",
        "if seq.is_pinned and memory.num_pinned + seq.max_blocks > state.shape.num_blocks:",
        "if False:",
    ),
    "sequences in the step are evicted for equals": (
        "evict.py",
        "not other.is_pinned and not draft.is_taken(other)",
        "not other.is_pinned",
    ),
    "prompts that were looked at are lost": (
        "waiting.py",
        "            if seq.stamp == stamp:\n",
        "            if False:\n",
    ),
    "abort frees the blocks of a running step": (
        "token.py",
        "if self._in_flight is None or not self._in_flight.is_taken(seq):",
        "if True:",
    ),
    "relegation forgets to leave the real-time books": (
        "relegate.py",
        "    state.realtime.pop(seq.seq_id, None)\n",
        "",
    ),
    "the load of a step is told after it": (
        "token.py",
        "self._in_flight = self._resident_load = None",
        "self._in_flight = None",
    ),
    "who leaves stays in the real-time books": ("state.py", "        self.realtime.pop(seq.seq_id, None)\n", ""),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught(name: str, tmp_path: Path) -> None:
    file, text, instead = MUTANTS[name]
    shutil.copytree(
        ROOT / "src" / "speciate", tmp_path / "speciate", ignore=shutil.ignore_patterns("*.safetensors", "*.so")
    )
    path = tmp_path / "speciate" / "scheduling" / file
    source = path.read_text(encoding="utf-8")
    assert text in source, f"{file} no longer has {text!r}: plant this mutant anew"
    path.write_text(source.replace(text, instead, 1), encoding="utf-8")
    assert _lives(tmp_path).returncode == 1, f"nothing noticed: {name}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_a_planted_bug_nothing_is_caught(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src" / "speciate", tmp_path / "speciate", ignore=shutil.ignore_patterns("*.safetensors", "*.so")
    )
    done = _lives(tmp_path)
    assert done.returncode == 0, done.stdout


def _lives(source: Path) -> "subprocess.CompletedProcess[str]":
    """pytest's status: 0 all passed, 1 something failed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        str(MACHINE),
        "-k",
        "test_random_lives",
    ]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
