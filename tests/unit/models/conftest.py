"""Tiny tokenizers of the two kinds that text models have, trained on a few lines."""

import json

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from speciate.models.tokenizer import Tokenizer

LINES = [
    "Hello world, this is a small test. The quick brown fox jumps over it.",
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": 12}}',
    "naïve café, 你好世界, and more 😀",
    "<tool_call>\n{}\n</tool_call> [TOOL_CALLS] <think> </think>",
]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<tool_call>", "</tool_call>", "<think>", "</think>"]


def train_byte_level(marks: list[str], special_marks: list[str]) -> Library:
    """As GPT-2, Qwen, Llama 3: `marks` are added tokens that are not special, as in Qwen3."""
    made = Library(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=CONTROL,
        show_progress=False,
    )
    made.train_from_iterator(LINES * 9, trainer)
    made.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks])
    made.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in special_marks])
    return made


def train_byte_fallback() -> Library:
    """As Llama 2 and Mistral: spaces are written `▁`, what is not in the vocabulary goes byte by byte."""
    made = Library(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    made.train_from_iterator([line for line in LINES if line.isascii()] * 9, trainer)
    text = json.loads(made.to_str())
    text["added_tokens"] = [token for token in text["added_tokens"] if not token["content"].startswith("<0x")]
    return Library.from_str(json.dumps(text))


@pytest.fixture(scope="session")
def byte_level() -> Tokenizer:
    return Tokenizer(train_byte_level(MARKS, ["[TOOL_CALLS]", "<|python_tag|>"]).to_str())


@pytest.fixture(scope="session")
def plain_byte_level() -> Tokenizer:
    """Without any marks: models write them with ordinary tokens."""
    return Tokenizer(train_byte_level([], []).to_str())


@pytest.fixture(scope="session")
def byte_fallback() -> Tokenizer:
    return Tokenizer(train_byte_fallback().to_str())
