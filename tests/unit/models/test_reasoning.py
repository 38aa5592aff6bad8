"""Thought and answer are told apart however the text is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.core.request import Grammar
from speciate.engines.grammar import GrammarCompiler
from speciate.models.reasoning import ReasoningStream, grammar_after_thinking, opens_thinking
from speciate.models.tokenizer import Tokenizer


def split(pieces: list[str], starts_inside: bool) -> tuple[str, str]:
    stream = ReasoningStream(starts_inside)
    steps = [*(stream.push(piece) for piece in pieces), stream.flush()]
    return "".join(s.reasoning for s in steps), "".join(s.content for s in steps)


CASES = [
    ("<think>\nwhy\nnot\n</think>\n\nBecause.", False, ("why\nnot", "Because.")),
    ("\n<think>a</think>b", False, ("a", "b")),
    ("why\n</think>\n\nBecause", True, ("why", "Because")),
    ("no thought\n", False, ("", "no thought\n")),
    ("a <think>b</think>", False, ("", "a <think>b</think>")),
    ("<think>cut </thin", False, ("cut </thin", "")),
    ("<think></think>", False, ("", "")),
    ("<think>\n\n</think>\n\nHi </think>", False, ("", "Hi </think>")),
    ("<thi", False, ("", "<thi")),
    ("<thing>", False, ("", "<thing>")),
    ("  hi", False, ("", "  hi")),
    ("", True, ("", "")),
]


@pytest.mark.parametrize(("text", "starts_inside", "wanted"), CASES)
def test_whole_and_letter_by_letter(text: str, starts_inside: bool, wanted: tuple[str, str]) -> None:
    assert split([text], starts_inside) == wanted
    assert split(list(text), starts_inside) == wanted


@settings(deadline=None)
@given(
    parts=st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "<", "</thi", "b"]), max_size=12),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=40),
    starts_inside=st.booleans(),
)
def test_cutting_changes_nothing(parts: list[str], cuts: list[int], starts_inside: bool) -> None:
    text, pieces, at = "".join(parts), [], 0
    for size in cuts:
        pieces.append(text[at : at + size])
        at += size
    assert split([*pieces, text[at:]], starts_inside) == split([text], starts_inside)


def test_prompts_that_open_a_thought() -> None:
    assert opens_thinking("<|im_start|>assistant\n<think>\n")
    assert not opens_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not opens_thinking("<|im_start|>assistant\n")


def accepts(tokenizer: Tokenizer, grammar: Grammar, text: str) -> bool:
    matcher = GrammarCompiler(tokenizer.json_text, tokenizer.vocab_size, (0,)).matcher(grammar)
    for token_id in tokenizer.encode(text):
        if not matcher.allowed()[token_id] or not matcher.accept(token_id):
            return False
    return bool(matcher.allowed()[0])


GRAMMARS = [
    (Grammar("json_object"), '{"a": 1}', "a"),
    (Grammar("json_schema", '{"type": "object", "required": ["a"]}'), '{"a": 1}', "{}"),
    (Grammar("regex", "a/b\\/c\n?"), "a/b/c", "a/b"),
    (Grammar("lark", 'X: "x"\nstart: X "y"'), "xy", "x"),
]


@pytest.mark.parametrize(("grammar", "good", "bad"), GRAMMARS)
def test_a_grammar_binds_only_what_follows_the_thought(
    byte_level: Tokenizer, plain_byte_level: Tokenizer, grammar: Grammar, good: str, bad: str
) -> None:
    for tokenizer in (byte_level, plain_byte_level):
        inside, outside = (grammar_after_thinking(grammar, tokenizer, starts) for starts in (True, False))
        assert accepts(tokenizer, inside, f"well {bad}\n</think>\n\n{good}")
        assert not accepts(tokenizer, inside, f"well\n</think>\n\n{bad}")
        assert not accepts(tokenizer, inside, "well")
        assert accepts(tokenizer, outside, f"<think>\nwell\n</think>{good}")
        assert accepts(tokenizer, outside, good)
        assert not accepts(tokenizer, outside, bad)
