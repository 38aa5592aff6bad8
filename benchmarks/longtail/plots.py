"""Share in time and loads against the load, by policy.

python -m benchmarks.longtail.plots RESULTS.json OUT.png
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def save_plot(rows: list[dict[str, Any]], path: Path) -> None:
    """`rows` as in the JSON file."""
    rows = [row for row in rows if row["scene"]["regime"] == "512" and row["scene"]["seed"] == 0]
    slots = sorted({row["scene"]["slots"] for row in rows})
    figure, axes = plt.subplots(2, len(slots), figsize=(6 * len(slots), 8), constrained_layout=True, squeeze=False)
    for column, num in enumerate(slots):
        here = [row for row in rows if row["scene"]["slots"] == num]
        _lines(axes[0][column], here, "within", 100.0)
        _lines(axes[1][column], here, "hits", 100.0)
        _oracle(axes[1][column], here)
        axes[0][column].set(title=f"{num} base(s) a device, 4 devices", ylabel="done within 60 s, %", ylim=(0, 102))
        axes[1][column].set(xlabel="time compressed (load), times", ylabel="requests without a load, %", ylim=(0, 102))
    axes[0][0].legend(fontsize=8)
    axes[1][0].legend(handles=axes[1][0].lines[-1:], fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _lines(axis: Any, rows: list[dict[str, Any]], name: str, factor: float) -> None:
    for policy in dict.fromkeys(row["report"]["policy"] for row in rows):
        points = [
            (r["scene"]["compression"], factor * r["report"][name]) for r in rows if r["report"]["policy"] == policy
        ]
        is_ours = policy == "speciate"
        axis.plot(*zip(*sorted(points), strict=True), marker="o", label=policy, linewidth=2.5 if is_ours else 1.2)
    axis.grid(alpha=0.3)


def _oracle(axis: Any, rows: list[dict[str, Any]]) -> None:
    points = sorted({(row["scene"]["compression"], 100 * row["report"]["oracle_hits"]) for row in rows})
    axis.plot(*zip(*points, strict=True), "k--", linewidth=0.8, label="oracle")


def main() -> None:
    results, out = (Path(name) for name in sys.argv[1:])
    save_plot(json.loads(results.read_text(encoding="utf-8"))["rows"], out)


if __name__ == "__main__":
    main()
