"""Writes the model of the real side: four layers of Qwen2.5-0.5B's shape with random weights.

    python -m benchmarks.tiers.weights FOLDER

What the weights say changes no duration. Four layers, so that a step takes on two cores what one of a 7B model takes on
an accelerator.
"""

import sys
from pathlib import Path

from benchmarks.engine.weights import QUICK, prepare


def main() -> None:
    print(prepare(QUICK, Path(sys.argv[1]), ("hf",))["hf"])


if __name__ == "__main__":
    main()
