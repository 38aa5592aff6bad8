"""Models whose denoiser is a transformer: PixArt, Stable Diffusion 3, Flux."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from speciate.core.denoise import DenoiseSpec
from speciate.engines.diffusers.family import Conditions, LoadedFamily, PassRows

PIXART_GUIDANCE, SD3_GUIDANCE, FLUX_GUIDANCE = 4.5, 7.0, 3.5
"""As their own pipelines have them."""


def pixart_family(pipeline: Any) -> LoadedFamily:
    """Of PixArtAlphaPipeline without micro-conditions, or PixArtSigmaPipeline."""
    config, scale = pipeline.transformer.config, pipeline.vae_scale_factor
    return LoadedFamily(
        family=PixartFamily(pipeline),
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        size_multiple=max(8, scale * config.patch_size),
        native_size=config.sample_size * scale,
        default_guidance=PIXART_GUIDANCE,
    )


def sd3_family(pipeline: Any) -> LoadedFamily:
    """Of a StableDiffusion3Pipeline."""
    scale = pipeline.vae_scale_factor
    return LoadedFamily(
        family=Sd3Family(pipeline),
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        size_multiple=scale * pipeline.patch_size,
        native_size=pipeline.default_sample_size * scale,
        default_guidance=SD3_GUIDANCE,
    )


def flux_family(pipeline: Any) -> LoadedFamily:
    """Of a FluxPipeline; guidance is an input of the network where it was distilled so."""
    scale, is_guided = pipeline.vae_scale_factor, bool(pipeline.transformer.config.guidance_embeds)
    return LoadedFamily(
        family=FluxFamily(pipeline),
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        size_multiple=2 * scale,
        native_size=pipeline.default_sample_size * scale,
        default_guidance=FLUX_GUIDANCE if is_guided else None,
        has_embedded_guidance=True,
    )


class PixartFamily:
    """One T5 encoder with a mask; predicts noise, and with it a variance that samplers here do not use."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._network = pipeline.transformer

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return _latent_shape(self._pipeline, width, height)

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        return _num_patches(self._network, latent_shape)

    def set_timesteps(self, sampler: Any, num_steps: int, latent_shape: tuple[int, ...]) -> None:
        sampler.set_timesteps(num_steps, device=self._network.device)

    def encode(self, spec: DenoiseSpec, is_guided: bool) -> Conditions:
        prompt, mask, negative, negative_mask = self._pipeline.encode_prompt(
            spec.prompt, is_guided, negative_prompt=spec.negative_prompt, device=self._network.device
        )
        without = {"prompt": negative, "mask": negative_mask} if is_guided else None
        return Conditions({"prompt": prompt, "mask": mask}, without)

    def predict(self, rows: PassRows) -> Tensor:
        predicted: Tensor = self._network(
            rows.latents,
            encoder_hidden_states=rows.conditions["prompt"],
            encoder_attention_mask=rows.conditions["mask"],
            timestep=rows.timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return predicted[:, : rows.latents.shape[1]]

    def to_autoencoder(self, latents: Tensor, spec: DenoiseSpec) -> Tensor:
        return latents / float(self._pipeline.vae.config.scaling_factor)


class Sd3Family:
    """Two CLIP encoders and T5; straight flow, its times shifted by the number of tokens where the folder says so."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._network = pipeline.transformer

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return _latent_shape(self._pipeline, width, height)

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        return _num_patches(self._network, latent_shape)

    def set_timesteps(self, sampler: Any, num_steps: int, latent_shape: tuple[int, ...]) -> None:
        shift = {}
        if sampler.config.get("use_dynamic_shifting", None):
            shift["mu"] = _shift(sampler, self.num_tokens(latent_shape), most=1.16)
        sampler.set_timesteps(num_steps, device=self._network.device, **shift)

    def encode(self, spec: DenoiseSpec, is_guided: bool) -> Conditions:
        prompt, negative, pooled, negative_pooled = self._pipeline.encode_prompt(
            spec.prompt,
            None,
            None,
            device=self._network.device,
            do_classifier_free_guidance=is_guided,
            negative_prompt=spec.negative_prompt or None,
        )
        without = {"prompt": negative, "pooled": negative_pooled} if is_guided else None
        return Conditions({"prompt": prompt, "pooled": pooled}, without)

    def predict(self, rows: PassRows) -> Tensor:
        predicted: Tensor = self._network(
            hidden_states=rows.latents,
            timestep=rows.timesteps,
            encoder_hidden_states=rows.conditions["prompt"],
            pooled_projections=rows.conditions["pooled"],
            return_dict=False,
        )[0]
        return predicted

    def to_autoencoder(self, latents: Tensor, spec: DenoiseSpec) -> Tensor:
        config = self._pipeline.vae.config
        return latents / float(config.scaling_factor) + float(config.shift_factor)


class FluxFamily:
    """CLIP and T5; the network takes packed patches, samplers see plain latents: what they do is the same to each
    number, packed or not."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._network = pipeline.transformer

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        scale: int = self._pipeline.vae_scale_factor
        return (int(self._network.config.in_channels) // 4, height // scale, width // scale)

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        return (latent_shape[1] // 2) * (latent_shape[2] // 2)

    def set_timesteps(self, sampler: Any, num_steps: int, latent_shape: tuple[int, ...]) -> None:
        sigmas = None if sampler.config.get("use_flow_sigmas", None) else np.linspace(1.0, 1 / num_steps, num_steps)
        mu = _shift(sampler, self.num_tokens(latent_shape), most=1.15)
        sampler.set_timesteps(num_steps, sigmas=sigmas, mu=mu, device=self._network.device)

    def encode(self, spec: DenoiseSpec, is_guided: bool) -> Conditions:
        prompt, pooled, _ = self._pipeline.encode_prompt(spec.prompt, None, device=self._network.device)
        return Conditions({"prompt": prompt, "pooled": pooled})

    def predict(self, rows: PassRows) -> Tensor:
        num_rows, channels, height, width = rows.latents.shape
        pipeline, prompt = self._pipeline, rows.conditions["prompt"]
        device, dtype = rows.latents.device, prompt.dtype
        is_guided = self._network.config.guidance_embeds and rows.guidance is not None
        predicted = self._network(
            hidden_states=pipeline._pack_latents(rows.latents, num_rows, channels, height, width),
            timestep=rows.timesteps.to(rows.latents.dtype) / 1000,
            guidance=rows.guidance.float() if is_guided and rows.guidance is not None else None,
            pooled_projections=rows.conditions["pooled"],
            encoder_hidden_states=prompt,
            txt_ids=torch.zeros(prompt.shape[1], 3, device=device, dtype=dtype),
            img_ids=pipeline._prepare_latent_image_ids(num_rows, height // 2, width // 2, device, dtype),
            return_dict=False,
        )[0]
        scale = pipeline.vae_scale_factor
        unpacked: Tensor = pipeline._unpack_latents(predicted, height * scale, width * scale, scale)
        return unpacked

    def to_autoencoder(self, latents: Tensor, spec: DenoiseSpec) -> Tensor:
        config = self._pipeline.vae.config
        return latents / float(config.scaling_factor) + float(config.shift_factor)


def _latent_shape(pipeline: Any, width: int, height: int) -> tuple[int, ...]:
    """(channels, height, width) of unpacked latents."""
    scale: int = pipeline.vae_scale_factor
    return (int(pipeline.transformer.config.in_channels), height // scale, width // scale)


def _num_patches(network: Any, latent_shape: tuple[int, ...]) -> int:
    patch: int = network.config.patch_size
    return (latent_shape[1] // patch) * (latent_shape[2] // patch)


def _shift(sampler: Any, num_tokens: int, most: float) -> float:
    """mu: linear in the number of tokens between what the folder's scheduler gives for few and for many of them."""
    config = sampler.config
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", most)
    slope = (top - base) / (many - few)
    return float(num_tokens * slope + (base - slope * few))
