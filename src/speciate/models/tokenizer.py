"""A tokenizer from its `tokenizer.json`: text to ids, ids to text and bytes. The only module that knows the library."""

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from msgspec import Struct

from speciate.core.errors import LoadFailed
from speciate.models.detokenizer import (
    ByteDecoder,
    FallbackDecoder,
    StopMatcher,
    TextStream,
    TokenDecoder,
    WindowDecoder,
)


class Tokenizer:
    """Encodes and decodes for one model. Safe to share between threads."""

    def __init__(self, json_text: str) -> None:
        """Raises LoadFailed when the text is not a tokenizer."""
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json_text)
        except Exception as error:  # the library raises nothing narrower
            raise LoadFailed(f"this is not a tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._rule = _decoder_rule(json.loads(json_text).get("decoder"))
        self._bytes: dict[int, bytes] = {}
        self._pieces: dict[int, bytes | str] = {}
        self.special_ids: frozenset[int] = frozenset(
            token_id for token_id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        )
        self.added_ids: frozenset[int] = frozenset(self._tokenizer.get_added_tokens_decoder())
        """Tokens that are matched before the model sees the text; the special ones and others such as tool marks."""
        self.vocab_size: int = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        """One more than the largest id; a model's logits may be wider."""

    @cached_property
    def json_text(self) -> str:
        """The whole tokenizer, without truncation and padding."""
        return str(self._tokenizer.to_str())

    def encode(self, text: str, add_special: bool = True) -> tuple[int, ...]:
        """Token ids; `add_special` adds what the model wants around a text (its start token). Special tokens written
        out in the text become themselves. Releases the GIL."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids: tuple[int, ...], skip_special: bool = True) -> str:
        """The text of whole tokens; half characters become U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def token_id(self, token: str) -> int | None:
        """The id of a token written exactly so, as `<|im_end|>`."""
        token_id = self._tokenizer.token_to_id(token)
        return None if token_id is None else int(token_id)

    def added_id(self, token: str) -> int | None:
        """As `token_id`, of added tokens only: a mark that the model writes with ordinary tokens has no id."""
        token_id = self.token_id(token)
        return token_id if token_id in self.added_ids else None

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to a text, as bytes: it may be a part of a character. Empty for an unused id."""
        data = self._bytes.get(token_id)
        if data is None:
            data = self._bytes[token_id] = self._rule.bytes_of(self._tokenizer.id_to_token(token_id) or "")
        return data

    def stream(self, stop: tuple[str, ...] = (), include_stop: bool = False, skip_special: bool = True) -> TextStream:
        """Incremental decoding of one sequence. Raises InvalidRequest for an empty stop string."""
        return TextStream(self._decoder(skip_special), StopMatcher(stop, include_stop) if stop else None)

    def _decoder(self, skip_special: bool) -> TokenDecoder:
        skipped = self.special_ids if skip_special else frozenset()
        match self._rule.kind:
            case "byte_level":
                return ByteDecoder(self.token_bytes, skipped)
            case "fallback":
                return FallbackDecoder(self._piece, skipped, self._rule.strip_left, self._rule.first_piece)
            case _:
                return WindowDecoder(lambda ids: self._tokenizer.decode(ids, skip_special_tokens=skip_special))

    def _piece(self, token_id: int) -> bytes | str:
        piece = self._pieces.get(token_id)
        if piece is None:
            piece = self._pieces[token_id] = self._rule.piece_of(self._tokenizer.id_to_token(token_id) or "")
        return piece


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder. Raises LoadFailed that names the file."""
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LoadFailed(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LoadFailed(f"{path} is not UTF-8") from error
    try:
        return Tokenizer(text)
    except LoadFailed as error:
        raise LoadFailed(f"{path}: {error.message}") from error


class _DecoderRule(Struct, frozen=True):
    """How a tokenizer's decoder turns tokens into text, as far as we do it ourselves."""

    kind: str
    """`byte_level`, `fallback` (text pieces and byte tokens), or `other`."""
    space: str = ""
    """What stands for a space in a piece."""
    strip_left: int = 0
    drops_first_space: bool = False
    """Every `space` of the first piece is dropped (Metaspace that prepends one)."""
    has_byte_tokens: bool = False

    def bytes_of(self, token: str) -> bytes:
        if self.kind == "byte_level":
            return _byte_level_bytes(token)
        piece = self.piece_of(token)
        return piece if isinstance(piece, bytes) else piece.encode()

    def piece_of(self, token: str) -> bytes | str:
        if self.has_byte_tokens and _BYTE_TOKEN.fullmatch(token):
            return bytes([int(token[3:5], 16)])
        return token.replace(self.space, " ") if self.space else token

    def first_piece(self, piece: str) -> str:
        return piece.replace(" ", "") if self.drops_first_space else piece


_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet (Radford 2019): printable bytes stand for themselves, the others from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    for place, byte in enumerate(byte for byte in range(256) if byte not in set(printable)):
        alphabet[chr(0x100 + place)] = byte
    return alphabet


_BYTE_OF = _byte_alphabet()


def _byte_level_bytes(token: str) -> bytes:
    """A token with a character outside the alphabet (an added one) stands for itself, as the library has it."""
    try:
        return bytes([_BYTE_OF[char] for char in token])
    except KeyError:
        return token.encode()


def _decoder_rule(decoder: dict[str, Any] | None) -> _DecoderRule:
    """Read the decoder part of a tokenizer.json; whatever is not known for sure is `other`."""
    steps: list[dict[str, Any]] = []
    if decoder is not None:
        steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _DecoderRule("byte_level")
    if kinds == ["Metaspace"]:
        return _DecoderRule(
            "fallback", space=steps[0]["replacement"], drops_first_space=steps[0].get("prepend_scheme") != "never"
        )
    if "ByteFallback" in kinds and set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip"}:
        return _fallback_rule(steps) or _DecoderRule("other")
    return _DecoderRule("other")


def _fallback_rule(steps: list[dict[str, Any]]) -> _DecoderRule | None:
    """Replace the space sign, join bytes, fuse, strip on the left: in this order, each at most once."""
    kinds = [step["type"] for step in steps]
    by_kind = dict(zip(kinds, steps, strict=True))
    replace, strip = by_kind.get("Replace", {}), by_kind.get("Strip", {})
    if [k for k in ("Replace", "ByteFallback", "Fuse", "Strip") if k in by_kind] != kinds:
        return None
    if replace and replace.get("content") != " ":
        return None
    if strip and (strip.get("content") != " " or strip.get("stop", 0) != 0):
        return None
    space = replace.get("pattern", {}).get("String", "")
    return _DecoderRule("fallback", space=space, strip_left=int(strip.get("start", 0)), has_byte_tokens=True)
