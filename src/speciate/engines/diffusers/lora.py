"""LoRA adapters beside a network: each row of a step names its own set, with its own strengths.

PEFT's layers take one adapter a row, without strengths, and cost over 100 ms to put in place; these are hooks on the
network's own layers, so attaching is a dictionary entry, and rows without adapters cost nothing (Hu et al. 2021 for
LoRA itself; the idea of rows with adapters of their own is from Punica, Chen et al. 2023).
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional

from speciate.core.denoise import AdapterUse

# Shapes: R rank, I inputs, O outputs, K kernel side, B rows.


class LoraWeights(Struct, frozen=True):
    """Of one layer: the update is `scale * up(down(x))`."""

    down: Tensor
    """(R, I), or (R, I, K, K) for a convolution."""
    up: Tensor
    """(O, R), or (O, R, 1, 1)."""
    scale: float
    """alpha / rank."""

    @property
    def num_bytes(self) -> int:
        return self.down.nbytes + self.up.nbytes


class _RowsOfUse(Struct, frozen=True):
    """One adapter's rows in this step; `rows` is None where it is all of them."""

    name: str
    rows: Tensor | None
    scales: Tensor


class LoraNetwork:
    """The adapters of one network. Changed between steps only."""

    def __init__(self, network: nn.Module) -> None:
        self._device = next(network.parameters()).device
        self._num_bytes = sum(parameter.nbytes for parameter in network.parameters())
        self._layers = {
            name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
        }
        self._attached: dict[str, dict[str, LoraWeights]] = {}
        self._hooks: dict[str, Any] = {}
        self._uses: tuple[_RowsOfUse, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Of the network itself."""
        return self._num_bytes

    @property
    def layers(self) -> dict[str, nn.Module]:
        return dict(self._layers)

    def attach(self, name: str, weights: dict[str, LoraWeights]) -> None:
        self._attached[name] = {
            layer: LoraWeights(self._like(layer, w.down), self._like(layer, w.up), w.scale)
            for layer, w in weights.items()
        }
        for layer in weights:
            if layer not in self._hooks:
                self._hooks[layer] = self._layers[layer].register_forward_hook(self._hook(layer))

    def detach(self, name: str) -> None:
        self._attached.pop(name, None)
        used = {layer for weights in self._attached.values() for layer in weights}
        for layer in set(self._hooks) - used:
            self._hooks.pop(layer).remove()

    @contextmanager
    def rows(self, uses: Sequence[tuple[AdapterUse, ...]]) -> Generator[None, None, None]:
        """While entered, row i of the first dimension runs with `uses[i]`."""
        self._uses = self._grouped(uses)
        try:
            yield
        finally:
            self._uses = ()

    def _grouped(self, uses: Sequence[tuple[AdapterUse, ...]]) -> tuple[_RowsOfUse, ...]:
        rows_of: dict[str, dict[int, float]] = {}
        for row, adapters in enumerate(uses):
            for use in adapters:
                if use.name in self._attached:
                    strengths = rows_of.setdefault(use.name, {})
                    strengths[row] = strengths.get(row, 0.0) + use.scale
        return tuple(
            _RowsOfUse(
                name,
                None if len(rows) == len(uses) else torch.tensor(sorted(rows), device=self._device),
                torch.tensor([rows[row] for row in sorted(rows)], device=self._device),
            )
            for name, rows in rows_of.items()
        )

    def _hook(self, layer: str) -> Any:
        def add_updates(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            for use in self._uses:
                weights = self._attached[use.name].get(layer)
                if weights is not None:
                    output = _updated(module, inputs[0], output, weights, use)
            return output

        return add_updates

    def _like(self, layer: str, tensor: Tensor) -> Tensor:
        weight = self._layers[layer].weight
        if not isinstance(weight, Tensor):
            raise TypeError(f"{layer} has no weight")
        return tensor.to(weight.device, weight.dtype)


def _updated(module: nn.Module, x: Tensor, output: Tensor, weights: LoraWeights, use: _RowsOfUse) -> Tensor:
    scales = (use.scales * weights.scale).to(output.dtype).reshape(-1, *(1,) * (output.dim() - 1))
    if use.rows is None:
        return output + scales * _update(module, x, weights)
    return output.index_add(0, use.rows, scales * _update(module, x.index_select(0, use.rows), weights))


def _update(module: nn.Module, x: Tensor, weights: LoraWeights) -> Tensor:
    if isinstance(module, nn.Conv2d):
        low = functional.conv2d(x, weights.down, stride=module.stride, padding=module.padding)
        return functional.conv2d(low, weights.up)
    return functional.linear(functional.linear(x, weights.down), weights.up)
