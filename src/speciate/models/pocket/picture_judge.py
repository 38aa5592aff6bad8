"""Says what a picture of the pocket image model shows, so that agreement with its prompt can be counted.

A small convolutional classifier, strict on purpose: it was also trained on pictures that mix shapes or colours, hold
too many or none, or are malformed, and calls them so. Needs torch.
"""

# ruff: noqa: N803, N806 -- names end in their shape

from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from msgspec import Struct
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from speciate.models.pocket.draw import SIZE_PX, STYLES, Style
from speciate.models.pocket.scenes import COLOURS, PLACES, SHAPES, Scene

# Shapes: B pictures, C channels, H height, W width.

MOST_COUNTED = 5
"""As many and more are one class; 0 is another."""

HEADS = {
    "shape": len(SHAPES),
    "colour": len(COLOURS),
    "count": MOST_COUNTED + 1,
    "place": len(PLACES),
    "style": len(STYLES),
    "clean": 2,
}
"""What is told of a picture, and how many answers each question has."""


class Sight(Struct, frozen=True):
    """What a picture shows. `place` is that of one shape alone."""

    shape: str
    colour: str
    count: int
    place: str
    style: Style
    is_clean: bool
    """Equal, well-formed shapes of one colour."""

    def agrees(self, scene: Scene) -> bool:
        """Everything that the scene asks for, and nothing malformed."""
        is_placed = scene.place is None or self.place == scene.place
        asked = (scene.shape, scene.colour, scene.count)
        return self.is_clean and is_placed and (self.shape, self.colour, self.count) == asked


class JudgeNetwork(nn.Module):
    """Four convolutions and one linear layer; the logits of all heads side by side."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 64)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, stride=1 if index == 0 else 2, padding=1), nn.GroupNorm(8, after),
                       nn.SiLU()]  # fmt: skip
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(64 * (SIZE_PX // 8) ** 2, sum(HEADS.values()))

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Pixels in -1..1; logits of each head, in the order of HEADS."""
        logits: Tensor = self.head(self.body(pixels_BCHW).flatten(1))
        return torch.split(logits, list(HEADS.values()), dim=1)


class PictureJudge:
    """Reads `folder`/judge.safetensors."""

    def __init__(self, network: JudgeNetwork) -> None:
        self._network = network.eval()

    @classmethod
    def load(cls, folder: Path) -> Self:
        network = JudgeNetwork()
        network.load_state_dict(
            {name: weight.float() for name, weight in load_file(folder / "judge.safetensors").items()}
        )
        return cls(network)

    @torch.inference_mode()
    def look(self, pictures: list[Image.Image]) -> list[Sight]:
        """Pictures of 32 x 32 pixels."""
        pixels_BHWC = torch.from_numpy(np.stack([np.asarray(p.convert("RGB")) for p in pictures])).float()
        logits = self._network(pixels_BHWC.permute(0, 3, 1, 2) / 127.5 - 1.0)
        answers = torch.stack([head.argmax(1) for head in logits], dim=1).tolist()
        return [_sight(row) for row in answers]


def _sight(answers: list[int]) -> Sight:
    shape, colour, count, place, style, is_clean = answers
    return Sight(SHAPES[shape], tuple(COLOURS)[colour], count, tuple(PLACES)[place], STYLES[style], bool(is_clean))
