"""Writes the trained parts as a folder that `StableDiffusionPipeline.from_pretrained` loads."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from recipes.pocket_image.denoiser import Denoiser


def write_folder(model: Denoiser, folder: Path) -> None:
    """The autoencoder is in the folder already. Networks in float16; the small text encoder stays float32, as pipelines
    take their own type from it when none is asked for."""
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
    pipeline.unet.to(torch.float16)
    pipeline.vae.to(torch.float16)
    pipeline.save_pretrained(folder)
