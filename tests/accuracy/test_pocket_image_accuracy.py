"""The pocket image model draws what is asked: through our engine, pictures of different prompts in the same passes."""

from collections.abc import Sequence

import pytest

pytest.importorskip("diffusers", reason="the extra [image] is not installed")

from PIL import Image

from speciate.core.denoise import AdapterUse, DenoisePlan, DenoiseSpec, ItemStep, Stage
from speciate.engines.diffusers.engine import DiffusersEngine
from speciate.engines.diffusers.options import DiffusersOptions, LoraFolder
from speciate.models.pocket import IMAGE_DIR, IMAGE_JUDGE_DIR, IMAGE_STYLES
from speciate.models.pocket.draw import Style
from speciate.models.pocket.picture_evaluate import Draw, evaluate_pictures
from speciate.models.pocket.picture_judge import PictureJudge

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (IMAGE_DIR / "model_index.json").is_file(), reason="the pocket image model is not trained: see recipes"
    ),
]

NUM_PICTURES = 127
AT_ONCE = 16


def drawer(engine: DiffusersEngine, num_steps: int, adapters: tuple[AdapterUse, ...] = ()) -> Draw:
    """All rows of a step at the same pass, as when they came together."""

    def step(stage: Stage, ids: Sequence[int], index: int) -> tuple[Image.Image, ...]:
        plan = DenoisePlan(0, engine.shape.model, stage, tuple(ItemStep(i, index) for i in ids))
        result = engine.step(plan)
        assert not result.failed
        return tuple(Image.frombytes("RGB", (p.width, p.height), p.rgb) for p in result.pictures)

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        pictures: list[Image.Image] = []
        for first in range(0, len(prompts), AT_ONCE):
            ids = range(first, min(first + AT_ONCE, len(prompts)))
            for i in ids:
                engine.add(DenoiseSpec(i, prompts[i], 32, 32, num_steps, seeds[i], guidance=1.25, adapters=adapters))
            step(Stage.ENCODE, ids, 0)
            for index in range(num_steps):
                step(Stage.PASS, ids, index)
            pictures += step(Stage.DECODE, ids, 0)
            for i in ids:
                engine.remove(i)
        return pictures

    return draw


@pytest.fixture(scope="module")
def engine() -> DiffusersEngine:
    styles = tuple(LoraFolder(style, str(path)) for style, path in IMAGE_STYLES.items())
    return DiffusersEngine.load(IMAGE_DIR, DiffusersOptions("pocket-image", adapters=styles))


@pytest.fixture(scope="module")
def judge() -> PictureJudge:
    return PictureJudge.load(IMAGE_JUDGE_DIR)


@pytest.mark.timeout(1200)
def test_held_out_prompts_in_fifty_passes(engine: DiffusersEngine, judge: PictureJudge) -> None:
    agreement = evaluate_pictures(drawer(engine, 50), judge, NUM_PICTURES, style="plain")
    print(agreement.share, agreement.parts)
    assert agreement.share >= 0.9, agreement.misses


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("style", IMAGE_STYLES)
def test_styles_are_seen_and_mostly_keep_what_is_asked(
    engine: DiffusersEngine, judge: PictureJudge, style: Style
) -> None:
    agreement = evaluate_pictures(drawer(engine, 25, (AdapterUse(style),)), judge, 48, style=style)
    print(style, agreement.share, agreement.parts)
    assert agreement.share >= 0.4, agreement.misses
