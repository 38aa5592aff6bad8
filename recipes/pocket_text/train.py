"""Trains the pocket text model from nothing on a few CPU cores: `python -m recipes.pocket_text.train --help`."""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer

from recipes.pocket_text.batches import Sequences, small_batches
from recipes.pocket_text.curriculum import ShareDone, draw_task, training_tasks
from recipes.pocket_text.export import write_model
from recipes.pocket_text.gradient_workers import GradientWorkers, Work
from recipes.pocket_text.model import TextConfig, TextModel
from recipes.pocket_text.optimiser import Optimiser, RunningMean
from recipes.pocket_text.tokenizer import train_tokenizer, write_tokenizer
from recipes.pocket_text.training_log import Log
from speciate.models.pocket.prompts import render_solved
from speciate.models.pocket.tasks import EXERCISE_KINDS, TASK_KINDS

_CONTEXT_WEIGHT = 0.2
_CONTEXT_UNTIL = 0.25


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How long and on what to train. `folder` receives the model; `checkpoint` holds what is needed to go on."""

    folder: Path
    checkpoint: Path
    num_steps: int
    seed: int
    num_workers: int = 2
    batches_per_step: int = 6
    tokens_per_batch: int = 1024
    save_every_steps: int = 100
    log_every_steps: int = 20


class Training:
    """One run: owns the model, the optimiser, the running mean, the stream of batches and the processes."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.config = TextConfig()
        self.rng = random.Random(options.seed)
        self.tokenizer = make_tokenizer(self.config, options.seed)
        torch.manual_seed(options.seed)
        self.model = TextModel(self.config)
        self.optimiser = Optimiser(self.model)
        self.mean = RunningMean(self.model)
        self.share_done = ShareDone()
        self.num_steps_done = 0

    def run(self) -> None:
        """Trains to the last step, logging and saving on the way."""
        workers = GradientWorkers(self.model, self.tokenizer, self.options.num_workers)
        tasks = training_tasks(self.rng, self.share_done)
        batches = small_batches(tasks, self.tokenizer, self.options.tokens_per_batch)
        log = Log(self.options.log_every_steps)
        while self.num_steps_done < self.options.num_steps:
            log.add(self.num_steps_done + 1, *self._step(workers, batches))
            if self.num_steps_done % self.options.save_every_steps == 0:
                self.save()
        workers.stop()
        self.save()

    def _step(self, workers: GradientWorkers, batches: Iterator[Sequences]) -> tuple[float, int]:
        """One update; returns the mean loss of the answers' tokens, in nats, and how many tokens were read."""
        self.share_done.value = self.num_steps_done / self.options.num_steps
        context_weight = _CONTEXT_WEIGHT if self.share_done.value <= _CONTEXT_UNTIL else 0.0
        works = [Work(sequences, context_weight) for sequences in islice(batches, self.options.batches_per_step)]
        loss = workers.gather(works)
        self.optimiser.step(self.share_done.value)
        self.mean.update(self.model)
        self.num_steps_done += 1
        return loss, sum(work.num_tokens for work in works)

    def save(self) -> None:
        """Writes the model's folder from the running mean, and the checkpoint."""
        write_tokenizer(self.tokenizer, self.options.folder)
        write_model(self.config, self.mean.weights, self.options.folder)
        state = {
            "model": self.model.state_dict(),
            "mean": self.mean.weights,
            "optimiser": self.optimiser.state(),
            "num_steps_done": self.num_steps_done,
            "rng": self.rng.getstate(),
        }
        torch.save(state, self.options.checkpoint)

    def resume(self) -> None:
        """Goes on from the checkpoint, with the tokenizer that the folder holds."""
        self.tokenizer = Tokenizer.from_file(str(self.options.folder / "tokenizer.json"))
        state = torch.load(self.options.checkpoint, weights_only=False)
        self.model.load_state_dict(state["model"])
        self.mean.weights = state["mean"]
        self.optimiser.load(state["optimiser"])
        self.num_steps_done = state["num_steps_done"]
        self.rng.setstate(state["rng"])


def make_tokenizer(config: TextConfig, seed: int, num_tasks: int = 6000) -> Tokenizer:
    """Trains the tokenizer on training tasks of all kinds."""
    rng = random.Random(seed)
    kinds = (*TASK_KINDS, *EXERCISE_KINDS)
    tasks = (draw_task(kinds[i % len(kinds)], rng, 100) for i in range(num_tasks))
    return train_tokenizer((render_solved(task) for task in tasks), config.vocab_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the model is written")
    parser.add_argument("--checkpoint", type=Path, default=Path("pocket_text.pt"))
    parser.add_argument("--num-steps", type=int, default=4000)
    parser.add_argument("--num-workers", type=int, default=2, help="processes, one core each")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--quick", action="store_true", help="10 steps, to see that it runs")
    arguments = parser.parse_args()
    num_steps = 10 if arguments.quick else arguments.num_steps
    options = TrainOptions(arguments.folder, arguments.checkpoint, num_steps, arguments.seed, arguments.num_workers)
    training = Training(options)
    if arguments.resume:
        training.resume()
    training.run()


if __name__ == "__main__":
    main()
