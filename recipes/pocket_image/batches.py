"""Pictures with their prompts, made as they are needed."""

# ruff: noqa: N806 -- names end in their shape

import random

import numpy as np
import torch
from torch import Tensor

from speciate.models.pocket.draw import STYLES, Style, draw_picture
from speciate.models.pocket.scenes import Scene, draw_scene

# Shapes: B pictures of a batch, C channels, H height, W width.


def picture_tensor(scenes: list[Scene], rng: random.Random, styles: list[Style]) -> Tensor:
    """BCHW in -1..1."""
    pictures = [np.asarray(draw_picture(s, rng, style)) for s, style in zip(scenes, styles, strict=True)]
    pixels_BHWC = torch.from_numpy(np.stack(pictures)).float()
    return pixels_BHWC.permute(0, 3, 1, 2).contiguous() / 127.5 - 1.0


def draw_batch(rng: random.Random, num_pictures: int, style: Style) -> tuple[Tensor, list[Scene]]:
    """Training scenes in one style."""
    scenes = [draw_scene(rng) for _ in range(num_pictures)]
    return picture_tensor(scenes, rng, [style] * num_pictures), scenes


def draw_mixed_batch(rng: random.Random, num_pictures: int) -> tuple[Tensor, list[Scene], list[Style]]:
    """Training scenes, half of them plain and the rest in all styles."""
    scenes = [draw_scene(rng) for _ in range(num_pictures)]
    styles: list[Style] = ["plain" if rng.random() < 0.4 else rng.choice(STYLES) for _ in scenes]
    return picture_tensor(scenes, rng, styles), scenes, styles
