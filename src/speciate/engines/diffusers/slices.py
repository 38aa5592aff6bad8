"""Decoding in slices: the autoencoder's layers in a row, cut into runs of about equal work.

Cutting by layers and not by tiles keeps the picture exactly what one decode would give: its group norms see all of it.
"""

from collections.abc import Callable
from itertools import accumulate
from math import ceil
from typing import Any

from msgspec import Struct
from torch import Tensor, nn

SLICE_PIXELS = 65_536
"""Pixels that one slice is for, about: 256 x 256."""


class Layer(Struct, frozen=True):
    """A part of a decoder and its share of the work, in multiplications a latent place."""

    run: Callable[[Tensor], Tensor]
    work: float


class SlicedDecoder:
    """Of one autoencoder. A slice takes what the slice before it gave, the first the latents."""

    def __init__(self, autoencoder: Any) -> None:
        self._layers = _layers(autoencoder)

    def num_slices(self, num_pixels: int) -> int:
        return max(1, min(len(self._layers), ceil(num_pixels / SLICE_PIXELS)))

    def run(self, state: Tensor, index: int, num_slices: int) -> Tensor:
        """After the last slice: pixels in -1..1, more or less, with a row dimension."""
        for layer in self._slice(index, num_slices):
            state = layer.run(state)
        return state

    def _slice(self, index: int, num_slices: int) -> list[Layer]:
        total = sum(layer.work for layer in self._layers)
        ends = accumulate(layer.work for layer in self._layers)
        slots = [min(num_slices - 1, int((end - 1e-9) / total * num_slices)) for end in ends]
        return [layer for layer, slot in zip(self._layers, slots, strict=True) if slot == index]


def _layers(autoencoder: Any) -> list[Layer]:
    decoder: Any = getattr(autoencoder, "decoder", None)
    blocks = getattr(decoder, "up_blocks", None)
    if blocks is None or not all(hasattr(block, "resnets") for block in blocks):
        return [Layer(lambda z: _tensor(autoencoder.decode(z, return_dict=False)[0]), 1.0)]
    layers = [Layer(_opening(autoencoder), _size(decoder.conv_in)), Layer(decoder.mid_block, _size(decoder.mid_block))]
    places = 1.0
    for block in blocks:
        layers += [Layer(resnet_run(resnet), _size(resnet) * places) for resnet in block.resnets]
        for upsampler in block.upsamplers or ():
            places *= 4
            layers.append(Layer(upsampler, _size(upsampler) * places))
    return [*layers, Layer(_closing(decoder), _size(decoder.conv_out) * places)]


def resnet_run(resnet: Any) -> Callable[[Tensor], Tensor]:
    return lambda state: _tensor(resnet(state, temb=None))


def _opening(autoencoder: Any) -> Callable[[Tensor], Tensor]:
    before = getattr(autoencoder, "post_quant_conv", None)
    return lambda z: _tensor(autoencoder.decoder.conv_in(z if before is None else before(z)))


def _closing(decoder: Any) -> Callable[[Tensor], Tensor]:
    return lambda state: _tensor(decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(state))))


def _size(module: nn.Module) -> float:
    return float(sum(parameter.numel() for parameter in module.parameters()))


def _tensor(value: Any) -> Tensor:
    result: Tensor = value
    return result
