"""Measures an exported folder on held-out tasks: `python -m recipes.pocket_text.report FOLDER`."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from recipes.pocket_text.generate import BatchedGenerator
from speciate.models.pocket.documents import ADAPTER_KINDS, KINDS
from speciate.models.pocket.evaluate import Score, evaluate, evaluate_by_length, evaluate_fields
from speciate.models.pocket.tasks import TASK_KINDS, sample_tasks

GROUPS: Mapping[str, tuple[str, ...]] = {
    "extraction": KINDS,
    "paragraph": ("paragraph",),
    "tool_call": ("tool_call",),
    "delivery_note": ADAPTER_KINDS,
}


def report(generator: BatchedGenerator, kinds: tuple[str, ...], num_tasks_each: int, seed: int) -> None:
    """Prints accuracy by kind and, for what has documents, by length of the prompt."""
    tasks = sample_tasks(seed, num_tasks_each * len(kinds), "held_out", kinds)
    generator.prepare(tasks)
    print_scores("by kind", evaluate(generator.generate, tasks))
    fields = evaluate_fields(generator.generate, tasks)
    print_scores("by field", fields)
    print_scores("all fields", {"": total(fields.values())})
    for name, members in GROUPS.items():
        chosen = [task for task in tasks if task.kind in members]
        if chosen:
            print_scores(f"{name}, by prompt tokens", evaluate_by_length(generator.generate, chosen))


def total(scores: Iterable[Score]) -> Score:
    """One score over several groups, without their mistakes."""
    scores = list(scores)
    return Score(sum(score.num_right for score in scores), sum(score.num_tasks for score in scores))


def print_scores(title: str, scores: Mapping[str, Score], num_mistakes: int = 2) -> None:
    """One line a group, then a few mistakes."""
    print(f"{title}:")
    for name, score in scores.items():
        if score.num_tasks:
            print(f"  {name:14} {100 * score.share:6.1f} %  of {score.num_tasks}")
            for wanted, given in score.mistakes[:num_mistakes]:
                print(f"      wanted {wanted!r}\n      given  {given!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter", type=Path, help="measure this adapter, on the documents that it is for")
    parser.add_argument("--kinds", nargs="+", help="only these kinds of task")
    parser.add_argument("--num-tasks-each", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    generator = BatchedGenerator(arguments.folder)
    if arguments.adapter:
        generator.apply_adapter(arguments.adapter)
    kinds = tuple(arguments.kinds or (ADAPTER_KINDS if arguments.adapter else TASK_KINDS))
    report(generator, kinds, arguments.num_tasks_each, arguments.seed)


if __name__ == "__main__":
    main()
