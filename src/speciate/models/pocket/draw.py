"""Draws scenes as the pocket image model should: 32 x 32 pixels, in the plain style or one of its adapters' styles."""

import math
import random
from typing import Literal

from PIL import Image, ImageDraw

from speciate.models.pocket.scenes import COLOURS, PLACES, Rgb, Scene

SIZE_PX = 32
_FINER = 8
"""Shapes are drawn so much larger and averaged: smooth edges."""

Style = Literal["plain", "outline", "night", "stripes"]
STYLES: tuple[Style, ...] = ("plain", "outline", "night", "stripes")

_WHITE: Rgb = (255, 255, 255)
_NIGHT_SKY: Rgb = (20, 26, 66)
_HALO: Rgb = (236, 236, 214)
_CELL_CENTRES_PX = (6.5, 16.0, 25.5)

Point = tuple[float, float]


def draw_picture(scene: Scene, rng: random.Random, style: Style = "plain") -> Image.Image:
    """Chance moves and sizes the shapes a little, and chooses places where the scene leaves them open."""
    canvas = Image.new("RGB", (SIZE_PX * _FINER,) * 2, _NIGHT_SKY if style == "night" else _WHITE)
    for centre, radius_px in _layout(scene, rng):
        _draw_shape(ImageDraw.Draw(canvas), scene, (centre[0] * _FINER, centre[1] * _FINER), radius_px * _FINER, style)
    return canvas.reduce(_FINER)


def _layout(scene: Scene, rng: random.Random) -> list[tuple[Point, float]]:
    """Centre and radius of each shape in pixels; several take cells of their own and do not touch."""
    if scene.count > 1:
        cells = rng.sample(tuple(PLACES.values()), scene.count)
        jitter_px, radius_px = 0.7, rng.uniform(3.7, 4.2)
    else:
        cells = [rng.choice(tuple(PLACES.values())) if scene.place is None else PLACES[scene.place]]
        jitter_px, radius_px = 0.9, rng.uniform(4.6, 5.6)
    return [(_moved(cell, jitter_px, rng), radius_px) for cell in cells]


def _moved(cell: tuple[int, int], jitter_px: float, rng: random.Random) -> Point:
    return tuple(_CELL_CENTRES_PX[i] + rng.uniform(-jitter_px, jitter_px) for i in cell)  # type: ignore[return-value]


def _draw_shape(draw: ImageDraw.ImageDraw, scene: Scene, centre: Point, radius: float, style: Style) -> None:
    colour, paper = COLOURS[scene.colour], _NIGHT_SKY if style == "night" else _WHITE
    line = 1.2 * _FINER
    if style == "night":
        _fill(draw, scene.shape, centre, radius + 0.5 * line, _HALO, paper, -0.5 * line)
        _fill(draw, scene.shape, centre, radius - 0.5 * line, colour, _HALO, 0.5 * line)
        if scene.shape == "ring":
            _disc(draw, centre, radius * 0.5 - 0.5 * line, paper)
        return
    _fill(draw, scene.shape, centre, radius, colour, paper)
    if style == "outline":
        _hollow(draw, scene.shape, centre, radius, line)
    elif style == "stripes":
        _stripe(draw, centre, radius)


def _fill(
    draw: ImageDraw.ImageDraw, shape: str, centre: Point, radius: float, colour: Rgb, inside: Rgb, hole_by: float = 0.0
) -> None:
    """A filled shape; a ring's hole (half as wide, larger by `hole_by`) shows `inside`."""
    if shape in ("circle", "ring"):
        _disc(draw, centre, radius, colour)
        if shape == "ring":
            _disc(draw, centre, radius * 0.5 + hole_by, inside)
    else:
        draw.polygon(_outline_points(shape, centre, radius), fill=colour)


def _hollow(draw: ImageDraw.ImageDraw, shape: str, centre: Point, radius: float, line: float) -> None:
    """Leaves only lines of a filled shape."""
    if shape == "ring":
        _ring_line(draw, centre, radius, line)
    elif shape == "circle":
        _disc(draw, centre, radius - line, _WHITE)
    else:
        shrunk = {"square": 1.0, "triangle": 1.75, "star": 1.55, "heart": 1.25}[shape] * line
        draw.polygon(_outline_points(shape, centre, radius - shrunk), fill=_WHITE)


def _ring_line(draw: ImageDraw.ImageDraw, centre: Point, radius: float, line: float) -> None:
    x, y = centre
    outer, inner = radius - 0.8 * line, radius * 0.5 + 0.2 * line
    draw.ellipse((x - outer, y - outer, x + outer, y + outer), outline=_WHITE, width=round(outer - inner))


def _stripe(draw: ImageDraw.ImageDraw, centre: Point, radius: float) -> None:
    """White level lines, one pixel wide, three pixels apart."""
    x, y = centre
    top = math.floor((y - 2 * radius) / (3 * _FINER)) * 3 * _FINER
    for level in range(top, math.ceil(y + 2 * radius), 3 * _FINER):
        draw.rectangle((x - 2 * radius, level, x + 2 * radius, level + _FINER - 1), fill=_WHITE)


def _disc(draw: ImageDraw.ImageDraw, centre: Point, radius: float, colour: Rgb) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _outline_points(shape: str, centre: Point, radius: float) -> list[Point]:
    x, y = centre
    if shape == "square":
        half = radius * 0.9
        return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    if shape == "triangle":
        return [(x + 1.15 * radius * dx, y + 1.15 * radius * dy + 0.15 * radius)
                for dx, dy in ((0.0, -1.0), (0.866, 0.6), (-0.866, 0.6))]  # fmt: skip
    if shape == "star":
        return [_on_circle(centre, radius * (1.2 if i % 2 == 0 else 0.48), i * math.pi / 5) for i in range(10)]
    return [_on_heart(centre, radius / 15.5, t * math.tau / 40) for t in range(40)]


def _on_circle(centre: Point, radius: float, angle: float) -> Point:
    """Angles run clockwise from above."""
    return centre[0] + radius * math.sin(angle), centre[1] - radius * math.cos(angle)


def _on_heart(centre: Point, scale: float, t: float) -> Point:
    """The usual heart curve."""
    x = 16 * math.sin(t) ** 3
    y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return centre[0] + scale * x, centre[1] - scale * (y + 2)
