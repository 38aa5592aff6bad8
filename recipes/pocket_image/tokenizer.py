"""A CLIP tokenizer that knows every word of a prompt as one token; all other text is read byte by byte."""

import json
from pathlib import Path

from transformers import CLIPTokenizer

from speciate.models.pocket.scenes import WORDS

LENGTH_TOKENS = 16
"""Prompts are padded or cut to this length, begin and end included."""

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """Writes vocab.json and merges.txt into the folder and what loaders read beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = _merges()
    letters = [chr(code) for code in _byte_codes()]
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *(a + b for a, b in merges), _START, _END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH_TOKENS, pad_token=_END
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _merges() -> list[tuple[str, str]]:
    """Each word grows letter by letter; words with a common start share those steps."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + _WORD_END]
        grown = pieces[0]
        for piece in pieces[1:]:
            merges[grown, piece] = None
            grown += piece
    return list(merges)


def _byte_codes() -> list[int]:
    """The printable stand-ins of the 256 bytes, in the order of GPT-2's table."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return printable + [256 + n for n in range(256 - len(printable))]
