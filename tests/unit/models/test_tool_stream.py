"""Calls are found however the text is cut; what is no call comes back as text; no mark is ever shown."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.models.tool_formats import HERMES, LLAMA3, MISTRAL, ToolFormat
from speciate.models.tool_stream import CallArguments, CallEnded, CallStarted, ToolCallStream, ToolEvent, ToolText

NAMES = frozenset({"f", "g"})


def events_of(tool_format: ToolFormat, pieces: list[str]) -> list[ToolEvent]:
    stream = ToolCallStream(tool_format, NAMES)
    return [event for piece in pieces for event in stream.push(piece)] + list(stream.flush())


def fold(events: list[ToolEvent]) -> tuple[str, list[tuple[str, str]]]:
    """Text and (name, arguments); checks that each call starts, flows and ends in order."""
    text, calls, is_open = "", [], False
    for event in events:
        match event:
            case ToolText(shown):
                assert shown
                assert not is_open
                text += shown
            case CallStarted(index, name):
                assert index == len(calls)
                calls.append((name, ""))
                is_open = True
            case CallArguments(index, fragment):
                assert is_open
                assert index == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + fragment)
            case CallEnded(index):
                assert is_open
                assert index == len(calls) - 1
                is_open = False
    assert not is_open
    return text, calls


HERMES_CASES = [
    ("hi", "hi", []),
    ("text with  spaces \n", "text with  spaces \n", []),
    ("a < b and <tool", "a < b and <tool", []),
    (
        'hi\n<tool_call>\n{"name": "f", "arguments": {"a": "}{\\"", "b": [1, {"c": 2}]}}\n</tool_call>',
        "hi",
        [("f", '{"a": "}{\\"", "b": [1, {"c": 2}]}')],
    ),
    (
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"arguments": {"x":1}, "name": "g"}\n</tool_call>\nbye',
        "bye",
        [("f", "{}"), ("g", '{"x":1}')],
    ),
    ('Let me. <tool_call>{"name": "f", "arguments": {}}</tool_call> Done.', "Let me. Done.", [("f", "{}")]),
    ("<tool_call>\nnot json\n</tool_call> x", "<tool_call>\nnot json\n</tool_call> x", []),
    ('<tool_call>{"nam', '<tool_call>{"nam', []),
    ('<tool_call>{"arguments": {"a": 1}}</tool_call>', '<tool_call>{"arguments": {"a": 1}}</tool_call>', []),
    ('<tool_call>{"name": "f", "arguments": {"a": 1}}}\n</tool_call>', "", [("f", '{"a": 1}')]),
    ('<tool_call>{"name": "f", "arguments": {"a": 1}}', "", [("f", '{"a": 1}')]),
    ('<tool_call>{"name": "f", "arguments": {"a": "cut', "", [("f", '{"a": "cut')]),
    ('<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
    ('<tool_call>{"name": "f", "arguments": null}</tool_call>', "", [("f", "{}")]),
    ('<tool_call>{"name": "f", "parameters": {"a": 1}}</tool_call>', "", [("f", '{"a": 1}')]),
    ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
    ('<tool_call>{"id": 3, "name": "unknown", "arguments": {}}</tool_call>', "", [("unknown", "{}")]),
    (
        '<tool_call>{"name": "f", "arguments": {"a": 1}}<tool_call>{"name": "g", "arguments": {}}</tool_call>',
        "",
        [("f", '{"a": 1}'), ("g", "{}")],
    ),
]
LLAMA_CASES = [
    ('{"name": "f", "parameters": {"a": 1}}', "", [("f", '{"a": 1}')]),
    (
        '{"type":"function","name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
        "",
        [("f", '{"a": 1}'), ("g", "{}")],
    ),
    ('<|python_tag|>{"name": "f", "parameters": {}}', "", [("f", "{}")]),
    ('{"name": "Bob", "age": 3} is one', '{"name": "Bob", "age": 3} is one', []),
    ('{"answer": 1}', '{"answer": 1}', []),
    ('{"name": "f"}', '{"name": "f"}', []),
    ('hello {"name": "f", "parameters": {}}', 'hello {"name": "f", "parameters": {}}', []),
    ("[1, 2]", "[1, 2]", []),
]
MISTRAL_CASES = [
    (
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        "",
        [("f", '{"a": 1}'), ("g", "{}")],
    ),
    ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', "", [("f", '{"a": 1}')]),
    ('[{"name": "f", "arguments": {"a": 1}}]', "", [("f", '{"a": 1}')]),
    ('so [TOOL_CALLS][{"name": "new", "arguments": {}}] there', "so there", [("new", "{}")]),
    ("[1, 2]", "[1, 2]", []),
    ('[{"a": 1}]', '[{"a": 1}]', []),
    ("[TOOL_CALLS]oops", "[TOOL_CALLS]oops", []),
]
CASES = [
    *((HERMES, *case) for case in HERMES_CASES),
    *((LLAMA3, *case) for case in LLAMA_CASES),
    *((MISTRAL, *case) for case in MISTRAL_CASES),
]


@pytest.mark.parametrize(("tool_format", "text", "shown", "calls"), CASES)
def test_whole_and_letter_by_letter(tool_format: ToolFormat, text: str, shown: str, calls: list) -> None:
    assert fold(events_of(tool_format, [text])) == (shown, calls)
    assert fold(events_of(tool_format, list(text))) == (shown, calls)


def test_arguments_flow_before_the_call_ends() -> None:
    stream = ToolCallStream(HERMES, NAMES)
    assert stream.push('<tool_call>\n{"name": "f", "argum') == ()
    assert stream.push('ents": {"a": "lo') == (CallStarted(0, "f"), CallArguments(0, '{"a": "lo'))
    assert stream.push("ng") == (CallArguments(0, "ng"),)
    assert stream.push('"}}\n</tool_') == (CallArguments(0, '"}'), CallEnded(0))
    assert stream.push("call>") == ()
    assert stream.flush() == ()


def test_text_flows_while_it_cannot_be_a_mark() -> None:
    stream = ToolCallStream(HERMES, NAMES)
    assert stream.push("1 <") == (ToolText("1"),)
    assert stream.push(" 2") == (ToolText(" < 2"),)


PARTS = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    '[{"name": "f", "arguments": {"a": "]}"}}]',
    '{"name": "f", "arguments": {"a": [1, "}"]}}',
    '{"name": "g", "parameters": {}}',
    '{"name": ',
    '"arguments": {"',
    "}",
    ";",
    ",",
    "\n",
    " word",
    "<",
]


@settings(deadline=None)
@given(
    tool_format=st.sampled_from([HERMES, LLAMA3, MISTRAL]),
    parts=st.lists(st.sampled_from(PARTS), max_size=10),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=60),
)
def test_cutting_changes_nothing(tool_format: ToolFormat, parts: list[str], cuts: list[int]) -> None:
    text, pieces, at = "".join(parts), [], 0
    for size in cuts:
        pieces.append(text[at : at + size])
        at += size
    assert fold(events_of(tool_format, [*pieces, text[at:]])) == fold(events_of(tool_format, [text]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(st.text(max_size=5), JSON, max_size=3)), max_size=3
    ),
    text=st.text(alphabet="ab <\n", max_size=12),
)
def test_what_a_hermes_model_writes_is_read_back(calls: list[tuple[str, dict]], text: str) -> None:
    written = "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"
        for name, arguments in calls
    )
    shown, found = fold(events_of(HERMES, list(text + written)))
    assert shown == (text.rstrip() if calls else text)
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


def test_a_long_call_is_read_in_linear_time() -> None:
    stream = ToolCallStream(HERMES, NAMES)
    started_s = time.process_time()
    stream.push('<tool_call>{"name": "f", "arguments": {"a": "')
    for _ in range(20_000):
        stream.push("xy z")
    assert time.process_time() - started_s < 2
