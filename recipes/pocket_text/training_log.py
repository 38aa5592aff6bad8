"""Prints how a training goes."""

import time


class Log:
    """Prints the mean loss and the speed every few steps."""

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self.started_s = time.monotonic()
        self.num_tokens = 0
        self.losses: list[float] = []

    def add(self, step: int, loss: float, num_tokens: int) -> None:
        self.losses.append(loss)
        self.num_tokens += num_tokens
        if step % self.every_steps:
            return
        elapsed_s = time.monotonic() - self.started_s
        mean_loss = sum(self.losses) / len(self.losses)
        speed = f"{self.num_tokens / 1e6:.2f} M tokens {elapsed_s:.0f} s {self.num_tokens / elapsed_s:.0f} tokens/s"
        print(f"step {step} loss {mean_loss:.4f} {speed}", flush=True)
        self.losses = []
