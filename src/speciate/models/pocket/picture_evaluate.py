"""Scores anything that draws prompts on held-out scenes. Knows no engine."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image

from speciate.models.pocket.draw import Style
from speciate.models.pocket.picture_judge import PictureJudge, Sight
from speciate.models.pocket.scenes import Scene, held_out_scenes, prompt_of

Draw = Callable[[Sequence[str], Sequence[int]], list[Image.Image]]
"""`draw(prompts, seeds)`: a picture each, in order."""
PARTS = ("shape", "colour", "count", "place", "clean")


PARTS = ("shape", "colour", "count", "place", "clean")


@dataclass(slots=True)
class Agreement:
    """How many pictures show all that was asked, and each part of it; with the first few that do not."""

    num_pictures: int = 0
    num_agreeing: int = 0
    parts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    misses: list[tuple[Scene, Sight]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.num_agreeing / self.num_pictures if self.num_pictures else 0.0

    def add(self, scene: Scene, sight: Sight, style: Style | None) -> None:
        """`style`, where one is asked for, must be seen too."""
        self.num_pictures += 1
        agrees = sight.agrees(scene) and style in (None, sight.style)
        self.num_agreeing += agrees
        for part, is_right in _parts(scene, sight).items():
            self.parts[part] += is_right
        if not agrees and len(self.misses) < 8:
            self.misses.append((scene, sight))


def held_out_sample(num: int, seed: int) -> list[Scene]:
    """Scenes that were never trained on, drawn without order; all of them come once before any comes twice."""
    rng, scenes = random.Random(seed), list(held_out_scenes())
    drawn: list[Scene] = []
    while len(drawn) < num:
        drawn += rng.sample(scenes, len(scenes))
    return drawn[:num]


def evaluate_pictures(
    draw: Draw, judge: PictureJudge, num: int, seed: int = 1, style: Style | None = None
) -> Agreement:
    scenes = held_out_sample(num, seed)
    pictures = draw([prompt_of(scene) for scene in scenes], [seed * 1_000_003 + n for n in range(num)])
    agreement = Agreement()
    for scene, sight in zip(scenes, judge.look(pictures), strict=True):
        agreement.add(scene, sight, style)
    return agreement


def _parts(scene: Scene, sight: Sight) -> dict[str, bool]:
    return {
        "shape": sight.shape == scene.shape,
        "colour": sight.colour == scene.colour,
        "count": sight.count == scene.count,
        "place": scene.place in (None, sight.place),
        "clean": sight.is_clean,
    }
