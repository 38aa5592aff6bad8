"""Tiny image models with random weights, and something that drives an engine as a scheduler does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from speciate.core.denoise import (
    DenoisePlan,
    DenoiseResult,
    DenoiseSpec,
    ItemFacts,
    ItemStep,
    Picture,
    Stage,
)
from speciate.engines.diffusers.checkpoint import read_checkpoint, unpack
from speciate.engines.diffusers.engine import DiffusersEngine
from speciate.engines.diffusers.options import DiffusersOptions
from speciate.models.pocket import IMAGE_DIR


class Driver:
    """Takes items through their stages on one engine."""

    def __init__(self, engine: DiffusersEngine) -> None:
        self.engine = engine
        self.facts: dict[int, ItemFacts] = {}
        self.specs: dict[int, DenoiseSpec] = {}

    def add(self, *specs: DenoiseSpec) -> None:
        """Add and encode."""
        for spec in specs:
            self.facts[spec.item_id] = self.engine.add(spec)
            self.specs[spec.item_id] = spec
        for spec in specs:
            self.step(Stage.ENCODE, [(spec.item_id, 0)])

    def step(self, stage: Stage, shares: Sequence[tuple[int, int]]) -> DenoiseResult:
        items = tuple(ItemStep(item_id, index) for item_id, index in shares)
        return self.engine.step(DenoisePlan(0, self.engine.shape.model, stage, items))

    def finish_passes(self, *item_ids: int, start: int = 0) -> None:
        """All passes that are left, those that have some in one step each time."""
        most = max(self.facts[i].num_passes for i in item_ids)
        for index in range(start, most):
            shares = [(i, index) for i in item_ids if index < self.facts[i].num_passes]
            assert not self.step(Stage.PASS, shares).failed

    def latents(self, item_id: int) -> Tensor:
        saved = read_checkpoint(self.engine.save(item_id), self.engine.shape.model, self.specs[item_id])
        latents: Tensor = unpack(saved.tensors["latents"], torch.device("cpu"))
        return latents

    def decode(self, item_id: int) -> Picture:
        pictures: tuple[Picture, ...] = ()
        for index in range(self.facts[item_id].num_decode_slices):
            assert not pictures
            pictures = self.step(Stage.DECODE, [(item_id, index)]).pictures
        (picture,) = pictures
        return picture

    def draw(self, spec: DenoiseSpec) -> Tensor:
        """An item alone, from its first step to its last pass; its latents."""
        self.add(spec)
        self.finish_passes(spec.item_id)
        return self.latents(spec.item_id)


def max_difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.fixture(scope="session")
def differ() -> Callable[[Tensor, Tensor], float]:
    return max_difference


def save_tiny_sd(folder: Path, seed: int, **more: Any) -> Path:
    """Stable Diffusion's parts, random and tiny; it predicts noise, on latents half as wide as its pictures."""
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(IMAGE_DIR / "tokenizer")
    unet = diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=8, **more,
    )  # fmt: skip
    text = CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                          num_attention_heads=2, max_position_embeddings=16)  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=32, scaling_factor=0.7,
    )  # fmt: skip
    diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet,
        scheduler=diffusers.PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sd(tmp_path_factory.mktemp("sd"), seed=3)


@pytest.fixture(scope="session")
def sd_pipeline(sd_folder: Path) -> Any:
    """The stock pipeline over the same folder."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(sd_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def sd(sd_folder: Path) -> Driver:
    return Driver(DiffusersEngine.load(sd_folder, DiffusersOptions("tiny")))


@pytest.fixture(scope="session")
def start_driver() -> Callable[[Path], Driver]:
    return lambda folder: Driver(DiffusersEngine.load(folder, DiffusersOptions("tiny")))
