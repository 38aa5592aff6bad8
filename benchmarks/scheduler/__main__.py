"""`python -m benchmarks.scheduler [--json PATH] [--quick]`: both benchmarks of this folder, one after the other."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from speciate.bench.machine import describe_machine

PARTS = ("decision_cost", "promises")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scheduler", description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer rows, under a minute")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {part: _run(part, Path(folder) / f"{part}.json", given.quick) for part in PARTS}
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({**figures, "machine": describe_machine()}, indent=2) + "\n")


def _run(part: str, path: Path, is_quick: bool) -> object:
    """In a process of its own, as each is run alone."""
    print(f"== {part}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.scheduler.{part}", "--json", str(path)]
    subprocess.run([*command, "--quick"] if is_quick else command, check=True)
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
