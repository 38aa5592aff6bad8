"""Trains a LoRA style: `python -m recipes.pocket_image.adapter --style night --base out/image --folder out/night`.

The prompts are the base's; the pictures are drawn in the style. One thread, minutes.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from recipes.pocket_image.denoiser import Denoiser
from recipes.pocket_image.latents import make_bank
from recipes.pocket_image.train import schedule
from speciate.models.pocket.draw import STYLES, Style

RANK = 8
_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
           "conv_in", "conv_out"]  # fmt: skip


def train_style(base: Path, folder: Path, style: Style, num_steps: int, seed: int, batch: int, rate: float) -> None:
    """Writes `folder`/pytorch_lora_weights.safetensors."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=_LAYERS)
    pipeline.text_encoder.requires_grad_(False)
    pipeline.unet.requires_grad_(False)
    pipeline.unet.add_adapter(config)
    model = Denoiser(pipeline.tokenizer, pipeline.text_encoder, pipeline.unet)
    weights = [parameter for parameter in pipeline.unet.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, betas=(0.9, 0.99), weight_decay=0.0)
    bank = make_bank(base / "vae", 6_000, seed, style)
    losses: list[float] = []
    started_s = time.process_time()
    for step in range(num_steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(step, num_steps)
        loss: Tensor = model.loss(*bank.draw(batch, rng))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {sum(losses) / len(losses):.4f} cpu {time.process_time() - started_s:.0f} s",
                  flush=True)  # fmt: skip
            losses = []
    layers = {name: tensor.to(torch.float16) for name, tensor in get_peft_model_state_dict(pipeline.unet).items()}
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=layers, unet_lora_adapter_metadata=config.to_dict()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="the pocket image model's folder")
    parser.add_argument("--folder", type=Path, required=True, help="where the adapter is written")
    parser.add_argument("--style", choices=STYLES[1:], required=True)
    parser.add_argument("--num-steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    train_style(given.base, given.folder, given.style, given.num_steps, given.seed, given.batch, given.rate)


if __name__ == "__main__":
    main()
