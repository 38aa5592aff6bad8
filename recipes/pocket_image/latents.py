"""Pictures encoded once, drawn from again and again; prompts are worded anew each time."""

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from recipes.pocket_image.batches import draw_batch
from recipes.pocket_image.denoiser import tokenize
from speciate.models.pocket.draw import Style
from speciate.models.pocket.scenes import Scene, reworded_prompt


class LatentBank:
    """Latents (N, C, H, W) and their scenes."""

    def __init__(self, latents: Tensor, scenes: list[Scene], tokenizer: CLIPTokenizer) -> None:
        self._latents, self._scenes, self._tokenizer = latents, scenes, tokenizer
        self._known: dict[str, Tensor] = {}

    def draw(self, num: int, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Latents and tokens of `num` pictures."""
        rows = [rng.randrange(len(self._scenes)) for _ in range(num)]
        tokens = torch.stack([self._tokens(reworded_prompt(self._scenes[row], rng)) for row in rows])
        return self._latents[rows], tokens

    def _tokens(self, prompt: str) -> Tensor:
        if prompt not in self._known:
            self._known[prompt] = tokenize(self._tokenizer, [prompt])[0]
        return self._known[prompt]


@torch.no_grad()
def make_bank(vae: Path, num_pictures: int, seed: int, style: Style) -> LatentBank:
    """Draws and encodes training pictures."""
    encoder, rng = AutoencoderKL.from_pretrained(vae).eval(), random.Random(seed + 1)
    parts: list[Tensor] = []
    scenes: list[Scene] = []
    while len(scenes) < num_pictures:
        pixels, drawn = draw_batch(rng, min(128, num_pictures - len(scenes)), style)
        parts.append(encoder.encode(pixels).latent_dist.mean)
        scenes += drawn
    tokenizer = CLIPTokenizer.from_pretrained(vae.parent / "tokenizer")
    return LatentBank(torch.cat(parts), scenes, tokenizer)
