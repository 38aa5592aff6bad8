"""Rotary position frequencies and their scaling variants, as transformers computes them. numpy only."""

import math

import numpy as np
from msgspec import Struct

from speciate.core.errors import LoadFailed
from speciate.engines.openvino.checkpoint import Array

SUPPORTED = ("default", "linear", "dynamic", "llama3", "yarn")


class RopeConfig(Struct, frozen=True):
    """`rope_parameters` (or `rope_theta` and `rope_scaling`) of a config.json."""

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    original_tokens: int = 0
    """Context length before it was stretched."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> tuple[Array, float]:
    """Angle a position for each pair of channels, float32 [head_dim / 2], and the factor on cosines and sines.

    `dynamic` only changes angles past the original context, which the config keeps sequences inside: KV blocks hold
    rotated keys, so an angle that depends on a sequence's length would make them wrong.
    """
    base = 1.0 / rope.theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if rope.kind in ("default", "dynamic"):
        return base.astype(np.float32), 1.0
    if rope.kind == "linear":
        return (base / rope.factor).astype(np.float32), 1.0
    if rope.kind == "llama3":
        return _llama3(rope, base).astype(np.float32), 1.0
    if rope.kind == "yarn":
        return _yarn(rope, base, head_dim).astype(np.float32), _yarn_factor(rope)
    raise LoadFailed(f"RoPE scaling {rope.kind!r} is not supported; supported are {', '.join(SUPPORTED)}")


def _llama3(rope: RopeConfig, base: Array) -> Array:
    """Long wavelengths stretched, short ones kept, a smooth step between (Llama 3.1)."""
    wavelength = 2 * math.pi / base
    span = rope.high_freq_factor - rope.low_freq_factor
    smooth = np.clip((rope.original_tokens / wavelength - rope.low_freq_factor) / span, 0.0, 1.0)
    return (1 - smooth) * base / rope.factor + smooth * base


def _yarn(rope: RopeConfig, base: Array, head_dim: int) -> Array:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): interpolate below, extrapolate above, a ramp between."""

    def dim_of(rotations: float) -> float:
        span = math.log(rope.original_tokens / (rotations * 2 * math.pi))
        return head_dim * span / (2 * math.log(rope.theta))

    low, high = dim_of(rope.beta_fast), dim_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / (max(high - low, 0.001)), 0.0, 1.0)
    frequencies: Array = base / rope.factor * ramp + base * (1 - ramp)
    return frequencies


def _yarn_factor(rope: RopeConfig) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return _yarn_scale(rope.factor, rope.mscale) / _yarn_scale(rope.factor, rope.mscale_all_dim)
    return _yarn_scale(rope.factor, 1.0)


def _yarn_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
