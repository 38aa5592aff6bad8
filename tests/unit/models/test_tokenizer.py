"""The tokenizer against the library it wraps."""

import json

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from speciate.core.errors import LoadFailed
from speciate.models.tokenizer import Tokenizer, read_tokenizer

TEXTS = ["", "Hello world", " leading", "naïve 你好 😀", "<tool_call>\n{}</tool_call>", "a\n\n b\t", "<|im_end|>x"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back(byte_level: Tokenizer, byte_fallback: Tokenizer, text: str) -> None:
    for tokenizer in (byte_level, byte_fallback):
        assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


def test_token_bytes_join_to_the_text(byte_level: Tokenizer, byte_fallback: Tokenizer) -> None:
    text = "Hello naïve 你好 😀 <tool_call>"
    assert b"".join(map(byte_level.token_bytes, byte_level.encode(text))) == text.encode()
    assert b"".join(map(byte_fallback.token_bytes, byte_fallback.encode(text))) == (" " + text).encode()


def test_token_bytes_of_single_tokens(byte_level: Tokenizer, byte_fallback: Tokenizer) -> None:
    newline = byte_fallback.token_id("<0x0A>")
    assert newline is not None
    assert byte_fallback.token_bytes(newline) == b"\n"
    end = byte_level.token_id("<|im_end|>")
    assert end is not None
    assert byte_level.token_bytes(end) == b"<|im_end|>"
    every = {byte_level.token_bytes(i) for i in range(byte_level.vocab_size)}
    assert {bytes([byte]) for byte in range(256)} <= every
    assert byte_level.token_bytes(10**6) == b""


def test_special_tokens_are_skipped_on_demand(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("a<|im_end|><tool_call>b")
    assert byte_level.decode(ids) == "a<tool_call>b"
    assert byte_level.decode(ids, skip_special=False) == "a<|im_end|><tool_call>b"
    assert byte_level.token_id("<|im_end|>") in byte_level.special_ids
    assert byte_level.token_id("<tool_call>") in byte_level.added_ids - byte_level.special_ids


def test_truncation_and_padding_in_the_file_are_ignored(byte_level: Tokenizer) -> None:
    library = Library.from_str(byte_level.json_text)
    library.enable_truncation(3)
    library.enable_padding(length=64)
    tokenizer = Tokenizer(library.to_str())
    assert tokenizer.encode("Hello world, Hello world") == byte_level.encode("Hello world, Hello world")
    assert json.loads(tokenizer.json_text)["truncation"] is None


def test_vocab_size_covers_the_largest_id(byte_level: Tokenizer) -> None:
    assert byte_level.vocab_size == max(Library.from_str(byte_level.json_text).get_vocab().values()) + 1


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), decoders.BPEDecoder("</w>"), None])
def test_other_decoders_stream_too(decoder: object) -> None:
    library = Library(models.WordLevel({"un": 0, "##able": 1, "the": 2, "é</w>": 3, "?": 4}, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    if decoder is not None:
        library.decoder = decoder
    tokenizer = Tokenizer(library.to_str())
    stream, ids = tokenizer.stream(), (2, 0, 1, 2, 3, 2, 4, 0, 1)
    assert "".join(stream.push(i).text for i in ids) + stream.flush() == tokenizer.decode(ids)


def test_metaspace_drops_its_own_first_space() -> None:
    for scheme in ("always", "first", "never"):
        library = Library(models.WordLevel({"▁a": 0, "b": 1, "▁▁c": 2, "?": 3}, unk_token="?"))
        library.decoder = decoders.Metaspace(prepend_scheme=scheme)
        tokenizer = Tokenizer(library.to_str())
        for ids in ((0, 1, 2), (2, 0), (1, 0), (0,)):
            stream = tokenizer.stream()
            assert "".join(stream.push(i).text for i in ids) + stream.flush() == tokenizer.decode(ids)


def test_a_missing_or_broken_file_is_named(tmp_path) -> None:
    with pytest.raises(LoadFailed, match=r"tokenizer\.json cannot be read"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(LoadFailed, match=r"tokenizer\.json: this is not a tokenizer"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(LoadFailed, match="UTF-8"):
        read_tokenizer(tmp_path)
