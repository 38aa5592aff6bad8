"""Transformers: PixArt, Stable Diffusion 3 and Flux, tiny and random, against their stock pipelines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from speciate.core.denoise import DenoiseSpec, Stage
from speciate.models.pocket import IMAGE_DIR

T5_WIDTH, CLIP_WIDTH = 32, 16


def t5_parts() -> tuple[PreTrainedTokenizerFast, T5EncoderModel]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "</s>", "<unk>"]
    made = Tokenizer(BPE({token: n for n, token in enumerate([*specials, *letters])}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    config = T5Config(vocab_size=len(made.get_vocab()), d_model=T5_WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=2)
    return tokenizer, T5EncoderModel(config)


def clip_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=CLIP_WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=CLIP_WIDTH,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip


def autoencoder(**more: Any) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=32, scaling_factor=0.7, **more,
    )  # fmt: skip


def make_pixart() -> Any:
    tokenizer, encoder = t5_parts()
    return diffusers.PixArtSigmaPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=autoencoder(), scheduler=diffusers.DPMSolverMultistepScheduler(),
        transformer=diffusers.PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
            cross_attention_dim=16, caption_channels=T5_WIDTH, sample_size=16, patch_size=2,
            use_additional_conditions=False,
        ),
    )  # fmt: skip


def make_sd3() -> Any:
    tokenizer, encoder = t5_parts()
    clip = CLIPTokenizer.from_pretrained(IMAGE_DIR / "tokenizer")
    return diffusers.StableDiffusion3Pipeline(
        tokenizer=clip, text_encoder=CLIPTextModelWithProjection(clip_config(clip)),
        tokenizer_2=clip, text_encoder_2=CLIPTextModelWithProjection(clip_config(clip)),
        tokenizer_3=tokenizer, text_encoder_3=encoder, vae=autoencoder(shift_factor=0.1),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=T5_WIDTH, caption_projection_dim=16, pooled_projection_dim=2 * CLIP_WIDTH,
            out_channels=4, pos_embed_max_size=32,
        ),
    )  # fmt: skip


def make_flux() -> Any:
    tokenizer, encoder = t5_parts()
    clip = CLIPTokenizer.from_pretrained(IMAGE_DIR / "tokenizer")
    return diffusers.FluxPipeline(
        tokenizer=clip, text_encoder=CLIPTextModel(clip_config(clip)), tokenizer_2=tokenizer, text_encoder_2=encoder,
        vae=autoencoder(shift_factor=0.1),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=T5_WIDTH, pooled_projection_dim=CLIP_WIDTH,
            guidance_embeds=True, axes_dims_rope=(4, 4, 8),
        ),
    )  # fmt: skip


KINDS: dict[str, Callable[[], Any]] = {"pixart": make_pixart, "sd3": make_sd3, "flux": make_flux}
CALL: dict[str, dict[str, Any]] = {"pixart": {"use_resolution_binning": False, "clean_caption": False}}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def stock(kind: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder, and the stock pipeline that reads it."""
    torch.manual_seed(11)
    folder = tmp_path_factory.mktemp(kind)
    made = KINDS[kind]()
    made.save_pretrained(folder)
    pipeline = type(made).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return folder, pipeline


def spec_of(number: int) -> DenoiseSpec:
    return DenoiseSpec(number, f"a red circle {number}", 32, 32, 3 + number, seed=number, guidance=2.0 + number)


def expected(kind: str, pipeline: Any, spec: DenoiseSpec, output_type: str = "latent") -> Any:
    drawn = pipeline(
        prompt=spec.prompt, height=32, width=32, num_inference_steps=spec.num_steps, guidance_scale=spec.guidance,
        generator=torch.Generator().manual_seed(spec.seed), output_type=output_type, **CALL.get(kind, {}),
    ).images  # fmt: skip
    if kind == "flux" and output_type == "latent":
        return pipeline._unpack_latents(drawn, 32, 32, pipeline.vae_scale_factor)
    return drawn


def test_alone_mixed_and_resumed_it_equals_the_stock_pipeline(
    kind: str, stock: tuple[Path, Any], start_driver: Any, differ: Callable[[Tensor, Tensor], float]
) -> None:
    folder, pipeline = stock
    driver = start_driver(folder)
    wanted = {n: expected(kind, pipeline, spec_of(n)) for n in range(3)}
    assert differ(driver.draw(spec_of(0)), wanted[0]) < 1e-4
    picture = np.frombuffer(driver.decode(0).rgb, np.uint8).reshape(32, 32, 3).astype(int)
    whole = np.asarray(expected(kind, pipeline, spec_of(0), "pil")[0]).astype(int)
    assert np.abs(picture - whole).max() <= 1
    driver.add(spec_of(1), spec_of(2))
    driver.step(Stage.PASS, [(2, 0)])
    for index in range(4):
        driver.step(Stage.PASS, [(1, index), (2, index + 1)])
    assert max(differ(driver.latents(n), wanted[n]) for n in (1, 2)) < 1e-3
    other = start_driver(folder)
    driver.engine.remove(1)
    driver.add(spec_of(1))
    driver.step(Stage.PASS, [(1, 0)])
    other.specs[1], other.facts[1] = spec_of(1), other.engine.add(spec_of(1), driver.engine.save(1))
    other.finish_passes(1, start=1)
    assert differ(other.latents(1), wanted[1]) < 1e-4


def test_tokens_are_patches(kind: str, stock: tuple[Path, Any], start_driver: Any) -> None:
    driver = start_driver(stock[0])
    facts = driver.engine.facts(spec_of(0))
    assert facts.num_tokens == 64
    assert facts.num_rows == (1 if kind == "flux" else 2)
    assert driver.engine.shape.size_multiple in (4, 8)
