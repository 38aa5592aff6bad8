"""Trains the autoencoder: `python -m recipes.pocket_image.autoencoder --folder out/image`."""

import argparse
import random
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from recipes.pocket_image.batches import draw_mixed_batch
from recipes.pocket_image.networks import make_autoencoder

_INK_WEIGHT = 6.0
_LATENT_NOISE = 0.07
"""Share of the latents' deviation."""

_LOG_VARIANCE = -8.0
"""What the finished encoder says of its latents; it was not trained to say."""


def train_autoencoder(folder: Path, num_steps: int, seed: int, batch: int = 48, rate: float = 3e-3) -> None:
    """Writes `folder`/vae, its latents scaled so that each channel has mean 0 and deviation 1."""
    model = _opened(folder / "vae")
    rng = _train(model, folder, num_steps, seed, batch, rate)
    _normalise(model, rng)
    model.save_pretrained(folder / "vae")


def train_decoder(folder: Path, num_steps: int, seed: int, batch: int = 48, rate: float = 2e-3) -> None:
    """Goes on with the decoder alone: latents, and so a UNet that was trained on them, stay as they are."""
    model = _opened(folder / "vae")
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    _train(model, folder, num_steps, seed, batch, rate)


def _train(model: AutoencoderKL, folder: Path, num_steps: int, seed: int, batch: int, rate: float) -> random.Random:
    torch.manual_seed(seed)
    rng = random.Random(seed)
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=rate, betas=(0.9, 0.99), weight_decay=1e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, num_steps, pct_start=0.1)
    started_s = time.process_time()
    for step in range(1, num_steps + 1):
        pixels, _, _ = draw_mixed_batch(rng, batch)
        loss, error = _loss(model, pixels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 20 == 0:
            print(f"step {step} error {error:.4f} cpu {time.process_time() - started_s:.0f} s", flush=True)
        if step % 200 == 0 or step == num_steps:
            model.save_pretrained(folder / "vae")
    return rng


def _opened(folder: Path) -> AutoencoderKL:
    """What an interrupted training left, or an untrained one."""
    return AutoencoderKL.from_pretrained(folder) if folder.exists() else make_autoencoder()


def _loss(model: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, float]:
    """Without the divergence term, which shut three channels of four before any colour was learnt; a little noise on
    the latents makes the decoder forgiving instead."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = model.encode(pixels).latent_dist.mean
        noise = _LATENT_NOISE * latents.detach().float().std() * torch.randn(latents.shape)
        drawn = model.decode(latents + noise).sample
    difference = drawn.float() - pixels
    error = (_weight(pixels) * (difference.abs() + difference.pow(2))).mean()
    return error, float(error.detach())


def _weight(pixels: Tensor) -> Tensor:
    """Ink counts more than paper, which is nine tenths of most pictures and learnt at once."""
    paper = pixels[:, :, :1, :1]
    is_ink = ((pixels - paper).abs().amax(1, keepdim=True) > 0.1).float()
    return 1.0 + _INK_WEIGHT * functional.max_pool2d(is_ink, 3, stride=1, padding=1)


@torch.no_grad()
def _normalise(model: AutoencoderKL, rng: random.Random) -> None:
    """Folds mean and deviation of each latent channel into the convolutions around it."""
    latents = torch.cat([model.encode(draw_mixed_batch(rng, 64)[0]).latent_dist.mean for _ in range(8)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    num, into, out = len(mean), model.quant_conv, model.post_quant_conv
    out.bias += (out.weight[:, :, 0, 0] * mean).sum(1)
    out.weight *= deviation[None, :, None, None]
    into.weight[:num] /= deviation[:, None, None, None]
    into.bias[:num] = (into.bias[:num] - mean) / deviation
    into.weight[num:] = 0.0
    into.bias[num:] = _LOG_VARIANCE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--num-steps", type=int, default=550)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    train = train_decoder if given.decoder_only else train_autoencoder
    train(given.folder, given.num_steps, given.seed, rate=given.rate)


if __name__ == "__main__":
    main()
