"""Optimisers, their schedule, and the running mean of the weights."""

import torch
from torch import Tensor, nn

from recipes.pocket_text.model import TextModel

_WARMUP_SHARE = 0.02
_DECAY_SHARE = 0.35


class Optimiser:
    """Muon for the layers' matrices, AdamW for the embedding and the norms, under one schedule."""

    def __init__(self, model: TextModel, matrix_rate: float = 6e-3, other_rate: float = 3e-3) -> None:
        matrices = [p for p in model.layers.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim == 1] + [model.embed_tokens.weight]
        self.parameters = [*matrices, *others]
        muon = torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
        adam = torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.parts: list[tuple[torch.optim.Optimizer, float]] = [(muon, matrix_rate), (adam, other_rate)]

    def step(self, share_done: float) -> None:
        """Applies the gathered gradients at the rate for this share (0 to 1) of the training, then clears them."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, rate in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * schedule(share_done)
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, object]]:
        return [part.state_dict() for part, _ in self.parts]

    def load(self, states: list[dict[str, object]]) -> None:
        for (part, _), state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def schedule(share_done: float) -> float:
    """Factor of the learning rate: a short rise, a plateau, and a linear fall to nothing."""
    rise = min(1.0, (share_done + 1e-3) / _WARMUP_SHARE)
    return max(0.0, min(rise, (1.0 - share_done) / _DECAY_SHARE))


class RunningMean:
    """An exponential mean of a model's weights, which scores better than the weights while the rate is high."""

    def __init__(self, model: nn.Module, decay: float = 0.99) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter, 1.0 - self.decay)
