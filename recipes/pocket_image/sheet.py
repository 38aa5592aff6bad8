"""A sheet of pictures to look at: what the folder draws for a fixed set of held-out prompts."""

import random
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from speciate.models.pocket.draw import SIZE_PX
from speciate.models.pocket.scenes import held_out_scenes, prompt_of

_COLUMNS, _ROWS, _ENLARGED = 12, 4, 3


def write_sheet(folder: Path, path: Path, num_steps: int = 25, guidance: float = 3.0) -> None:
    """Also prints the prompts, row by row."""
    prompts = [prompt_of(scene) for scene in random.Random(7).sample(held_out_scenes(), _COLUMNS * _ROWS)]
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(
        prompts, num_inference_steps=num_steps, guidance_scale=guidance, generator=torch.Generator().manual_seed(5)
    ).images
    cell = SIZE_PX + 2
    sheet = Image.new("RGB", (_COLUMNS * cell, _ROWS * cell), (128, 128, 128))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % _COLUMNS * cell + 1, number // _COLUMNS * cell + 1))
    sheet.resize((sheet.width * _ENLARGED, sheet.height * _ENLARGED), Image.Resampling.NEAREST).save(path)
    for row in range(_ROWS):
        print(" | ".join(prompts[row * _COLUMNS : (row + 1) * _COLUMNS]), flush=True)
