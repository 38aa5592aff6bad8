"""Compiles a model for the CPU with the options measured best, and says why when it cannot."""

from typing import Any

import openvino
from openvino import CompiledModel, Model

from speciate.core.errors import LoadFailed
from speciate.engines.openvino.options import KvType, Precision

KV_PRECISIONS = {"u8": "u8", "f16": "f16", "bf16": "bf16", "f32": "f32"}


def compile_model(model: Model, settings: dict[str, Any]) -> CompiledModel:
    """Raises LoadFailed with the runtime's reason."""
    try:
        return openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise LoadFailed(f"OpenVINO cannot compile the model with {settings}: {error}") from error


def runtime_settings(
    precision: Precision, threads: int | None, activation_group: int | None, kv: KvType | None = None
) -> dict[str, Any]:
    """Properties of the CPU plugin: https://docs.openvino.ai, "CPU device"."""
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    settings["INFERENCE_PRECISION_HINT"] = "f32" if precision == "auto" else precision
    if precision == "f32":
        settings["EXECUTION_MODE_HINT"] = "ACCURACY"
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    if activation_group is not None:
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = activation_group
    if kv is not None:
        settings["KV_CACHE_PRECISION"] = KV_PRECISIONS[kv]
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings
