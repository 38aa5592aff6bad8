"""llama.cpp's own HTTP server (as the xllamacpp wheel carries it) with a model so small that the server remains: one
layer of width 64. What it costs is an upper bound of llama-server's overhead. Run with a port and a folder.
"""

import json
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

from speciate.models.pocket import TEXT_DIR

WIDTH, HIDDEN, HEADS, CONTEXT = 64, 128, 2, 2048
PARALLEL = 32


def write_tiny_model(path: Path) -> None:
    """A random Llama in f16 with the pocket model's tokenizer."""
    vocab = _vocabulary()
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    _write_tokenizer(writer, vocab)

    def add(name: str, *shape: int) -> None:
        dtype = np.float32 if len(shape) == 1 else np.float16
        writer.add_tensor(name, (rng.standard_normal(shape) * 0.02).astype(dtype))

    add("token_embd.weight", len(vocab), WIDTH)
    add("output_norm.weight", WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.0.{name}.weight", WIDTH, WIDTH)
    for name, shape in (("ffn_gate", (HIDDEN, WIDTH)), ("ffn_up", (HIDDEN, WIDTH)), ("ffn_down", (WIDTH, HIDDEN))):
        add(f"blk.0.{name}.weight", *shape)
    add("blk.0.attn_norm.weight", WIDTH)
    add("blk.0.ffn_norm.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> list[str]:
    tokenizer = json.loads((TEXT_DIR / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = {**tokenizer["model"]["vocab"], **{t["content"]: t["id"] for t in tokenizer["added_tokens"]}}
    return sorted(tokens, key=tokens.__getitem__)


def _write_tokenizer(writer: gguf.GGUFWriter, vocab: list[str]) -> None:
    tokenizer = json.loads((TEXT_DIR / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    added = {t["content"] for t in tokenizer["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if t in added else gguf.TokenType.NORMAL for t in vocab]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocab)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(vocab.index("<|im_end|>"))
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")


def main(port: int, folder: Path) -> None:
    """Serve until killed."""
    path = folder / "tiny.gguf"
    write_tiny_model(path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.port = port
    params.n_parallel = PARALLEL
    params.n_ctx = CONTEXT * PARALLEL
    params.cpuparams.n_threads = 1
    params.verbosity = 0
    server = xllamacpp.Server(params)
    while server.listening_address:
        time.sleep(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
