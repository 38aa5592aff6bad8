"""How an item begins: its sampler and timesteps, and its latents from noise or from a picture."""

import inspect
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from torch.nn import functional

from speciate.core.denoise import DenoiseSpec, SourceImage
from speciate.core.errors import InvalidRequest
from speciate.engines.diffusers.family import LoadedFamily
from speciate.engines.diffusers.items import Item
from speciate.engines.diffusers.samplers import SamplerTable


def make_item(spec: DenoiseSpec, loaded: LoadedFamily, samplers: SamplerTable) -> Item:
    """With latents, unless it starts from a picture. Raises InvalidRequest for steps that its sampler cannot make."""
    shape = loaded.family.latent_shape(spec.width, spec.height)
    sampler = make_sampler(spec, loaded, samplers)
    is_guided = not loaded.has_embedded_guidance and spec.guidance is not None and spec.guidance > 1.0
    item = Item(
        spec=spec,
        sampler=sampler,
        timesteps=_timesteps(spec, sampler),
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        is_guided=is_guided,
    )
    if spec.source is None:
        noise = _noise(item, shape, loaded)
        item.latents = noise * getattr(sampler, "init_noise_sigma", 1.0)
    return item


def make_sampler(spec: DenoiseSpec, loaded: LoadedFamily, samplers: SamplerTable) -> Any:
    """A fresh one whose timesteps are set, and which begins where the item does."""
    sampler = samplers.make(spec.sampler)
    try:
        loaded.family.set_timesteps(sampler, spec.num_steps, loaded.family.latent_shape(spec.width, spec.height))
    except (ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
        raise InvalidRequest(
            f"{spec.num_steps} steps do not work with sampler {spec.sampler or 'of this model'}: {error}", param="steps"
        ) from error
    if spec.source is not None and hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(_first_index(spec, sampler))
    return sampler


def start_from_picture(item: Item, source: SourceImage, loaded: LoadedFamily) -> None:
    """Encode the picture and add the noise of the first timestep; as diffusers' image-to-image and inpainting do."""
    pipeline, spec = loaded.pipeline, item.spec
    picture = Image.frombytes("RGB", (source.width, source.height), source.rgb)
    pixels = pipeline.image_processor.preprocess(picture, spec.height, spec.width)
    pixels = pixels.to(pipeline.vae.device, pipeline.vae.dtype)
    encoded = _sampled(pipeline.vae.encode(pixels), item.generator) * pipeline.vae.config.scaling_factor
    noise = _noise(item, tuple(encoded.shape[1:]), loaded)
    if source.mask is not None and source.strength >= 1.0:
        item.latents = noise * item.sampler.init_noise_sigma
    else:
        item.latents = item.sampler.add_noise(encoded, noise, item.timesteps[0].reshape(1))
    if source.mask is not None:
        item.source_latents, item.source_noise = encoded, noise
        item.mask = _mask(source, tuple(encoded.shape[2:])).to(encoded.device, encoded.dtype)


def keep_unmasked(item: Item, latents: Tensor, index: int) -> Tensor:
    """After pass `index`: where the mask is 0, the source as noisy as the rest is now."""
    if item.mask is None or item.source_latents is None:
        return latents
    kept = item.source_latents
    if index + 1 < len(item.timesteps):
        kept = item.sampler.add_noise(kept, item.source_noise, item.timesteps[index + 1].reshape(1))
    return (1 - item.mask) * kept + item.mask * latents


def step_arguments(item: Item) -> dict[str, Any]:
    """Samplers that draw noise draw it from the item's own generator."""
    takes = inspect.signature(item.sampler.step).parameters
    return {"generator": item.generator} if "generator" in takes else {}


def _timesteps(spec: DenoiseSpec, sampler: Any) -> tuple[Tensor, ...]:
    if spec.source is not None and int(spec.num_steps * spec.source.strength) < 1:
        raise InvalidRequest(
            f"Strength {spec.source.strength} of {spec.num_steps} steps leaves none to run; raise strength or steps.",
            param="strength",
        )
    return tuple(sampler.timesteps[_first_index(spec, sampler) :])


def _first_index(spec: DenoiseSpec, sampler: Any) -> int:
    if spec.source is None:
        return 0
    num_run = min(int(spec.num_steps * spec.source.strength), spec.num_steps)
    return int(max(spec.num_steps - num_run, 0) * sampler.order)


def _noise(item: Item, shape: tuple[int, ...], loaded: LoadedFamily) -> Tensor:
    device, dtype = loaded.denoiser.device, loaded.denoiser.dtype
    noise: Tensor = randn_tensor((1, *shape), generator=item.generator, device=torch.device(device), dtype=dtype)
    return noise


def _sampled(encoded: Any, generator: torch.Generator) -> Tensor:
    """Of a variational autoencoder a draw, of a plain one the latents."""
    if hasattr(encoded, "latent_dist"):
        drawn: Tensor = encoded.latent_dist.sample(generator)
        return drawn
    latents: Tensor = encoded.latents
    return latents


def _mask(source: SourceImage, size: tuple[int, ...]) -> Tensor:
    if source.mask is None:
        raise AssertionError("a source without a mask has none")
    flat = torch.frombuffer(bytearray(source.mask), dtype=torch.uint8)
    mask = (flat.reshape(1, 1, source.height, source.width) >= 128).float()
    return functional.interpolate(mask, size=size)
