"""The engines under test behind one small interface, each run in a process of its own.

A contender answers two questions in seconds: one prompt of n tokens, and steps that decode b sequences. Every answer
includes picking the likeliest token from the logits, as a server must.
"""

import ctypes
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

CONTEXT_TOKENS = 256
"""Tokens behind each sequence when decoding starts."""
MOST_SEQUENCES = 16
ROOM_TOKENS = 512
"""KV room a sequence has when decoding."""
MOST_PROMPT_TOKENS = 2048
Settings = dict[str, Any]


class Contender(Protocol):
    settings: Settings

    def prefill_s(self, num_tokens: int) -> float:
        """Seconds from a fresh prompt to its first token."""
        ...

    def decode_s(self, num_sequences: int, num_steps: int) -> list[float]:
        """Seconds of each step, every sequence having CONTEXT_TOKENS tokens before the first."""
        ...


def draw(count: int, vocab_size: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, vocab_size, count)]


class Speciate:
    """Ours: plans as the scheduler would make them, sampling included."""

    def __init__(self, path: Path, threads: int, vocab_size: int, kv: Literal["u8", "bf16"] = "u8") -> None:
        from speciate.core.engine import SequenceSpec
        from speciate.core.request import SamplingParams
        from speciate.engines.openvino import OpenVinoEngine, OpenVinoOptions

        self.vocab_size = vocab_size
        options = OpenVinoOptions(weights="int8", kv=kv, kv_bytes=1 << 29, threads=threads)
        self.engine = OpenVinoEngine.load(path, options)
        for seq_id in range(MOST_SEQUENCES + 1):
            self.engine.add(SequenceSpec(seq_id, (), SamplingParams(temperature=0)))
        self.blocks_each = ROOM_TOKENS // self.engine.shape.block_tokens
        self.ready: set[int] = set()
        self.settings: Settings = {"weights": "int8 a channel", "kv": kv, "threads": threads}

    def prefill_s(self, num_tokens: int) -> float:
        blocks = tuple(range(MOST_SEQUENCES * self.blocks_each, self.engine.shape.num_blocks))
        return self._step([(MOST_SEQUENCES, draw(num_tokens, self.vocab_size), 0, blocks)])

    def decode_s(self, num_sequences: int, num_steps: int) -> list[float]:
        tables = [range(i * self.blocks_each, (i + 1) * self.blocks_each) for i in range(num_sequences)]
        for i, table in enumerate(tables):
            if i not in self.ready:
                self._step([(i, draw(CONTEXT_TOKENS, self.vocab_size, i), 0, tuple(table))])
                self.ready.add(i)
        times = []
        for step in range(num_steps):
            rows = [(i, [5 + step], CONTEXT_TOKENS + step, tuple(table)) for i, table in enumerate(tables)]
            times.append(self._step(rows))
        return times

    def _step(self, rows: list[tuple[int, list[int], int, tuple[int, ...]]]) -> float:
        from speciate.core.engine import SequenceStep, StepPlan

        steps = (SequenceStep(seq_id, tuple(tokens), at, blocks, True) for seq_id, tokens, at, blocks in rows)
        plan = StepPlan(0, tuple(steps))
        start = time.perf_counter()
        result = self.engine.step(plan)
        elapsed = time.perf_counter() - start
        if len(result.samples) != len(rows):
            raise RuntimeError(f"{len(result.samples)} samples from {len(rows)} rows")
        return elapsed


class GenAi:
    """openvino-genai's continuous batching pipeline on the same 8-bit model."""

    def __init__(self, path: Path, threads: int, vocab_size: int, **properties: Any) -> None:
        import openvino
        import openvino_genai

        self.genai, self.openvino = openvino_genai, openvino
        self.vocab_size = vocab_size
        config = openvino_genai.SchedulerConfig()
        config.num_kv_blocks = MOST_SEQUENCES * ROOM_TOKENS // 32 + 64
        config.max_num_batched_tokens = 4096
        config.max_num_seqs = 256
        config.dynamic_split_fuse = True
        config.enable_prefix_caching = False
        given = {"INFERENCE_NUM_THREADS": threads, **properties}
        self.pipe = openvino_genai.ContinuousBatchingPipeline(path, config, "CPU", given)
        self.settings: Settings = {"weights": "int8 a channel", "max_num_batched_tokens": 4096, **given}
        self.next_id = 0

    def prefill_s(self, num_tokens: int) -> float:
        handle = self._add(num_tokens, 2, 0)
        start = time.perf_counter()
        self.pipe.step()
        elapsed = time.perf_counter() - start
        self._drain([handle])
        return elapsed

    def decode_s(self, num_sequences: int, num_steps: int) -> list[float]:
        handles = [self._add(CONTEXT_TOKENS, num_steps + 2, i) for i in range(num_sequences)]
        for _ in range(-(-CONTEXT_TOKENS * num_sequences // 4096)):
            self.pipe.step()
        times = []
        for _ in range(num_steps):
            start = time.perf_counter()
            self.pipe.step()
            times.append(time.perf_counter() - start)
        self._drain(handles)
        return times

    def _add(self, num_tokens: int, new_tokens: int, seed: int) -> Any:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        ids = self.openvino.Tensor(np.array([draw(num_tokens, self.vocab_size, seed)], np.int64))
        self.next_id += 1
        return self.pipe.add_request(self.next_id, ids, config)

    def _drain(self, handles: list[Any]) -> None:
        while self.pipe.has_non_finished_requests():
            self.pipe.step()
        for handle in handles:
            handle.read_all()


class LlamaCpp:
    """llama.cpp through its C API, one `llama_decode` a step."""

    def __init__(
        self, path: Path, threads: int, vocab_size: int, flash: bool = True, ubatch: int = 512, is_unified: bool = False
    ) -> None:
        llama_cpp: Any = importlib.import_module("llama_cpp")  # has no types
        self.api = llama_cpp
        self.vocab_size = vocab_size
        llama_cpp.llama_log_set(QUIET, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = (MOST_SEQUENCES + 1) * (MOST_PROMPT_TOKENS + 256)
        params.n_batch = 4096
        params.n_ubatch = ubatch
        params.n_seq_max = MOST_SEQUENCES + 1
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = int(flash)
        params.kv_unified = is_unified
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.batch = llama_cpp.llama_batch_init(4096, 0, 1)
        self.ready: set[int] = set()
        self.settings: Settings = {
            "weights": "Q8_0",
            "kv": "f16",
            "flash_attention": flash,
            "kv_unified": is_unified,
            "n_batch": 4096,
            "n_ubatch": ubatch,
            "threads": threads,
            "system": llama_cpp.llama_print_system_info().decode(),
        }

    def prefill_s(self, num_tokens: int) -> float:
        rows = [(MOST_SEQUENCES, at, token) for at, token in enumerate(draw(num_tokens, self.vocab_size))]
        elapsed = self._decode(rows, {num_tokens - 1})
        self._forget(MOST_SEQUENCES, 0)
        return elapsed

    def decode_s(self, num_sequences: int, num_steps: int) -> list[float]:
        for i in range(num_sequences):
            if i not in self.ready:
                rows = [(i, at, token) for at, token in enumerate(draw(CONTEXT_TOKENS, self.vocab_size, i))]
                self._decode(rows, {CONTEXT_TOKENS - 1})
                self.ready.add(i)
        places = set(range(num_sequences))
        times = [
            self._decode([(i, CONTEXT_TOKENS + step, 5 + step) for i in range(num_sequences)], places)
            for step in range(num_steps)
        ]
        for i in range(num_sequences):
            self._forget(i, CONTEXT_TOKENS)
        return times

    def _forget(self, sequence: int, first: int) -> None:
        """Drop a sequence's KV from position `first` on."""
        self.api.llama_memory_seq_rm(self.api.llama_get_memory(self.context), sequence, first, -1)

    def _decode(self, rows: list[tuple[int, int, int]], sampled: set[int]) -> float:
        start = time.perf_counter()
        batch = self.batch
        batch.n_tokens = len(rows)
        for place, (sequence, position, token) in enumerate(rows):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
            batch.logits[place] = place in sampled
        if self.api.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        for place in sampled:
            row = self.api.llama_get_logits_ith(self.context, place)
            np.ctypeslib.as_array(row, (self.vocab_size,)).argmax()
        return time.perf_counter() - start


def _ignore(level: int, text: bytes, data: Any) -> None:
    return


QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_ignore)
"""llama.cpp's log goes nowhere; the callback must outlive the library."""


def make_speciate(path: Path, threads: int, vocab_size: int) -> Contender:
    return Speciate(path, threads, vocab_size)


def make_speciate_bf16_kv(path: Path, threads: int, vocab_size: int) -> Contender:
    return Speciate(path, threads, vocab_size, kv="bf16")


def make_genai(path: Path, threads: int, vocab_size: int) -> Contender:
    return GenAi(path, threads, vocab_size)


def make_genai_tuned(path: Path, threads: int, vocab_size: int) -> Contender:
    return GenAi(path, threads, vocab_size, KV_CACHE_PRECISION="f16", DYNAMIC_QUANTIZATION_GROUP_SIZE=128)


def make_llama_cpp(path: Path, threads: int, vocab_size: int) -> Contender:
    return LlamaCpp(path, threads, vocab_size)


CONTENDERS: dict[str, tuple[str, Callable[[Path, int, int], Contender]]] = {
    "speciate": ("hf", make_speciate),
    "speciate, bf16 KV": ("hf", make_speciate_bf16_kv),
    "openvino-genai": ("ir", make_genai),
    "openvino-genai, tuned": ("ir", make_genai_tuned),
    "llama.cpp": ("gguf", make_llama_cpp),
}
"""Name to the weights' format and the maker, which runs in the contender's own process."""
