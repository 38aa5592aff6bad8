"""Random weights in a real model's shape, written once in the three formats that the contenders read.

Speed does not depend on what the weights say. All three hold them in 8 bits: OpenVINO one scale an output channel,
GGUF Q8_0 one scale in 32 values.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct


class ModelSize(Struct, frozen=True):
    """A decoder of Qwen2's family."""

    name: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int = 64

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every tensor of the checkpoint, the output head being the embedding."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        yield "model.embed_tokens.weight", (self.vocab_size, hidden)
        yield "model.norm.weight", (hidden,)
        for layer in range(self.num_layers):
            stem = f"model.layers.{layer}."
            yield stem + "input_layernorm.weight", (hidden,)
            yield stem + "post_attention_layernorm.weight", (hidden,)
            for part, width in (("q", queries), ("k", keys), ("v", keys)):
                yield f"{stem}self_attn.{part}_proj.weight", (width, hidden)
                yield f"{stem}self_attn.{part}_proj.bias", (width,)
            yield stem + "self_attn.o_proj.weight", (hidden, queries)
            yield stem + "mlp.gate_proj.weight", (inner, hidden)
            yield stem + "mlp.up_proj.weight", (inner, hidden)
            yield stem + "mlp.down_proj.weight", (hidden, inner)

    @property
    def num_parameters(self) -> int:
        return sum(int(np.prod(shape)) for _, shape in self.shapes())


FULL = ModelSize("qwen2.5-0.5b-shape", 151936, 896, 4864, 24, 14, 2)
QUICK = ModelSize("qwen2.5-0.5b-shape-4-layers", 32000, 896, 4864, 4, 14, 2)
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
Array = np.ndarray[Any, np.dtype[Any]]


def make_weights(size: ModelSize) -> Iterator[tuple[str, Array]]:
    """float32, spread like a trained model's: norms about 1, matrices about 0.02."""
    rng = np.random.default_rng(0)
    for name, shape in size.shapes():
        values = rng.random(shape, np.float32)
        yield name, values * 0.2 + 0.9 if name.endswith("norm.weight") else (values - 0.5) * 0.07


def prepare(size: ModelSize, cache: Path, formats: tuple[str, ...]) -> dict[str, Path]:
    """Folders (or the file) by format: `hf`, `ir`, `gguf`. What is there already is kept."""
    base = cache / size.name
    paths = {"hf": base / "hf", "ir": base / "ir", "gguf": base / "model-q8_0.gguf"}
    makers = {"hf": write_hf, "ir": write_ir, "gguf": write_gguf}
    for name in formats:
        if not paths[name].exists():
            base.mkdir(parents=True, exist_ok=True)
            print(f"writing {paths[name]}", flush=True)
            makers[name](size, paths[name])
    return {name: paths[name] for name in formats}


def write_hf(size: ModelSize, folder: Path) -> None:
    from safetensors.numpy import save_file

    draft = folder.with_suffix(".part")
    draft.mkdir(exist_ok=True)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": size.vocab_size,
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "num_key_value_heads": size.num_kv_heads,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "eos_token_id": 2,
    }
    (draft / "config.json").write_text(json.dumps(config))
    (draft / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    save_file({name: values.astype(np.float16) for name, values in make_weights(size)}, draft / "model.safetensors")
    draft.rename(folder)


def write_ir(size: ModelSize, folder: Path) -> None:
    """The stateful 8-bit model as an exporter would write it."""
    import openvino

    from speciate.engines.openvino.source import load_decoder

    draft = folder.with_suffix(".part")
    draft.mkdir(exist_ok=True)
    hf = folder.parent / "hf"
    source = load_decoder(hf, "int8")
    openvino.save_model(source.model, draft / "openvino_model.xml", compress_to_fp16=False)
    for name in ("config.json", "generation_config.json"):
        (draft / name).write_bytes((hf / name).read_bytes())
    draft.rename(folder)


def write_gguf(size: ModelSize, path: Path) -> None:
    import gguf

    draft = path.with_suffix(".part")
    writer = gguf.GGUFWriter(draft, "qwen2")
    writer.add_context_length(32768)
    writer.add_embedding_length(size.hidden_size)
    writer.add_block_count(size.num_layers)
    writer.add_feed_forward_length(size.intermediate_size)
    writer.add_head_count(size.num_heads)
    writer.add_head_count_kv(size.num_kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1000000.0)
    writer.add_vocab_size(size.vocab_size)
    writer.add_tokenizer_model("none")
    for name, values in make_weights(size):
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    draft.rename(path)


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        layer, module = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{layer}.{GGUF_NAMES[module]}.{kind}"
    return f"{GGUF_NAMES[stem]}.{kind}"
