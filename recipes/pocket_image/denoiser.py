"""Text encoder and UNet as one thing to train, and the running mean of its weights that is exported."""

# ruff: noqa: N803, N806 -- names end in their shape

from pathlib import Path
from typing import Self

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from recipes.pocket_image.networks import make_noise_schedule, make_text_encoder, make_unet
from recipes.pocket_image.tokenizer import LENGTH_TOKENS, make_tokenizer

# Shapes: B pictures, L tokens of a prompt, C latent channels, H and W places.

_UNPROMPTED_SHARE = 0.1
"""Prompts left out while training, for classifier-free guidance (Ho and Salimans 2022)."""

_MOST_WEIGHT = 5.0
"""Of the error in the picture itself, at times with little noise (as Min-SNR, Hang et al. 2023)."""


class Denoiser(nn.Module):
    """Predicts v of noisy latents from a prompt's tokens."""

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.tokenizer, self.text_encoder, self.unet = tokenizer, text_encoder, unet
        self.noise: DDIMScheduler = make_noise_schedule()
        self.unprompted_L = tokenize(tokenizer, [""])[0]

    @classmethod
    def new(cls, folder: Path) -> Self:
        """Untrained; its tokenizer is written into the folder."""
        tokenizer = make_tokenizer(folder / "tokenizer")
        return cls(tokenizer, make_text_encoder(len(tokenizer), tokenizer.eos_token_id), make_unet())

    def loss(self, latents_BCHW: Tensor, tokens_BL: Tensor) -> Tensor:
        """Mean weighted square error at random times."""
        num = len(latents_BCHW)
        times_B = torch.randint(0, 1000, (num,))
        noise = torch.randn_like(latents_BCHW)
        is_unprompted = torch.rand(num) < _UNPROMPTED_SHARE
        tokens_BL = torch.where(is_unprompted[:, None], self.unprompted_L, tokens_BL)
        wanted = self.noise.get_velocity(latents_BCHW, noise, times_B)
        given = self.predict(self.noise.add_noise(latents_BCHW, noise, times_B), times_B, tokens_BL)
        return (self._weight(times_B) * (given - wanted).pow(2).mean((1, 2, 3))).mean()

    def predict(self, noisy_BCHW: Tensor, times_B: Tensor, tokens_BL: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = self.text_encoder(tokens_BL)[0]
            return self.unet(noisy_BCHW, times_B, states).sample.float()

    def _weight(self, times_B: Tensor) -> Tensor:
        kept = self.noise.alphas_cumprod[times_B]
        snr = kept / (1 - kept)
        return (_MOST_WEIGHT / (snr + 1)).clamp(max=1.0)


class RunningMean:
    """An exponential mean of the weights, short while there are few."""

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {name: w.detach().clone() for name, w in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, num_steps: int) -> None:
        decay = min(self.decay, (1 + num_steps) / (10 + num_steps))
        for name, weight in model.state_dict().items():
            if weight.is_floating_point():
                self.weights[name].lerp_(weight, 1.0 - decay)


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """BL, padded as pipelines do."""
    return tokenizer(
        prompts, padding="max_length", max_length=LENGTH_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
