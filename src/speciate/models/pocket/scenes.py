"""What the pocket image model can be asked to draw: a number of equal shapes in a colour, anywhere or at a place.

Pure Python; equal seeds give equal scenes. One combination in five is held out by checksum: never trained on, in no
wording.
"""

import random
import zlib
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

Rgb = tuple[int, int, int]
Split = Literal["train", "held_out"]

COLOURS: dict[str, Rgb] = {
    "red": (222, 36, 42),
    "orange": (252, 140, 16),
    "yellow": (248, 216, 28),
    "green": (36, 164, 62),
    "blue": (38, 92, 222),
    "purple": (138, 46, 180),
    "pink": (248, 132, 190),
    "black": (24, 24, 28),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
COUNTS = {"two": 2, "three": 3, "four": 4}
PLACES: dict[str, tuple[int, int]] = {
    "top left": (0, 0),
    "top": (1, 0),
    "top right": (2, 0),
    "left": (0, 1),
    "middle": (1, 1),
    "right": (2, 1),
    "bottom left": (0, 2),
    "bottom": (1, 2),
    "bottom right": (2, 2),
}
"""Name and cell (column, row) of a grid of three by three."""

WORDS = ("a", "an", "one", *COUNTS, *COLOURS, *SHAPES, *(s + "s" for s in SHAPES),
         "in", "at", "on", "the", "top", "bottom", "left", "right", "middle")  # fmt: skip
"""Every word of a prompt."""


class Scene(Struct, frozen=True):
    """`count` equal shapes; one alone may have a place."""

    shape: str
    colour: str
    count: int = 1
    place: str | None = None

    @property
    def is_held_out(self) -> bool:
        key = f"{self.shape} {self.colour} {self.count} {self.place}"
        return zlib.crc32(key.encode()) % 5 == 0


def all_scenes() -> Iterator[Scene]:
    """Every scene there is, of both splits."""
    for shape in SHAPES:
        for colour in COLOURS:
            yield Scene(shape, colour)
            yield from (Scene(shape, colour, 1, place) for place in PLACES)
            yield from (Scene(shape, colour, count) for count in COUNTS.values())


def held_out_scenes() -> tuple[Scene, ...]:
    return tuple(scene for scene in all_scenes() if scene.is_held_out)


def draw_scene(rng: random.Random, split: Split = "train") -> Scene:
    """One at a place half the time, several four times in ten, otherwise one anywhere."""
    while True:
        shape, colour, kind = rng.choice(SHAPES), rng.choice(tuple(COLOURS)), rng.random()
        if kind < 0.5:
            scene = Scene(shape, colour, 1, rng.choice(tuple(PLACES)))
        elif kind < 0.9:
            scene = Scene(shape, colour, rng.choice(tuple(COUNTS.values())))
        else:
            scene = Scene(shape, colour)
        if scene.is_held_out == (split == "held_out"):
            return scene


def prompt_of(scene: Scene) -> str:
    """The usual wording, as `a red circle in the top left` or `three blue squares`."""
    if scene.count > 1:
        return f"{_number_word(scene.count)} {scene.colour} {scene.shape}s"
    placed = "" if scene.place is None else f" {_preposition(scene.place)} the {scene.place}"
    article = "an" if scene.colour[0] in "aeiou" else "a"
    return f"{article} {scene.colour} {scene.shape}{placed}"


def reworded_prompt(scene: Scene, rng: random.Random) -> str:
    """The usual wording, or one of its variants."""
    prompt = prompt_of(scene)
    if scene.count == 1 and rng.random() < 0.2:
        prompt = "one " + prompt.partition(" ")[2]
    if scene.place is not None and rng.random() < 0.3:
        head = prompt.split(f" {_preposition(scene.place)} the ")[0]
        prompt = f"{head} {rng.choice(('in', 'at', 'on'))} the {scene.place}"
    return prompt


def _number_word(count: int) -> str:
    return next(word for word, number in COUNTS.items() if number == count)


def _preposition(place: str) -> str:
    if place in ("left", "right"):
        return "on"
    return "at" if place in ("top", "bottom") else "in"
