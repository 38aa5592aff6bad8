# ruff: noqa: N803, N806 - a tensor's name ends in its shape
"""Processes that compute gradients of small batches side by side, each on one core.

On a machine that others use too this keeps every free core busy: whoever is done takes the next batch, where the
threads of one process would wait for the slowest. Measured beside one other busy process on two cores: 5,800 tokens/s
against 3,200. Weights and gradients lie in shared memory. Knows no optimiser.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from tokenizers import Tokenizer
from torch import Tensor, multiprocessing, nn

from recipes.pocket_text.batches import Batch, pack
from recipes.pocket_text.model import TextModel

_ANSWERS_SCALE = 1e-3
_CONTEXT_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Work:
    """Encoded sequences, and the weight of the loss on a sample of their prompts' tokens (0: none)."""

    sequences: list[list[int]]
    context_weight: float

    @property
    def num_tokens(self) -> int:
        return sum(len(ids) for ids in self.sequences)


@dataclass(frozen=True, slots=True)
class WorkDone:
    """Summed loss of the answers' tokens in nats, and how many there were."""

    loss_sum: float
    num_answer_tokens: int


class GradientWorkers:
    """Owns the processes. `gather` leaves the mean gradient in the model's parameters."""

    def __init__(self, model: TextModel, tokenizer: Tokenizer, num_workers: int) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        model.share_memory()
        context = multiprocessing.get_context("spawn")
        self.work: multiprocessing.SimpleQueue = context.SimpleQueue()
        self.done: multiprocessing.SimpleQueue = context.SimpleQueue()
        self.gradients = [[torch.zeros_like(p).share_memory_() for p in self.parameters] for _ in range(num_workers)]
        self.processes = [
            context.Process(target=_serve, args=(model, tokenizer.to_str(), grads, self.work, self.done), daemon=True)
            for grads in self.gradients
        ]
        for process in self.processes:
            process.start()

    def gather(self, works: Sequence[Work]) -> float:
        """Computes the gradient of the mean loss over all answers' tokens; returns that loss."""
        for work in works:
            self.work.put(work)
        results = [self.done.get() for _ in works]
        num_tokens = sum(result.num_answer_tokens for result in results)
        for i, parameter in enumerate(self.parameters):
            parameter.grad = (
                torch.stack([grads[i] for grads in self.gradients]).sum(0).div_(num_tokens * _ANSWERS_SCALE)
            )
            for grads in self.gradients:
                grads[i].zero_()
        return sum(result.loss_sum for result in results) / num_tokens

    def stop(self) -> None:
        """Ends the processes."""
        for _ in self.processes:
            self.work.put(None)
        for process in self.processes:
            process.join()


def _serve(
    model: TextModel,
    tokenizer_json: str,
    gradients: list[Tensor],
    work: "multiprocessing.SimpleQueue",
    done: "multiprocessing.SimpleQueue",
) -> None:
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_str(tokenizer_json)
    for parameter, gradient in zip(_trained(model), gradients, strict=True):
        parameter.grad = gradient
    while (item := work.get()) is not None:
        done.put(_backward(model, pack(item.sequences, tokenizer), item.context_weight))


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _backward(model: TextModel, batch: Batch, context_weight: float) -> WorkDone:
    """Adds the gradient of (mean answer loss + context loss), times the number of answer tokens / 1000."""
    chosen = batch.targets_T >= 0
    num_answer_tokens = int(chosen.sum())
    with torch.autocast("cpu", torch.bfloat16):
        hidden_TD = model(batch.ids_T, batch.positions_T, batch.groups)
        loss = _mean_loss(model, hidden_TD[chosen], batch.targets_T[chosen])
        total = loss
        if context_weight:
            sampled = ~chosen & (torch.rand(len(chosen)) < _CONTEXT_SHARE)
            total = loss + context_weight * _mean_loss(model, hidden_TD[sampled], batch.next_ids_T[sampled])
    (total * (num_answer_tokens * _ANSWERS_SCALE)).backward()
    return WorkDone(loss.item() * num_answer_tokens, num_answer_tokens)


def _mean_loss(model: TextModel, hidden_TD: Tensor, targets_T: Tensor) -> Tensor:
    return functional.cross_entropy(model.logits(hidden_TD).float(), targets_T)
