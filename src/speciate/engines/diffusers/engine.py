"""Implements `ForesightedEngine` and `AdapterHost` for one diffusers folder.

A pass: each item's sampler scales its latents, all rows go through the network at once, each with its own timestep,
prompt, guidance and adapters; then each item's sampler takes its own rows' prediction one step on.
"""

# ruff: noqa: N806 -- names end in their shape

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from speciate.core.denoise import (
    AdapterUse,
    DenoisePlan,
    DenoiseResult,
    DenoiseShape,
    DenoiseSpec,
    ItemFacts,
    ItemStep,
    Picture,
    Stage,
)
from speciate.core.errors import EngineFailed, InvalidRequest, InvariantError
from speciate.engines.diffusers.checkpoint import (
    Checkpoint,
    changed_attributes,
    digest_of,
    pack,
    read_checkpoint,
    restore_attributes,
    unpack,
    write_checkpoint,
)
from speciate.engines.diffusers.family import LoadedFamily
from speciate.engines.diffusers.items import Item
from speciate.engines.diffusers.load import load_family
from speciate.engines.diffusers.lora import LoraNetwork
from speciate.engines.diffusers.lora_files import ParsedLora, parse_lora
from speciate.engines.diffusers.options import DiffusersOptions
from speciate.engines.diffusers.passes import cleaned, predict, step_samplers
from speciate.engines.diffusers.samplers import SamplerTable
from speciate.engines.diffusers.slices import SlicedDecoder
from speciate.engines.diffusers.start import make_item, make_sampler, start_from_picture

_SAVED_TENSORS = ("latents", "source_latents", "source_noise", "mask")
_MAX_STEPS = 1000


class DiffusersEngine:
    """Owns the pipeline, its adapters and the items. Threads: as `DenoiseEngine` says."""

    def __init__(self, loaded: LoadedFamily, options: DiffusersOptions) -> None:
        self._loaded = loaded
        self._family = loaded.family
        self._options = options
        self._samplers = SamplerTable(loaded.pipeline.scheduler)
        self._decoder = SlicedDecoder(loaded.pipeline.vae)
        self._networks = _adapted_networks(loaded)
        self._parsed: dict[tuple[str, str], ParsedLora] = {}
        self._attached: dict[str, int] = {}
        self._items: dict[int, Item] = {}

    @classmethod
    def load(cls, folder: Path, options: DiffusersOptions) -> Self:
        """Raises LoadFailed."""
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        engine = cls(load_family(folder, options), options)
        for adapter in options.adapters:
            engine.attach(adapter.name, adapter.path)
        return engine

    @property
    def shape(self) -> DenoiseShape:
        loaded, options = self._loaded, self._options
        native = loaded.native_size
        given = options.default_guidance
        return DenoiseShape(
            model=options.model_name,
            size_multiple=loaded.size_multiple,
            min_size=loaded.size_multiple,
            max_size=options.max_size or 2 * native,
            default_size=(native, native),
            default_steps=options.default_steps,
            default_guidance=loaded.default_guidance if given is None else given,
            max_rows=options.max_rows,
            max_steps=_MAX_STEPS,
            samplers=self._samplers.names,
            adapters=tuple(self._attached),
            model_bytes=sum(network.num_bytes for network in self._networks.values()),
        )

    # ---- items -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def facts(self, spec: DenoiseSpec) -> ItemFacts:
        self._validate(spec)
        return self._facts(make_item(spec, self._loaded, self._samplers))

    @torch.inference_mode()
    def add(self, spec: DenoiseSpec, checkpoint: bytes | None = None) -> ItemFacts:
        self._validate(spec)
        item = make_item(spec, self._loaded, self._samplers)
        if checkpoint is not None:
            self._restore(item, checkpoint)
        self._items[spec.item_id] = item
        return self._facts(item)

    @torch.inference_mode()
    def save(self, item_id: int) -> bytes:
        item = self._items[item_id]
        fresh = make_sampler(item.spec, self._loaded, self._samplers)
        tensors = {name: pack(getattr(item, name)) for name in _SAVED_TENSORS if getattr(item, name) is not None}
        return write_checkpoint(
            Checkpoint(
                model=self._options.model_name,
                spec_digest=digest_of(item.spec),
                passes_done=item.passes_done,
                tensors=tensors,
                sampler=changed_attributes(item.sampler, fresh),
                generator=item.generator.get_state().numpy().tobytes(),
            )
        )

    def remove(self, item_id: int) -> None:
        self._items.pop(item_id, None)

    def close(self) -> None:
        self._items.clear()

    def _restore(self, item: Item, data: bytes) -> None:
        saved = read_checkpoint(data, self._options.model_name, item.spec)
        device = self._loaded.pipeline.device
        for name, value in saved.tensors.items():
            setattr(item, name, unpack(value, device))
        restore_attributes(item.sampler, saved.sampler, device)
        item.generator.set_state(torch.frombuffer(bytearray(saved.generator), dtype=torch.uint8))
        item.passes_done = saved.passes_done

    def _validate(self, spec: DenoiseSpec) -> None:
        shape = self.shape
        shape.validate(spec)
        if spec.source is not None and not self._loaded.takes_source:
            raise InvalidRequest(f"{shape.model} cannot start from a picture.", param="image")
        if spec.cache_threshold is not None:
            raise InvalidRequest(f"{shape.model} has no first-block cache.", param="cache_threshold")
        for use in spec.adapters:
            if use.name not in self._attached:
                known = ", ".join(self._attached) or "none"
                raise InvalidRequest(f"There is no adapter {use.name!r} here. Adapters: {known}.", param="adapters")

    def _facts(self, item: Item) -> ItemFacts:
        spec = item.spec
        shape = self._family.latent_shape(spec.width, spec.height)
        latent_bytes = torch.Size(shape).numel() * self._loaded.denoiser.dtype.itemsize
        kept = 1 + self._samplers.kept_latents(spec.sampler) + (0 if spec.source is None else 3)
        return ItemFacts(
            latent_shape=shape,
            num_tokens=self._family.num_tokens(shape),
            num_passes=len(item.timesteps),
            num_rows=item.num_rows,
            num_decode_slices=self._decoder.num_slices(spec.width * spec.height),
            passes_done=item.passes_done,
            state_bytes=kept * latent_bytes,
        )

    # ---- steps -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self, plan: DenoisePlan) -> DenoiseResult:
        shares = [(self._items[share.item_id], share) for share in plan.items]
        if len(shares) > 1 and any(item.spec.is_reproducible for item, _ in shares):
            raise InvariantError(
                "A reproducible item was planned together with others; this is a bug of the scheduler."
            )
        try:
            if plan.stage is Stage.ENCODE:
                return self._encode(shares)
            if plan.stage is Stage.PASS:
                return self._pass(shares)
            return self._decode(shares, is_preview=plan.stage is Stage.PREVIEW)
        except RuntimeError as error:
            raise EngineFailed(f"The image engine failed in step {plan.step_id}: {error}. Send it again.") from error

    def _encode(self, shares: list[tuple[Item, ItemStep]]) -> DenoiseResult:
        for item, _ in shares:
            self._make_conditions(item)
            if item.spec.source is not None and item.latents is None:
                start_from_picture(item, item.spec.source, self._loaded)
        return DenoiseResult()

    def _make_conditions(self, item: Item) -> None:
        """The prompt is encoded alone, as its own pipeline would."""
        uses, encoders = [item.spec.adapters], [n for name, n in self._networks.items() if "text_encoder" in name]
        with _entered(encoders, uses):
            item.conditions = self._family.encode(item.spec, item.is_guided)

    def _pass(self, shares: list[tuple[Item, ItemStep]]) -> DenoiseResult:
        items = [item for item, _ in shares]
        for item, share in shares:
            if share.index != item.passes_done:
                raise InvariantError(f"Item {share.item_id} stands at pass {item.passes_done}, not {share.index}.")
            if item.conditions is None:  # restored from a checkpoint, which holds no prompts
                self._make_conditions(item)
        uses = [item.spec.adapters for item in items for _ in range(item.num_rows)]
        with _entered([self._denoiser_network], uses):
            predictions = predict(items, self._loaded)
        return DenoiseResult(failed=step_samplers(items, predictions))

    def _decode(self, shares: list[tuple[Item, ItemStep]], *, is_preview: bool) -> DenoiseResult:
        pictures = [self._decode_slice(item, share.index, is_preview) for item, share in shares]
        return DenoiseResult(pictures=tuple(p for p in pictures if p is not None))

    def _decode_slice(self, item: Item, index: int, is_preview: bool) -> Picture | None:
        spec = item.spec
        num_slices = self._decoder.num_slices(spec.width * spec.height)
        if index == 0:
            latents = cleaned(item) if is_preview else item.noisy()
            item.decoding[is_preview] = self._family.to_autoencoder(latents, spec)
        state = self._decoder.run(item.decoding[is_preview], index, num_slices)
        if index + 1 < num_slices:
            item.decoding[is_preview] = state
            return None
        del item.decoding[is_preview]
        return Picture(spec.item_id, spec.width, spec.height, _rgb(state), is_preview=is_preview)

    # ---- adapters --------------------------------------------------------------------------------------------------

    @property
    def _denoiser_network(self) -> LoraNetwork:
        return next(network for name, network in self._networks.items() if "text_encoder" not in name)

    def attach(self, name: str, path: str) -> int:
        key = (name, path)
        if key not in self._parsed:
            parts = {part: network.layers for part, network in self._networks.items()}
            self._parsed[key] = parse_lora(Path(path), self._loaded.pipeline, parts)
        parsed = self._parsed[key]
        for part, network in self._networks.items():
            network.attach(name, parsed.parts[part])
        self._attached[name] = parsed.num_bytes
        return parsed.num_bytes

    def detach(self, name: str) -> None:
        self._attached.pop(name, None)
        for network in self._networks.values():
            network.detach(name)

    def forget(self, name: str) -> None:
        self._parsed = {key: parsed for key, parsed in self._parsed.items() if key[0] != name}


def _adapted_networks(loaded: LoadedFamily) -> dict[str, LoraNetwork]:
    """By the names that adapters' files use."""
    names = ("unet", "transformer", "text_encoder", "text_encoder_2")
    parts = {name: getattr(loaded.pipeline, name, None) for name in names}
    return {name: LoraNetwork(part) for name, part in parts.items() if part is not None}


@contextmanager
def _entered(networks: list[LoraNetwork], uses: list[tuple[AdapterUse, ...]]) -> Generator[None, None, None]:
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(network.rows(uses))
        yield


def _rgb(decoded: Tensor) -> bytes:
    """The first row's pixels, 8 bits, as diffusers' own image processor rounds them."""
    pixels_CHW = (decoded[0] / 2 + 0.5).clamp(0, 1)
    pixels_HWC = pixels_CHW.permute(1, 2, 0).float().cpu().mul(255).round().to(torch.uint8)
    return pixels_HWC.contiguous().numpy().tobytes()
