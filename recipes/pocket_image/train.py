"""Trains the text encoder and the UNet together: `python -m recipes.pocket_image.train --folder out/image`.

The folder must hold the autoencoder already. One process, one thread; `--resume` goes on from the checkpoint.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from torch import Tensor

from recipes.pocket_image.denoiser import Denoiser, RunningMean
from recipes.pocket_image.export import write_folder
from recipes.pocket_image.latents import LatentBank, make_bank
from recipes.pocket_image.sheet import write_sheet
from recipes.pocket_image.words import teach_words

_WARMUP_STEPS = 150
_SAVE_EVERY_STEPS = 100
_SHEET_EVERY_STEPS = 500


class Training:
    """Owns the networks, their running mean, the optimiser and the pictures."""

    def __init__(self, folder: Path, checkpoint: Path, num_steps: int, seed: int, num_pictures: int) -> None:
        self.folder, self.checkpoint, self.num_steps = folder, checkpoint, num_steps
        torch.manual_seed(seed)
        self.rng = random.Random(seed)
        self.model = Denoiser.new(folder)
        teach_words(self.model, self.rng)
        self.mean = RunningMean(self.model)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.99), weight_decay=1e-3)
        self.bank: LatentBank = make_bank(folder / "vae", num_pictures, seed, "plain")
        self.num_steps_done = 0
        self.cpu_s = 0.0

    def run(self, batch: int, rate: float) -> None:
        """Trains to the last step, logging, saving and drawing on the way."""
        losses: list[float] = []
        while self.num_steps_done < self.num_steps:
            started_s = time.process_time()
            losses.append(self._step(batch, rate * schedule(self.num_steps_done, self.num_steps)))
            self.cpu_s += time.process_time() - started_s
            if self.num_steps_done % 50 == 0:
                print(f"step {self.num_steps_done} loss {sum(losses) / len(losses):.4f} cpu {self.cpu_s:.0f} s",
                      flush=True)  # fmt: skip
                losses = []
            if self.num_steps_done % _SAVE_EVERY_STEPS == 0 or self.num_steps_done == self.num_steps:
                self.save()
            if self.num_steps_done % _SHEET_EVERY_STEPS == 0:
                self.write_out()
        self.write_out()

    def _step(self, batch: int, rate: float) -> float:
        latents, tokens = self.bank.draw(batch, self.rng)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss: Tensor = self.model.loss(latents, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.num_steps_done += 1
        self.mean.update(self.model, self.num_steps_done)
        return float(loss.detach())

    def save(self) -> None:
        """Writes the checkpoint by rename: an interrupted write leaves the one before."""
        state = {
            "model": self.model.state_dict(),
            "mean": self.mean.weights,
            "optimiser": self.optimiser.state_dict(),
            "num_steps_done": self.num_steps_done,
            "cpu_s": self.cpu_s,
            "rng": self.rng.getstate(),
            "torch_rng": torch.get_rng_state(),
        }
        torch.save(state, self.checkpoint.with_suffix(".new"))
        self.checkpoint.with_suffix(".new").rename(self.checkpoint)

    def resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=False)
        self.model.load_state_dict(state["model"])
        self.mean.weights = state["mean"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.num_steps_done, self.cpu_s = state["num_steps_done"], state["cpu_s"]
        self.rng.setstate(state["rng"])
        torch.set_rng_state(state["torch_rng"])

    def write_out(self) -> None:
        """The diffusers folder of the running mean, and a sheet of pictures it draws."""
        mean = Denoiser.new(self.folder)
        mean.load_state_dict(self.mean.weights)
        write_folder(mean, self.folder)
        write_sheet(self.folder, self.checkpoint.with_name(f"sheet-{self.num_steps_done}.png"))


def schedule(num_done: int, num_steps: int) -> float:
    """Factor of the learning rate: a short rise, half the way flat, then linearly to nothing."""
    rise = min(1.0, (num_done + 1) / _WARMUP_STEPS)
    return min(rise, max(0.0, (num_steps - num_done) / (0.5 * num_steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="a diffusers folder; its vae must be there")
    parser.add_argument("--checkpoint", type=Path, help="default: checkpoint.pt beside the folder")
    parser.add_argument("--num-steps", type=int, default=4200)
    parser.add_argument("--num-pictures", type=int, default=24_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = given.checkpoint or given.folder.with_name("checkpoint.pt")
    training = Training(given.folder, checkpoint, given.num_steps, given.seed, given.num_pictures)
    if given.resume and checkpoint.exists():
        training.resume()
    training.run(given.batch, given.rate)


if __name__ == "__main__":
    main()
