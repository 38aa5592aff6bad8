"""Compiles a model for the CPU with the settings measured best, and says why when it cannot."""

from typing import Any

import openvino
from openvino import CompiledModel, Model

from speciate.core.errors import LoadFailed
from speciate.engines.openvino.options import KvType, Precision

ACTIVATION_GROUP = 128
"""Against the plugin's 32: 24 % less time in a prefill of 128 tokens, 18 % at 16 sequences, 7 % at one, for 8-bit
matrices of 896 x 4864 on Zen 4 (docs/decisions/0011). A width that it does not divide has a shorter last group."""


def compile_model(model: Model, settings: dict[str, Any]) -> CompiledModel:
    """Raises LoadFailed with the runtime's reason."""
    try:
        return openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise LoadFailed(f"OpenVINO cannot compile the model with {settings}: {error}") from error


def choose_precision(precision: Precision) -> str:
    """auto: bf16 where the CPU computes with it, else f32. Quantised matmuls take float32 rows in either."""
    if precision != "auto":
        return precision
    return "bf16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def runtime_settings(
    precision: Precision, threads: int | None, activation_group: int | None, kv: KvType | None = None
) -> dict[str, Any]:
    """Properties of the CPU plugin. Raises LoadFailed for a KV type that the precision cannot read."""
    chosen = choose_precision(precision)
    if kv == "bf16" and chosen != "bf16":
        raise LoadFailed(f"kv bf16 needs precision bf16, not {chosen}: choose u8, f16 or f32")
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": chosen,
        "EXECUTION_MODE_HINT": "ACCURACY" if precision == "f32" else "PERFORMANCE",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _activation_group(precision, activation_group),
    }
    if kv is not None:
        settings["KV_CACHE_PRECISION"] = kv
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def _activation_group(precision: Precision, group: int | None) -> int:
    if group is not None:
        return group
    return 0 if precision == "f32" else ACTIVATION_GROUP
