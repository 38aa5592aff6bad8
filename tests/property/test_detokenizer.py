"""For any tokens and any stop strings: the pieces of a stream make exactly the text that was meant."""

import json
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from speciate.models.detokenizer import StopMatcher
from speciate.models.tokenizer import Tokenizer

LINES = ["Hello world, this is a test.", "naïve 你好 😀", "aab aaab abab\n\n"] * 6


def make_byte_level() -> Tokenizer:
    made = Library(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        LINES,
        trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False),
    )
    made.add_tokens(["<tool_call>", "é x"])
    return Tokenizer(made.to_str())


def make_byte_fallback() -> Tokenizer:
    made = Library(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    tokens = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(
        [line for line in LINES if line.isascii()],
        trainers.BpeTrainer(vocab_size=300, special_tokens=tokens, show_progress=False),
    )
    text = json.loads(made.to_str())
    text["added_tokens"] = [token for token in text["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer(json.dumps(text))


BYTE_LEVEL, BYTE_FALLBACK = make_byte_level(), make_byte_fallback()
TEXTS = st.text(alphabet=st.sampled_from("ab \n<>é你😀H"), max_size=20)


def streamed(tokenizer: Tokenizer, ids: list[int], stop: tuple[str, ...], skip_special: bool = True) -> str:
    stream = tokenizer.stream(stop, skip_special=skip_special)
    return "".join(stream.push(token_id).text for token_id in ids) + stream.flush()


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, BYTE_LEVEL.vocab_size - 1), max_size=25), skip_special=st.booleans())
def test_any_tokens_of_a_byte_level_vocabulary(ids: list[int], skip_special: bool) -> None:
    assert streamed(BYTE_LEVEL, ids, (), skip_special) == BYTE_LEVEL.decode(tuple(ids), skip_special)


@settings(deadline=None)
@given(texts=st.lists(TEXTS, max_size=4), skip_special=st.booleans())
def test_any_text_of_a_byte_fallback_vocabulary(texts: list[str], skip_special: bool) -> None:
    """Pieces of text and whole characters in bytes; broken runs of bytes are an example of their own."""
    ids = [token_id for text in texts for token_id in BYTE_FALLBACK.encode(text)]
    assert streamed(BYTE_FALLBACK, ids, (), skip_special) == BYTE_FALLBACK.decode(tuple(ids), skip_special)


@settings(deadline=None)
@given(data=st.binary(max_size=8) | st.text(max_size=3).map(str.encode))
def test_runs_of_bytes(data: bytes) -> None:
    """The library spoils a whole run for one bad byte; a stream has shown the whole characters before it by then."""
    ids = [2 + byte for byte in data]
    shown = streamed(BYTE_FALLBACK, ids, ())
    try:
        wanted, num_good = data.decode(), len(data)
    except UnicodeDecodeError as error:
        num_good = error.start
        wanted = data[:num_good].decode() + "\ufffd" * (len(data) - num_good)
    assert shown == wanted.removeprefix(" ")
    if num_good in (0, len(data)):
        assert shown == BYTE_FALLBACK.decode(tuple(ids))


def text_before_stop(text: str, stop: tuple[str, ...]) -> tuple[str, str | None]:
    """The definition: the stop string that ends first; of those that end together, the longest."""
    for end in range(len(text) + 1):
        found = [word for word in stop if text[:end].endswith(word)]
        if found:
            word = max(found, key=len)
            return text[: end - len(word)], word
    return text, None


STOPS = st.lists(st.text(alphabet="ab\n<é你", min_size=1, max_size=4), min_size=1, max_size=5).map(tuple)


@settings(deadline=None)
@given(texts=st.lists(TEXTS, max_size=4), stop=STOPS)
@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte_level", "byte_fallback"])
def test_a_stream_ends_before_its_first_stop_string(
    tokenizer: Tokenizer, texts: list[str], stop: tuple[str, ...]
) -> None:
    ids = [token_id for text in texts for token_id in tokenizer.encode(text)]
    wanted, word = text_before_stop(tokenizer.decode(tuple(ids)), stop)
    stream = tokenizer.stream(stop)
    steps = [stream.push(token_id) for token_id in ids]
    shown = "".join(step.text for step in steps) + stream.flush()
    assert shown == wanted
    if word is not None:
        assert steps[-1].stopped_by == word


@settings(deadline=None)
@given(
    text=st.text(alphabet="abc", max_size=30),
    stop=st.lists(st.text(alphabet="abc", min_size=1, max_size=5), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 4), max_size=30),
)
def test_nothing_of_a_possible_stop_string_is_shown_and_nothing_else_is_held(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    """After each piece exactly the longest end that begins a stop string is held back."""
    matcher, shown, at = StopMatcher(tuple(stop), include_stop=False), "", 0
    for end in accumulate(cuts):
        step = matcher.push(text[at:end])
        shown, at = shown + step.text, end
        if step.stopped_by is not None:
            return
        seen = text[:end]
        held = max((n for n in range(len(seen) + 1) if n == 0 or any(w.startswith(seen[-n:]) for w in stop)), default=0)
        assert shown == seen[: len(seen) - held]
