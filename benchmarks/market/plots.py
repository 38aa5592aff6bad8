"""Cost over the optimum against the deadline, a panel a family.

python -m benchmarks.market.plots RESULTS.json ... OUT.png
"""

import json
import sys
from pathlib import Path

import matplotlib
import msgspec

from speciate.sim.market_report import Figure

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LATE = "spot only, greedy"
"""Left out: it is cheap because it is late."""


def save_plot(found: list[Figure], path: Path) -> None:
    families = list(dict.fromkeys(figure.family for figure in found))
    num_rows = (len(families) + 2) // 3
    figure, axes = plt.subplots(num_rows, 3, figsize=(14, 4 * num_rows), constrained_layout=True, squeeze=False)
    for axis, family in zip(axes.flat, families, strict=False):
        of_family = [row for row in found if row.family == family and row.policy != LATE]
        for policy in dict.fromkeys(row.policy for row in of_family):
            line = sorted((row.ratio, 100 * (row.of_best - 1)) for row in of_family if row.policy == policy)
            is_ours = policy == "speciate"
            axis.plot(*zip(*line, strict=True), marker="o", label=policy, linewidth=2.5 if is_ours else 1.0)
        axis.plot([1.2, 1.95, 2.0, 4.0], [25, 25, 10, 10], "k--", linewidth=0.8, label="target")
        axis.set(title=family, xlabel="deadline / work", ylabel="cost over the optimum, %", ylim=(0, 60))
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=7)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    *results, out = (Path(name) for name in sys.argv[1:])
    rows = [row for path in results for row in json.loads(path.read_text(encoding="utf-8"))["figures"]]
    save_plot(msgspec.convert(rows, list[Figure]), out)


if __name__ == "__main__":
    main()
