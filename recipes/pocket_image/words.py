"""Teaches the text encoder what prompts mean before any picture is seen: seconds, and the UNet learns from its first
step on from states that tell shape, colour, number and place apart."""

import random

import torch
from torch import nn
from torch.nn import functional

from recipes.pocket_image.denoiser import Denoiser, tokenize
from speciate.models.pocket.scenes import COLOURS, PLACES, SHAPES, Scene, draw_scene, reworded_prompt

_MOST_COUNTED = 4


def teach_words(model: Denoiser, rng: random.Random, num_steps: int = 250, batch: int = 64) -> None:
    """A linear reading of the last state must give all four."""
    sizes = (len(SHAPES), len(COLOURS), _MOST_COUNTED, len(PLACES) + 1)
    reader = nn.Linear(model.text_encoder.config.hidden_size, sum(sizes))
    optimiser = torch.optim.AdamW([*model.text_encoder.parameters(), *reader.parameters()], lr=2e-3)
    for step in range(1, num_steps + 1):
        scenes = [draw_scene(rng) for _ in range(batch)]
        tokens = tokenize(model.tokenizer, [reworded_prompt(scene, rng) for scene in scenes])
        answers = reader(model.text_encoder(tokens)[0][:, -1]).split(sizes, dim=1)
        meanings = torch.tensor([_meaning(scene) for scene in scenes])
        loss = torch.stack([functional.cross_entropy(a, meanings[:, i]) for i, a in enumerate(answers)]).sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 50 == 0:
            print(f"words {step} loss {float(loss):.4f}", flush=True)


def _meaning(scene: Scene) -> tuple[int, int, int, int]:
    place = len(PLACES) if scene.place is None else tuple(PLACES).index(scene.place)
    return SHAPES.index(scene.shape), tuple(COLOURS).index(scene.colour), scene.count - 1, place
