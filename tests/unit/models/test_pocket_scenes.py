"""What the pocket image model may be asked, and the pictures that it learns from."""

import random

import numpy as np
import pytest

from speciate.models.pocket.draw import SIZE_PX, STYLES, draw_picture
from speciate.models.pocket.scenes import (
    COLOURS,
    PLACES,
    SHAPES,
    WORDS,
    Scene,
    all_scenes,
    draw_scene,
    held_out_scenes,
    prompt_of,
    reworded_prompt,
)


def test_held_out_scenes_are_never_drawn_for_training() -> None:
    rng = random.Random(1)
    trained = {draw_scene(rng) for _ in range(5000)}
    assert not trained & set(held_out_scenes())
    assert {draw_scene(rng, "held_out") for _ in range(2000)} <= set(held_out_scenes())
    assert 0.15 < len(held_out_scenes()) / len(list(all_scenes())) < 0.25


def test_every_shape_colour_place_and_count_is_trained_and_held_out() -> None:
    for split in (set(held_out_scenes()), set(all_scenes()) - set(held_out_scenes())):
        assert {scene.shape for scene in split} == set(SHAPES)
        assert {scene.colour for scene in split} == set(COLOURS)
        assert {scene.place for scene in split} == {None, *PLACES}
        assert {scene.count for scene in split} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("scene", "prompt"),
    [
        (Scene("circle", "red"), "a red circle"),
        (Scene("heart", "orange", 1, "top left"), "an orange heart in the top left"),
        (Scene("square", "blue", 1, "left"), "a blue square on the left"),
        (Scene("ring", "pink", 1, "bottom"), "a pink ring at the bottom"),
        (Scene("star", "yellow", 3), "three yellow stars"),
    ],
)
def test_prompts(scene: Scene, prompt: str) -> None:
    assert prompt_of(scene) == prompt


def test_every_wording_uses_known_words() -> None:
    rng = random.Random(2)
    for scene in all_scenes():
        for _ in range(4):
            assert set(reworded_prompt(scene, rng).split()) <= set(WORDS)


@pytest.mark.parametrize("style", [style for style in STYLES if style != "outline"])  # its lines are too thin to count
def test_pictures_show_the_colour_where_it_was_asked(style: str) -> None:
    rng = random.Random(3)
    for place, (column, row) in PLACES.items():
        pixels = np.asarray(draw_picture(Scene("square", "green", 1, place), rng, style)).astype(int)  # type: ignore[arg-type]
        assert pixels.shape == (SIZE_PX, SIZE_PX, 3)
        near = np.abs(pixels - np.array(COLOURS["green"])).sum(2) < 60
        ys, xs = np.nonzero(near)
        assert len(ys) >= 8
        assert (int(xs.mean()) * 3 // SIZE_PX, int(ys.mean()) * 3 // SIZE_PX) == (column, row)


def test_equal_seeds_give_equal_pictures() -> None:
    scene = Scene("heart", "black", 4)
    assert draw_picture(scene, random.Random(4)).tobytes() == draw_picture(scene, random.Random(4)).tobytes()
