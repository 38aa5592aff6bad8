"""LoRA adapters beside a decoder's matmuls. Not built yet: none may be asked for."""

from openvino import Model

from speciate.engines.openvino.options import AdapterFolder


def attach_adapters(model: Model, adapters: tuple[AdapterFolder, ...]) -> None:
    return
