"""LoRA adapters (Hu et al. 2021, in PEFT's folders) beside a decoder's matmuls, chosen a token at a time.

All adapters of one matmul are laid side by side, rank after rank, and a row of a small table keeps only the ranks of
the token's own adapter, scaled; so base rows and rows of several adapters share one step (the idea of S-LoRA, Sheng et
al. 2023, as masks in a plain graph). Only a model with adapters pays for it.

    y = x W^T + ((x A^T) * table[adapter of the token]) B^T        A [R, I], B [O, R], R all ranks together

Shapes: T tokens, I inputs, O outputs, R ranks.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803, N806, N815

import re
from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct
from openvino import Model, Node, Type
from openvino import opset15 as ops

from speciate.core.errors import LoadFailed
from speciate.engines.openvino.checkpoint import Array, Checkpoint
from speciate.engines.openvino.config import Json, read_json
from speciate.engines.openvino.options import AdapterFolder

ADAPTER_IDS = "adapter_ids"
"""Input: number of each token's adapter, 0 for none, int32 [T]."""
TENSOR_NAME = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")


class LowRank(Struct, frozen=True):
    """One adapter's part of one matmul: y += scale * (x A^T) B^T."""

    adapter: int
    """1 is the first."""
    a_RI: Array
    b_OR: Array
    scale: float


def attach_adapters(model: Model, adapters: Sequence[AdapterFolder]) -> None:
    """Add all adapters to a model that is not paged yet. Raises LoadFailed, naming the adapter and the tensor."""
    if not adapters:
        return
    _check_names(adapters)
    modules: dict[str, list[LowRank]] = {}
    for number, adapter in enumerate(adapters, 1):
        for module, part in _read_adapter(adapter, number):
            modules.setdefault(module, []).append(part)
    ids_T = ops.parameter([-1], Type.i32)
    ids_T.set_friendly_name(ADAPTER_IDS)
    ids_T.output(0).get_tensor().set_names({ADAPTER_IDS})
    matmuls = _matmuls_by_module(model, modules)
    masks: dict[bytes, Node] = {}
    for module, parts in modules.items():
        _attach(matmuls[module], parts, _mask(ids_T, parts, len(adapters), masks), adapters, module)
    model.add_parameters([ids_T])
    model.validate_nodes_and_infer_types()


def _check_names(adapters: Sequence[AdapterFolder]) -> None:
    names = [adapter.name for adapter in adapters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LoadFailed(f"adapters share the name {twice[0]!r}: give each its own")


def _read_adapter(adapter: AdapterFolder, number: int) -> Iterator[tuple[str, LowRank]]:
    """The matmuls that an adapter changes, by module name."""
    config = _read_config(adapter)
    checkpoint = Checkpoint.open(adapter.path, "adapter_model.safetensors")
    sides: dict[str, dict[str, str]] = {}
    for name in checkpoint.tensors:
        found = TENSOR_NAME.match(name)
        if found is None:
            raise LoadFailed(f"adapter {adapter.name!r}: tensor {name!r} in {adapter.path} is not a LoRA of a matmul")
        sides.setdefault(found["module"], {})[found["side"]] = name
    if not sides:
        raise LoadFailed(f"adapter {adapter.name!r}: {adapter.path} holds no LoRA tensors")
    for module, names in sides.items():
        if set(names) != {"A", "B"}:
            missing = "A" if "B" in names else "B"
            raise LoadFailed(f"adapter {adapter.name!r}: module {module!r} has no lora_{missing} in {adapter.path}")
        a_RI, b_OR = checkpoint.tensors[names["A"]].f32(), checkpoint.tensors[names["B"]].f32()
        if a_RI.ndim != 2 or b_OR.ndim != 2 or a_RI.shape[0] != b_OR.shape[1]:
            raise LoadFailed(
                f"adapter {adapter.name!r}: {names['A']!r} {list(a_RI.shape)} and {names['B']!r} {list(b_OR.shape)} "
                "do not share a rank"
            )
        yield module, LowRank(number, a_RI, b_OR, _scale(config, module, a_RI.shape[0]))


def _read_config(adapter: AdapterFolder) -> Json:
    config = read_json(adapter.path / "adapter_config.json")
    refused = {
        "use_dora": config.get("use_dora"),
        "modules_to_save": config.get("modules_to_save"),
        "fan_in_fan_out": config.get("fan_in_fan_out"),
        "bias": config.get("bias", "none") != "none",
    }
    for key, is_set in refused.items():
        if is_set:
            raise LoadFailed(
                f"adapter {adapter.name!r}: {key} {config[key]!r} is not supported; merge it into the base"
            )
    if config.get("peft_type", "LORA") != "LORA":
        raise LoadFailed(f"adapter {adapter.name!r}: peft_type {config['peft_type']!r} is not supported, only LORA")
    if not isinstance(config.get("lora_alpha"), int | float):
        raise LoadFailed(f"adapter {adapter.name!r}: adapter_config.json has no number lora_alpha")
    return config


def _scale(config: Json, module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) (rsLoRA); `alpha_pattern` overrides alpha for modules whose name ends so."""
    patterns = config.get("alpha_pattern") or {}
    alpha = next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), None)
    alpha = float(config["lora_alpha"] if alpha is None else alpha)
    return alpha / rank**0.5 if config.get("use_rslora") else alpha / rank


def _matmuls_by_module(model: Model, modules: dict[str, list[LowRank]]) -> dict[str, Node]:
    """Matmuls are named for their module, by us exactly, by exporters as `__module.<module>/aten::linear/MatMul`."""
    found: dict[str, Node] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            name = node.get_friendly_name().split("/")[0].removeprefix("__module.")
            found[name] = node
    for module in modules:
        if module not in found or module == "lm_head":
            raise LoadFailed(f"an adapter changes {module!r}, which is not a matmul of the model's layers")
    return found


def _mask(ids_T: Node, parts: Sequence[LowRank], num_adapters: int, masks: dict[bytes, Node]) -> Node:
    """[T, 1, R]: the scale at the ranks of the token's adapter, else 0. Matmuls of the same layout share one."""
    table = np.zeros((num_adapters + 1, sum(part.a_RI.shape[0] for part in parts)), np.float32)
    first = 0
    for part in parts:
        table[part.adapter, first : first + part.a_RI.shape[0]] = part.scale
        first += part.a_RI.shape[0]
    key = table.tobytes()
    if key not in masks:
        rows_TR = ops.gather(ops.constant(table), ids_T, ops.constant(0, Type.i32))
        masks[key] = ops.unsqueeze(rows_TR, ops.constant([1], Type.i64))
    return masks[key]


def _attach(matmul: Node, parts: Sequence[LowRank], mask: Node, adapters: Sequence[AdapterFolder], module: str) -> None:
    weight_shape = matmul.input_value(1).get_partial_shape().to_shape()
    for part in parts:
        if (part.b_OR.shape[0], part.a_RI.shape[1]) != tuple(weight_shape):
            raise LoadFailed(
                f"adapter {adapters[part.adapter - 1].name!r}: {module!r} is {part.b_OR.shape[0]} x "
                f"{part.a_RI.shape[1]}, the model's is {' x '.join(map(str, weight_shape))}: it belongs to another base"
            )
    readers = list(matmul.output(0).get_target_inputs())
    a_RI = ops.constant(np.concatenate([part.a_RI for part in parts]))
    b_OR = ops.constant(np.ascontiguousarray(np.concatenate([part.b_OR for part in parts], axis=1)))
    low = ops.multiply(ops.matmul(matmul.input_value(0), a_RI, False, True), mask)
    changed = ops.add(matmul, ops.matmul(low, b_OR, False, True))
    for reader in readers:
        reader.replace_source_output(changed.output(0))
