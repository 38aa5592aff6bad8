"""Trains the judge of pictures: `python -m recipes.pocket_image.judge --folder out/image-judge`.

A quarter of what it sees is spoilt on purpose: shapes or colours mixed, too many shapes, none, smeared or torn ones.
"""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from speciate.models.pocket.draw import SIZE_PX, STYLES, Style, draw_picture
from speciate.models.pocket.picture_judge import JudgeNetwork, PictureJudge
from speciate.models.pocket.scenes import COLOURS, PLACES, SHAPES, Scene

Labels = tuple[int, ...]
"""One number a head; -1 where a head is not taught by a picture."""

_UNTAUGHT = -1
_SPOILT_SHARE = 0.3


def draw_example(rng: random.Random) -> tuple[Image.Image, Labels]:
    """Of all scenes, held-out ones too: the judge must know them."""
    style: Style = rng.choice(STYLES) if rng.random() < 0.6 else "plain"
    if rng.random() < _SPOILT_SHARE:
        return _spoilt(rng, style)
    scene = _any_scene(rng)
    place = _UNTAUGHT if scene.place is None else tuple(PLACES).index(scene.place)
    labels = (SHAPES.index(scene.shape), tuple(COLOURS).index(scene.colour), scene.count, place, STYLES.index(style), 1)
    return draw_picture(scene, rng, style), labels


def _any_scene(rng: random.Random) -> Scene:
    count = rng.choice((1, 1, 1, 2, 3, 4))
    place = rng.choice(tuple(PLACES)) if count == 1 else None
    return Scene(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), count, place)


def _spoilt(rng: random.Random, style: Style) -> tuple[Image.Image, Labels]:
    kind = rng.choice((_mixed, _mixed, _crowd, _nothing, _smeared, _torn, _bridged))
    picture, count = kind(rng, style)
    return picture, (_UNTAUGHT, _UNTAUGHT, count, _UNTAUGHT, STYLES.index(style), 0)


def _mixed(rng: random.Random, style: Style) -> tuple[Image.Image, int]:
    """Shapes that differ in form or colour, laid over one another."""
    first = _any_scene(rng)
    other = Scene(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), first.count, None)
    if (other.shape, other.colour) == (first.shape, first.colour):
        return _crowd(rng, style)
    left, right = draw_picture(first, rng, style), draw_picture(other, rng, style)
    cut = rng.randrange(8, SIZE_PX - 8)
    left.paste(right.crop((cut, 0, SIZE_PX, SIZE_PX)), (cut, 0))
    return left, _UNTAUGHT


def _crowd(rng: random.Random, style: Style) -> tuple[Image.Image, int]:
    count = rng.randint(5, 7)
    scene = Scene(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), count)
    return draw_picture(scene, rng, style), 5


def _nothing(rng: random.Random, style: Style) -> tuple[Image.Image, int]:
    blank = draw_picture(Scene("circle", "black", 0), rng, style) if rng.random() < 0.5 else None
    colour = rng.choice(tuple(COLOURS.values()))
    return blank or Image.new("RGB", (SIZE_PX, SIZE_PX), colour), 0


def _smeared(rng: random.Random, style: Style) -> tuple[Image.Image, int]:
    """Forms that can no longer be told."""
    picture = draw_picture(_any_scene(rng), rng, style)
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(1.8, 3.5))), _UNTAUGHT


def _torn(rng: random.Random, style: Style) -> tuple[Image.Image, int]:
    """Shapes cut through and shifted, or with a piece of paper over them."""
    scene = _any_scene(rng)
    picture = draw_picture(scene, rng, style)
    torn = picture.copy()
    ink = np.argwhere(np.abs(np.asarray(picture).astype(int) - np.asarray(picture)[0, 0]).sum(2) > 120)
    if len(ink) == 0:
        return torn, 0
    y, x = ink[rng.randrange(len(ink))]
    if rng.random() < 0.5:
        strip = picture.crop((0, int(y), SIZE_PX, SIZE_PX))
        torn.paste(strip, (rng.choice((-4, -3, 3, 4)), int(y)))
    else:
        half = rng.uniform(1.8, 3.0)
        ImageDraw.Draw(torn).ellipse((x - half, y - half, x + half, y + half), fill=picture.getpixel((0, 0)))
    return torn, _UNTAUGHT


def _bridged(rng: random.Random, style: Style) -> tuple[Image.Image, int]:
    """A blot of the shape's colour that no shape has."""
    scene = _any_scene(rng)
    picture = draw_picture(scene, rng, style)
    draw, colour = ImageDraw.Draw(picture), COLOURS[scene.colour]
    for _ in range(rng.randint(1, 2)):
        x, y = rng.uniform(3, 29), rng.uniform(3, 29)
        points = [(x + rng.uniform(-4, 4), y + rng.uniform(-4, 4)) for _ in range(rng.randint(3, 6))]
        draw.polygon(points, fill=colour)
    return picture, _UNTAUGHT


def _roughened(picture: Image.Image, rng: random.Random) -> Image.Image:
    """What a diffusion model's picture is like at best: a little soft, a little noisy, a little off in colour."""
    if rng.random() < 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7)))
    pixels = np.asarray(picture).astype(np.float32)
    pixels += np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(0, 10), pixels.shape)
    pixels = pixels * rng.uniform(0.92, 1.06) + rng.uniform(-8, 8)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def train_judge(folder: Path, num_steps: int, seed: int, batch: int = 64, rate: float = 2e-3) -> None:
    torch.manual_seed(seed)
    rng, network = random.Random(seed), JudgeNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, num_steps, pct_start=0.1)
    started_s = time.process_time()
    for step in range(1, num_steps + 1):
        pixels, labels = _batch(rng, batch, _roughened)
        loss = _loss(network(pixels), labels)
        loss.backward()
        optimiser.step()
        plan.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 100 == 0:
            print(f"step {step} loss {float(loss):.4f} cpu {time.process_time() - started_s:.0f} s", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.to(torch.float16).contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, folder / "judge.safetensors")
    _report(PictureJudge.load(folder), random.Random(seed + 1))


def _batch(
    rng: random.Random, num: int, roughen: Callable[[Image.Image, random.Random], Image.Image]
) -> tuple[Tensor, Tensor]:
    examples = [draw_example(rng) for _ in range(num)]
    pixels = np.stack([np.asarray(roughen(picture, rng)) for picture, _ in examples])
    labels = torch.tensor([labels for _, labels in examples])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0, labels


def _loss(logits: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """The mean over each head's taught pictures, added up."""
    parts = [
        functional.cross_entropy(head, labels[:, index], ignore_index=_UNTAUGHT)
        for index, head in enumerate(logits)
        if (labels[:, index] != _UNTAUGHT).any()
    ]
    return torch.stack(parts).sum()


def _report(judge: PictureJudge, rng: random.Random, num: int = 2000) -> None:
    """How often it is right about true pictures, and how often it lets a spoilt one pass."""
    scenes = [_any_scene(rng) for _ in range(num)]
    true = judge.look([_roughened(draw_picture(scene, rng), rng) for scene in scenes])
    print(f"true pictures accepted {sum(s.agrees(t) for s, t in zip(true, scenes, strict=True)) / num:.4f}")
    spoilt = judge.look([_roughened(_spoilt(rng, "plain")[0], rng) for _ in range(num)])
    print(f"spoilt pictures called clean {sum(s.is_clean for s in spoilt) / num:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--num-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    train_judge(given.folder, given.num_steps, given.seed)


if __name__ == "__main__":
    main()
