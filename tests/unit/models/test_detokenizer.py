"""Streams of text: whole characters only, stop strings across token borders, constant time a token."""

import math
import time

import pytest

from speciate.core.errors import InvalidRequest
from speciate.models.detokenizer import StopMatcher
from speciate.models.tokenizer import Tokenizer


def steps_of(tokenizer: Tokenizer, ids: tuple[int, ...], stop: tuple[str, ...] = (), **options: bool) -> list[str]:
    stream = tokenizer.stream(stop, **options)
    return [*(stream.push(i).text for i in ids), stream.flush()]


def ids_of(tokenizer: Tokenizer, data: bytes) -> tuple[int, ...]:
    """One token a byte."""
    by_bytes = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    return tuple(by_bytes[bytes([byte])] for byte in data)


def test_half_characters_wait_for_their_other_half(byte_level: Tokenizer, byte_fallback: Tokenizer) -> None:
    for tokenizer in (byte_level, byte_fallback):
        assert steps_of(tokenizer, ids_of(tokenizer, "x😀é".encode())) == ["x", "", "", "", "😀", "", "é", ""]


def test_a_broken_character_is_shown_as_such_once_it_is_certain(
    byte_level: Tokenizer, byte_fallback: Tokenizer
) -> None:
    assert steps_of(byte_level, ids_of(byte_level, b"\xf0\x9f" + b"a")) == ["", "", "\ufffda", ""]
    assert steps_of(byte_fallback, ids_of(byte_fallback, b"\xf0\x9f")) == ["", "", "\ufffd\ufffd"]
    assert steps_of(byte_level, ids_of(byte_level, b"\xe4\xbd")) == ["", "", "\ufffd"]


def test_only_the_first_space_of_sentencepiece_is_dropped(byte_fallback: Tokenizer) -> None:
    assert "".join(steps_of(byte_fallback, byte_fallback.encode("Hello world"))) == "Hello world"
    assert "".join(steps_of(byte_fallback, byte_fallback.encode("  Hello"))) == "  Hello"


def test_special_tokens_are_shown_on_demand(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("a<|im_end|>b")
    assert "".join(steps_of(byte_level, ids)) == "ab"
    assert "".join(steps_of(byte_level, ids, skip_special=False)) == "a<|im_end|>b"


def test_a_stop_string_across_tokens_is_held_back_and_cut(byte_level: Tokenizer) -> None:
    stream = byte_level.stream(("STOP",))
    steps = [stream.push(i) for i in ids_of(byte_level, b"ab SSTOP rest")]
    assert [s.text for s in steps][:8] == ["a", "b", " ", "", "S", "", "", ""]
    assert steps[7].stopped_by == "STOP"
    assert all(s.text == "" and s.stopped_by == "STOP" for s in steps[8:])
    assert stream.flush() == ""


def test_a_stop_string_may_stay(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("one. two. three")
    assert "".join(steps_of(byte_level, ids, (".",), include_stop=True)) == "one."
    assert "".join(steps_of(byte_level, ids, (".",))) == "one"


def test_what_only_looked_like_a_stop_string_is_shown(byte_level: Tokenizer) -> None:
    steps = steps_of(byte_level, ids_of(byte_level, b"a<en"), ("<end>",))
    assert steps == ["a", "", "", "", "<en"]


@pytest.mark.parametrize(
    ("stop", "text", "shown", "by"),
    [
        (("ab", "xabc"), "xabc", "x", "ab"),
        (("b", "ab"), "ab", "", "ab"),
        (("abcd", "bc"), "abcd", "a", "bc"),
        (("aab",), "aaab", "a", "aab"),
        (("he", "she", "hers"), "ushers", "u", "she"),
        (("\n\n",), "a\n\nb", "a", "\n\n"),
        (("😀",), "x😀", "x", "😀"),
    ],
)
def test_the_first_to_end_wins_and_of_those_the_longest(stop: tuple[str, ...], text: str, shown: str, by: str) -> None:
    for size in (1, 2, 3, 100):
        matcher = StopMatcher(stop, include_stop=False)
        steps = [matcher.push(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join(s.text for s in steps) == shown
        assert steps[-1].stopped_by == by


def test_an_empty_stop_string_is_refused(byte_level: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        byte_level.stream(("a", ""))


def test_signs_with_a_meaning_in_patterns_are_plain(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("a^b]c-d")
    assert "".join(steps_of(byte_level, ids, ("]",))) == "a^b"
    assert "".join(steps_of(byte_level, ids, ("^", "-", "]"))) == "a"


@pytest.mark.parametrize("num_stops", [0, 4, 10_000])
def test_a_token_costs_microseconds(byte_level: Tokenizer, num_stops: int) -> None:
    """About one; the best of a few, in CPU time, so that a busy machine does not fail it."""
    ids = byte_level.encode("Hello world, this is a small test. " * 100)
    best_s = math.inf
    stops = tuple(f"Hello stop {i} " for i in range(num_stops))
    for _ in range(5):
        stream = byte_level.stream(stops)
        started_s = time.process_time()
        for token_id in ids:
            stream.push(token_id)
        best_s = min(best_s, time.process_time() - started_s)
    assert best_s / len(ids) < 15e-6
