"""The pure decisions and the simulator's loop as machine code: an optional second form of the same modules (mypyc).

    python packaging/compiled.py [--into out/compiled]
    PYTHONPATH=out/compiled python -m benchmarks.tiers.speed

Copies the package and compiles MODULES beside their sources; what imports them does not change, and deleting the
folder is all there is to undo. Needs mypy (the dev extra), setuptools and a C compiler. The wheel stays pure Python.
Modules with msgspec structs stay as they are: mypyc does not hand class keywords (`frozen=True`) to a metaclass.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    *(f"scheduling/{name}.py" for name in (
        "aside", "blocks", "draft", "evict", "fill", "fill_batch", "fill_interactive", "fill_realtime", "guard",
        "least_squares", "lengths", "limits", "margin", "memory", "order", "pace", "recent_error", "relegate", "report",
        "sequence", "state", "step_time", "tenants", "token", "waiting",
    )),
    "scheduling/baselines/ablations.py",
    "scheduling/baselines/staged.py",
    *(f"sim/{name}.py" for name in ("fold", "replica", "step_times", "track", "world")),
)  # fmt: skip


def main() -> None:
    given = _parser().parse_args()
    into: Path = given.into.resolve()
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(ROOT / "src" / "speciate", into / "speciate", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    command = [sys.executable, str(ROOT / "packaging" / "setup_compiled.py"), "--quiet", "build_ext", "--inplace"]
    modules = " ".join(f"speciate/{name}" for name in MODULES)
    subprocess.run(command, cwd=into, env={**os.environ, "MYPYPATH": str(into), "MODULES": modules}, check=True)
    shutil.rmtree(into / "build", ignore_errors=True)
    print(f"compiled {len(MODULES)} modules; use them with PYTHONPATH={given.into}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("out/compiled"))
    return parser


if __name__ == "__main__":
    main()
