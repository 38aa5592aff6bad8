"""Decoding and prefill of the text engine beside its peers: `python -m benchmarks.engine [--json PATH] [--quick]`.

One shape (Qwen2.5 0.5B), the same random weights in 8 bits for everyone, one machine, one run. Peers are measured where
they are installed: openvino-genai, and llama.cpp by llama-cpp-python built from source for this CPU.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engine.contenders import CONTENDERS, CONTEXT_TOKENS
from benchmarks.engine.runner import Answer, Question, guests, interleave
from benchmarks.engine.weights import FULL, QUICK, prepare
from speciate.bench.machine import describe_machine

OURS = "speciate"
Answers = dict[str, dict[str, list[Answer]]]


def main() -> None:
    given = _arguments()
    size = QUICK if given.quick else FULL
    names = [name for name in CONTENDERS if given.only is None or name in given.only]
    formats = tuple(kind for kind in ("hf", "ir", "gguf") if kind in {"hf", *(CONTENDERS[name][0] for name in names)})
    paths = prepare(size, given.cache, formats)
    questions = _questions(given.quick)
    with guests(names, paths, given.threads, size.vocab_size) as found:
        rounds = 2 if given.quick else given.rounds
        figures, num_discarded = interleave(found, questions, rounds, lambda name: print(name, flush=True))
        settings = {guest.name: guest.settings for guest in found}
    document = {
        "machine": describe_machine(),
        "peers": {name: _version(name) for name in ("openvino-genai", "llama-cpp-python", "gguf")},
        "model": {"name": size.name, "parameters": size.num_parameters, "context_before_decode": CONTEXT_TOKENS},
        "threads": given.threads,
        "disturbed_answers_thrown_away": num_discarded,
        "most_foreign_cores_during_an_answer": round(_most_foreign(figures), 3),
        "settings": settings,
        "tokens_per_second": _summaries(figures),
        "ratios": _ratios(figures),
    }
    _print(document)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=1) + "\n")


def _questions(quick: bool) -> list[Question]:
    if quick:
        return [Question("decode", 1, 6), Question("decode", 8, 6), Question("prefill", 128)]
    return [
        *(Question("decode", count, 24) for count in (1, 2, 4, 8, 16)),
        *(Question("prefill", count) for count in (128, 512, 2048)),
    ]


def _summaries(figures: Answers) -> dict[str, dict[str, dict[str, float]]]:
    return {
        question: {
            name: _summary([speed for answer in answers for speed in answer.speeds])
            for name, answers in by_name.items()
        }
        for question, by_name in figures.items()
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    low, high = (statistics.quantiles(values, n=10)[i] for i in (0, 8)) if len(values) > 1 else (values[0], values[0])
    return {
        "median": round(statistics.median(values), 1),
        "p10": round(low, 1),
        "p90": round(high, 1),
        "n": len(values),
    }


def _ratios(figures: Answers) -> dict[str, dict[str, dict[str, float]]]:
    """Each of ours over each peer, round by round: the median of the rounds' ratios, and their range."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for question, by_name in figures.items():
        for our_name in (name for name in by_name if name.startswith(OURS)):
            for peer in (name for name in by_name if not name.startswith(OURS)):
                pairs = zip(by_name[our_name], by_name[peer], strict=True)
                ratios = [statistics.median(ours.speeds) / statistics.median(theirs.speeds) for ours, theirs in pairs]
                cell = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
                place = found.setdefault(question, {})
                place[f"{our_name} / {peer}"] = {key: round(value, 3) for key, value in cell.items()}
    return found


def _most_foreign(figures: Answers) -> float:
    kept = (answer for by_name in figures.values() for answers in by_name.values() for answer in answers)
    return max(answer.foreign for answer in kept)


def _print(document: dict[str, Any]) -> None:
    view = Table(title="Tokens a second: median (p10 to p90)")
    names = list(document["settings"])
    for column in ("", *names):
        view.add_column(column, justify="right" if column else "left")
    for question, by_name in document["tokens_per_second"].items():
        cells = (by_name[name] for name in names)
        view.add_row(question, *(f"{c['median']:,.1f} ({c['p10']:,.0f} to {c['p90']:,.0f})" for c in cells))
    Console(width=160).print(view)
    for question, ratios in document["ratios"].items():
        print(question, "; ".join(f"{name} {cell['median']:.2f}" for name, cell in ratios.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.engine")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--quick", action="store_true", help="four layers and two rounds, under a minute")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), help="contenders to run")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "speciate-engine-benchmark")
    return parser.parse_args()


if __name__ == "__main__":
    main()
