"""What our steps draw is what the stock pipeline draws: alone, mixed, paused and resumed."""

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from speciate.core.denoise import DenoiseSpec, SourceImage, Stage
from speciate.engines.diffusers.samplers import SAMPLERS

SOLO, MIXED, RESUMED = 1e-4, 1e-3, 1e-5
"""Largest allowed difference in latents, which range over about -5..5."""

Difference = Callable[[Tensor, Tensor], float]


def spec_of(number: int, sampler: str | None = None, **more: Any) -> DenoiseSpec:
    fields = {"num_steps": 5 + number % 3, "seed": 40 + number, "guidance": 2.0 + number, **more}
    return DenoiseSpec(number, f"a red circle {number}", 32, 32, sampler=sampler, negative_prompt="blue", **fields)


def stock(pipeline: Any, spec: DenoiseSpec, **more: Any) -> Any:
    if spec.sampler is not None:
        kind = getattr(diffusers, SAMPLERS[spec.sampler].class_name)
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    return pipeline(
        spec.prompt,
        num_inference_steps=spec.num_steps,
        guidance_scale=spec.guidance or 1.0,
        negative_prompt=spec.negative_prompt,
        generator=torch.Generator().manual_seed(spec.seed),
        **more,
    ).images


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_alone_it_equals_the_stock_pipeline(sd: Any, sd_pipeline: Any, differ: Difference, sampler: str) -> None:
    spec = spec_of(1, sampler)
    drawn = sd.draw(spec)
    assert differ(drawn, stock(sd_pipeline, spec, output_type="latent")) < SOLO
    picture = sd.decode(1)
    expected = stock(sd_pipeline, spec)[0]
    given = np.frombuffer(picture.rgb, np.uint8).reshape(32, 32, 3).astype(int)
    assert np.abs(given - np.asarray(expected).astype(int)).max() <= 1


def test_without_guidance_it_equals_the_stock_pipeline(sd: Any, sd_pipeline: Any, differ: Difference) -> None:
    spec = spec_of(1, "ddim", guidance=None)
    assert sd.engine.add(spec).num_rows == 1
    assert differ(sd.draw(spec), stock(sd_pipeline, spec, output_type="latent")) < SOLO


def test_items_of_all_samplers_share_steps(sd: Any, differ: Difference) -> None:
    """They start at different times, with different numbers of passes, and with and without guidance."""
    specs = [spec_of(n, name, guidance=None if n % 4 == 3 else 1.5 + n) for n, name in enumerate(SAMPLERS)]
    alone = {}
    for spec in specs:
        alone[spec.item_id] = sd.draw(spec)
        sd.engine.remove(spec.item_id)
    sd.add(*specs)
    done = dict.fromkeys(sd.specs, 0)
    clock = 0
    while any(done[i] < sd.facts[i].num_passes for i in done):
        ready = [i for i in done if i <= clock and done[i] < sd.facts[i].num_passes]
        sd.step(Stage.PASS, [(i, done[i]) for i in ready])
        for i in ready:
            done[i] += 1
        clock += 1
    assert max(differ(sd.latents(i), alone[i]) for i in done) < MIXED


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("passes_before", [0, 1, 4])
def test_paused_and_resumed_elsewhere_it_ends_the_same(
    sd: Any, sd_folder: Any, start_driver: Any, differ: Difference, sampler: str, passes_before: int
) -> None:
    spec = spec_of(2, sampler)
    whole = sd.draw(spec)
    sd.engine.remove(2)
    sd.add(spec)
    for index in range(passes_before):
        sd.step(Stage.PASS, [(2, index)])
    state = sd.engine.save(2)
    other = start_driver(sd_folder)
    renumbered = DenoiseSpec(**{**{f: getattr(spec, f) for f in spec.__struct_fields__}, "item_id": 77})
    other.specs[77], other.facts[77] = renumbered, other.engine.add(renumbered, state)
    assert other.facts[77].passes_done == passes_before
    other.finish_passes(77, start=passes_before)
    assert differ(other.latents(77), whole) < RESUMED
    assert len(state) < 20 * sd.facts[2].state_bytes + 8192


def test_the_reproducible_lane_is_bit_for_bit_the_same(sd: Any, sd_folder: Any, start_driver: Any) -> None:
    spec = spec_of(3, "euler_a", is_reproducible=True)
    first = sd.draw(spec)
    second = start_driver(sd_folder).draw(spec)
    assert torch.equal(first, second)
    sd.engine.remove(3)
    sd.add(spec, spec_of(4, "ddim"))
    with pytest.raises(Exception, match="reproducible"):
        sd.step(Stage.PASS, [(3, 0), (4, 0)])


def test_slices_of_decoding_give_the_same_picture(sd_folder: Any, sd: Any, monkeypatch: Any) -> None:
    """A picture large enough for several slices."""
    engine = sd.engine
    spec = DenoiseSpec(1, "a red circle", 64, 64, 2, seed=1)
    sd.draw(spec)
    vae = engine._loaded.pipeline.vae
    state = engine._family.to_autoencoder(engine._items[1].latents, spec)
    whole = vae.decode(state, return_dict=False)[0]
    for num in (2, 3, 5):
        sliced = state
        for index in range(num):
            sliced = engine._decoder.run(sliced, index, num)
        assert torch.equal(sliced, whole)
    assert engine._decoder.num_slices(64 * 64) == 1
    assert engine._decoder.num_slices(512 * 512) == 4


def checkerboard(width: int = 32, height: int = 32) -> Image.Image:
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpmpp_2m", "heun"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_from_a_picture_it_equals_the_stock_pipeline(
    sd: Any, sd_pipeline: Any, differ: Difference, sampler: str, strength: float
) -> None:
    source = checkerboard(48, 40)
    spec = spec_of(1, sampler, num_steps=8, source=SourceImage(source.tobytes(), 48, 40, strength))
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**sd_pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    expected = stock(pipeline, spec, image=source.resize((32, 32), Image.Resampling.LANCZOS), strength=strength,
                     output_type="latent")  # fmt: skip
    assert differ(sd.draw(spec), expected) < SOLO


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_painted_under_a_mask_it_equals_the_stock_pipeline(
    sd: Any, sd_pipeline: Any, differ: Difference, strength: float
) -> None:
    source, mask = checkerboard(), Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 32))
    spec = spec_of(1, "ddim", num_steps=6, source=SourceImage(source.tobytes(), 32, 32, strength, mask.tobytes()))
    pipeline = diffusers.StableDiffusionInpaintPipeline(**sd_pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    expected = stock(pipeline, spec, image=source, mask_image=mask, strength=strength, output_type="latent",
                     height=32, width=32)  # fmt: skip
    assert differ(sd.draw(spec), expected) < SOLO


def test_a_preview_of_the_last_pass_is_the_picture(sd: Any) -> None:
    """DDIM's last step goes to what it takes the clean picture to be, up to the schedule's last bit of noise."""
    spec = spec_of(1, "ddim", num_steps=6)
    sd.add(spec)
    previews = []
    for index in range(6):
        sd.step(Stage.PASS, [(1, index)])
        (preview,) = sd.step(Stage.PREVIEW, [(1, 0)]).pictures
        assert preview.is_preview
        previews.append(np.frombuffer(preview.rgb, np.uint8).astype(int))
    final = np.frombuffer(sd.decode(1).rgb, np.uint8).astype(int)
    errors = [np.abs(preview - final).mean() for preview in previews]
    assert errors[-1] < 2
    assert errors[-1] < errors[2] < errors[0]
