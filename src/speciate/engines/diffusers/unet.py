"""Models with a UNet: Stable Diffusion 1.5, 2 and XL, and whatever has their folder's shape."""

from typing import Any

import torch
from torch import Tensor

from speciate.core.denoise import DenoiseSpec
from speciate.engines.diffusers.family import Condition, Conditions, LoadedFamily, PassRows


def unet_family(pipeline: Any) -> LoadedFamily:
    """Of a StableDiffusionPipeline or a StableDiffusionXLPipeline."""
    unet, scale = pipeline.unet, pipeline.vae_scale_factor
    kind = UnetXlFamily if hasattr(pipeline, "text_encoder_2") else UnetFamily
    return LoadedFamily(
        family=kind(pipeline),
        pipeline=pipeline,
        denoiser=unet,
        size_multiple=max(8, scale),
        native_size=unet.config.sample_size * scale,
        default_guidance=None if _embeds_guidance(unet) else 7.5,
        has_embedded_guidance=_embeds_guidance(unet),
        takes_source=True,
    )


class UnetFamily:
    """Stable Diffusion 1.5 and 2."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._unet = pipeline.unet

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        scale: int = self._pipeline.vae_scale_factor
        return (int(self._unet.config.in_channels), height // scale, width // scale)

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        return latent_shape[1] * latent_shape[2]

    def set_timesteps(self, sampler: Any, num_steps: int, latent_shape: tuple[int, ...]) -> None:
        sampler.set_timesteps(num_steps, device=self._unet.device)

    def encode(self, spec: DenoiseSpec, is_guided: bool) -> Conditions:
        prompt, negative = self._pipeline.encode_prompt(
            spec.prompt, self._unet.device, 1, is_guided, spec.negative_prompt or None
        )
        return Conditions({"prompt": prompt}, {"prompt": negative} if is_guided else None)

    def predict(self, rows: PassRows) -> Tensor:
        prediction: Tensor = self._unet(
            rows.latents,
            rows.timesteps,
            encoder_hidden_states=rows.conditions["prompt"],
            timestep_cond=self._embedded(rows.guidance),
            added_cond_kwargs=self._added(rows.conditions),
            return_dict=False,
        )[0]
        return prediction

    def to_autoencoder(self, latents: Tensor, spec: DenoiseSpec) -> Tensor:
        return latents / float(self._pipeline.vae.config.scaling_factor)

    def _added(self, conditions: Condition) -> Condition | None:
        return None

    def _embedded(self, guidance: Tensor | None) -> Tensor | None:
        """Guidance as a distilled model (LCM) reads it."""
        if guidance is None:
            return None
        embedded: Tensor = self._pipeline.get_guidance_scale_embedding(
            guidance - 1, embedding_dim=self._unet.config.time_cond_proj_dim
        )
        return embedded.to(self._unet.device, self._unet.dtype)


class UnetXlFamily(UnetFamily):
    """Stable Diffusion XL: two text encoders, and the picture's size as a condition."""

    def encode(self, spec: DenoiseSpec, is_guided: bool) -> Conditions:
        prompt, negative, pooled, negative_pooled = self._pipeline.encode_prompt(
            spec.prompt,
            device=self._unet.device,
            do_classifier_free_guidance=is_guided,
            negative_prompt=spec.negative_prompt or None,
        )
        sizes = torch.tensor([[spec.height, spec.width, 0, 0, spec.height, spec.width]])
        shared = {"time_ids": sizes.to(self._unet.device, prompt.dtype)}
        positive = {"prompt": prompt, "text_embeds": pooled, **shared}
        if not is_guided:
            return Conditions(positive)
        return Conditions(positive, {"prompt": negative, "text_embeds": negative_pooled, **shared})

    def _added(self, conditions: Condition) -> Condition | None:
        return {name: conditions[name] for name in ("text_embeds", "time_ids")}


def _embeds_guidance(unet: Any) -> bool:
    return unet.config.time_cond_proj_dim is not None
