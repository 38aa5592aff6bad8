"""What cannot be drawn is refused with the reason, and the engine goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from speciate.core.denoise import AdapterUse, DenoiseSpec, SourceImage, Stage
from speciate.core.errors import InvalidRequest, LoadFailed
from speciate.engines.diffusers.engine import DiffusersEngine
from speciate.engines.diffusers.options import DiffusersOptions


def spec_of(**more: Any) -> DenoiseSpec:
    return DenoiseSpec(**{"item_id": 1, "prompt": "a", "width": 32, "height": 32, "num_steps": 3, "seed": 1, **more})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"width": 33}, "multiples of 8"),
        ({"height": 0}, "multiples of 8"),
        ({"height": 4096}, "draws 8 to 64"),
        ({"num_steps": 0}, "1 to 1000"),
        ({"num_steps": 1001}, "1 to 1000"),
        ({"num_frames": 9}, "not 9 frames"),
        ({"sampler": "magic"}, "it has pndm, ddim"),
        ({"adapters": (AdapterUse("no"),)}, "no adapter 'no'"),
        ({"cache_threshold": 0.1}, "first-block cache"),
        ({"source": SourceImage(bytes(3 * 64), 8, 8, strength=0.0)}, "leaves none to run"),
    ],
)
def test_it_says_what_is_wrong(sd: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        sd.engine.add(spec_of(**more))
    sd.draw(spec_of(item_id=2))


def test_latents_that_are_not_finite_end_only_their_item(sd: Any) -> None:
    sd.add(spec_of(item_id=1), spec_of(item_id=2))
    sd.step(Stage.PASS, [(1, 0), (2, 0)])
    sd.engine._items[1].latents = sd.engine._items[1].latents * torch.inf
    result = sd.step(Stage.PASS, [(1, 1), (2, 1)])
    assert result.failed == ((1, "its latents are not finite after pass 1"),)
    sd.step(Stage.PASS, [(2, 2)])
    assert sd.decode(2).rgb


def test_a_checkpoint_of_something_else_is_refused(sd: Any) -> None:
    sd.add(spec_of())
    state = sd.engine.save(1)
    with pytest.raises(InvalidRequest, match="of another request"):
        sd.engine.add(spec_of(item_id=2, seed=9), state)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        sd.engine.add(spec_of(item_id=2), state[: len(state) // 2])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no model_index.json"),
        ("{", "cannot be read"),
        ('{"_class_name": "MagicPipeline"}', "is a MagicPipeline"),
        (
            '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}',
            "cannot be loaded",
        ),
    ],
)
def test_folders_that_are_none(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(LoadFailed, match=words):
        DiffusersEngine.load(tmp_path, DiffusersOptions("bad"))
