"""Prints how well a folder draws what is asked: `python -m recipes.pocket_image.report FOLDER --judge FOLDER`.

Through the stock pipeline, as an independent reader of the folder.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
from PIL import Image

from speciate.models.pocket.draw import STYLES
from speciate.models.pocket.picture_evaluate import Draw, evaluate_pictures
from speciate.models.pocket.picture_judge import PictureJudge

_AT_ONCE = 32


def stock_drawer(folder: Path, adapter: Path | None, num_steps: int, guidance: float, sampler: str | None) -> Draw:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if sampler is not None:
        pipeline.scheduler = getattr(diffusers, sampler).from_config(pipeline.scheduler.config)
    if adapter is not None:
        pipeline.load_lora_weights(adapter)

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        pictures: list[Image.Image] = []
        for first in range(0, len(prompts), _AT_ONCE):
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[first : first + _AT_ONCE]]
            pictures += pipeline(list(prompts[first : first + _AT_ONCE]), num_inference_steps=num_steps,
                                 guidance_scale=guidance, generator=generators).images  # fmt: skip
        return pictures

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--style", choices=STYLES)
    parser.add_argument("--num", type=int, default=127)
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=1.25)
    parser.add_argument("--sampler", help="a diffusers class, as DPMSolverMultistepScheduler")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    draw = stock_drawer(given.folder, given.adapter, given.num_steps, given.guidance, given.sampler)
    agreement = evaluate_pictures(draw, PictureJudge.load(given.judge), given.num, given.seed, given.style)
    print(f"agreement {agreement.share:.3f} of {agreement.num_pictures}")
    print({part: round(num / agreement.num_pictures, 3) for part, num in agreement.parts.items()})
    for scene, sight in agreement.misses:
        print(f"asked {scene}\n  drew {sight}")


if __name__ == "__main__":
    main()
