"""Writes the trained parts as a folder that `StableDiffusionPipeline.from_pretrained` loads."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from recipes.pocket_image.denoiser import Denoiser


def write_folder(model: Denoiser, folder: Path) -> None:
    """In float16; the folder holds the autoencoder already."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=model.noise,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
