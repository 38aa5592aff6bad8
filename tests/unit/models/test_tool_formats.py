"""Formats are told from templates; grammars let through what the format wants, and nothing else."""

import json
import re

import jsonschema
import numpy as np
import pytest

from speciate.core.engine import SequenceSpec
from speciate.core.errors import InvalidRequest
from speciate.core.request import Grammar, SamplingParams
from speciate.engines.grammar import GrammarCompiler
from speciate.engines.sampling import Sampler
from speciate.models.tokenizer import Tokenizer
from speciate.models.tool_formats import (
    HERMES,
    LLAMA3,
    MISTRAL,
    Tool,
    ToolChoice,
    ToolFormat,
    calls_or_answer_grammar,
    find_tool_format,
    tool_grammar,
)
from speciate.models.tool_stream import CallArguments, CallStarted, ToolCallStream

WEATHER = Tool(
    "get_weather",
    "The weather somewhere",
    {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city"],
        "$defs": {"city": {"enum": ["Paris", "Rome"]}},
    },
    is_strict=True,
)
NOW = Tool("now")
TOOLS = (WEATHER, NOW)
ANY, NAMED, AUTO = ToolChoice("required"), ToolChoice("required", "now"), ToolChoice("auto")
END = 0

ONE = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
TWO = ONE + '\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def verdict(grammar: Grammar | None, tokenizer: Tokenizer, text: str) -> str:
    """`ends`: may be written and is complete; `goes on`: may be written; `no`."""
    assert grammar is not None
    matcher = GrammarCompiler(tokenizer.json_text, tokenizer.vocab_size, (END,)).matcher(grammar)
    for token_id in tokenizer.encode(text, add_special=False):
        if not matcher.allowed()[token_id]:
            return "no"
        assert matcher.accept(token_id)
    return "ends" if matcher.allowed()[END] else "goes on"


HERMES_VERDICTS = [
    (ANY, True, ONE, "ends"),
    (ANY, True, TWO, "ends"),
    (ANY, False, ONE, "ends"),
    (ANY, False, TWO, "no"),
    (ANY, True, "Hello", "no"),
    (ANY, True, ONE.replace("Paris", "Oslo"), "no"),
    (ANY, True, ONE.replace("3", "12"), "no"),
    (ANY, True, ONE.replace('"days"', '"other"'), "no"),
    (ANY, True, ONE.replace("get_weather", "nothing"), "no"),
    (NAMED, True, ONE, "no"),
    (NAMED, True, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', "ends"),
    (NAMED, True, '<tool_call>\n{"name": "now", "arguments": {"a": 1', "no"),
    (AUTO, True, "Hello, a < b { } ", "ends"),
    (AUTO, True, "", "ends"),
    (AUTO, True, "Hello\n" + TWO, "ends"),
    (AUTO, True, "Hello\n<tool_call>\n", "goes on"),
    (AUTO, True, "<think>\nwell\n</think>\n" + ONE, "ends"),
    (AUTO, True, "Hello\n<tool_call>\n{}", "no"),
    (AUTO, True, "Hello\n" + ONE.replace("Paris", "Oslo"), "no"),
    (AUTO, False, TWO, "no"),
]


@pytest.mark.parametrize(("choice", "parallel", "text", "wanted"), HERMES_VERDICTS)
def test_hermes_with_marks_as_tokens_and_as_text(
    byte_level: Tokenizer, plain_byte_level: Tokenizer, choice: ToolChoice, parallel: bool, text: str, wanted: str
) -> None:
    for tokenizer in (byte_level, plain_byte_level):
        grammar = tool_grammar(HERMES, TOOLS, choice, parallel, tokenizer)
        assert verdict(grammar, tokenizer, text) == wanted


LLAMA_ONE = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
MISTRAL_ONE = '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Rome"}}]'
MISTRAL_TWO = MISTRAL_ONE[:-1] + ', {"name": "now", "arguments": {}}]'
OTHER_VERDICTS = [
    (LLAMA3, ANY, True, LLAMA_ONE, "ends"),
    (LLAMA3, ANY, True, LLAMA_ONE + "; " + LLAMA_ONE, "ends"),
    (LLAMA3, ANY, False, LLAMA_ONE + "; ", "no"),
    (LLAMA3, ANY, True, "Hello", "no"),
    (LLAMA3, AUTO, True, "Hello {}", "ends"),
    (LLAMA3, AUTO, True, LLAMA_ONE, "ends"),
    (LLAMA3, AUTO, True, '{"a"', "no"),
    (MISTRAL, ANY, True, MISTRAL_ONE, "ends"),
    (MISTRAL, ANY, True, MISTRAL_TWO, "ends"),
    (MISTRAL, ANY, False, MISTRAL_TWO, "no"),
    (MISTRAL, NAMED, True, MISTRAL_ONE, "no"),
    (MISTRAL, AUTO, True, "Hello [", "ends"),
    (MISTRAL, AUTO, True, "Hello " + MISTRAL_ONE, "ends"),
    (MISTRAL, AUTO, True, "[TOOL_CALLS]x", "no"),
]


@pytest.mark.parametrize(("tool_format", "choice", "parallel", "text", "wanted"), OTHER_VERDICTS)
def test_llama_and_mistral(
    byte_level: Tokenizer, tool_format: ToolFormat, choice: ToolChoice, parallel: bool, text: str, wanted: str
) -> None:
    assert verdict(tool_grammar(tool_format, TOOLS, choice, parallel, byte_level), byte_level, text) == wanted


@pytest.mark.parametrize("tool_format", [HERMES, LLAMA3, MISTRAL])
@pytest.mark.parametrize("seed", range(4))
def test_random_logits_write_calls_that_are_read_back(
    byte_level: Tokenizer, tool_format: ToolFormat, seed: int
) -> None:
    """From grammar through sampler and detokeniser to the parser: names that exist, arguments that obey."""
    grammar = tool_grammar(tool_format, TOOLS, ANY, True, byte_level)
    vocab_size = byte_level.vocab_size
    sampler = Sampler(vocab_size, (END,), byte_level.json_text)
    sampler.add(SequenceSpec(1, (1,), SamplingParams(seed=seed), grammar=grammar, stop_token_ids=(END,)))
    text, calls = byte_level.stream(skip_special=False), ToolCallStream(tool_format, frozenset({"get_weather", "now"}))
    random, events = np.random.default_rng(seed), []
    for _ in range(400):
        logits = random.normal(size=(1, vocab_size)).astype(np.float32)
        logits[0, END] += 4
        (sample,) = sampler.sample([1], logits).samples
        if sample.token_id == END:
            break
        events += calls.push(text.push(sample.token_id).text)
        if sample.ends_grammar:
            break
    events += calls.push(text.flush())
    events += calls.flush()
    names = [event.name for event in events if isinstance(event, CallStarted)]
    assert names
    for index, name in enumerate(names):
        arguments = "".join(e.text for e in events if isinstance(e, CallArguments) and e.index == index)
        jsonschema.validate(
            json.loads(arguments), {"get_weather": WEATHER.parameters, "now": {"maxProperties": 0}}[name]
        )


def test_choices_that_constrain_nothing(byte_level: Tokenizer) -> None:
    assert tool_grammar(HERMES, TOOLS, ToolChoice("none"), True, byte_level) is None
    assert tool_grammar(HERMES, (NOW,), AUTO, True, byte_level) is None
    assert tool_grammar(HERMES, (), AUTO, True, byte_level) is None


def test_choices_that_cannot_be_met_say_what_exists(byte_level: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="'nope'; the tools are get_weather, now"):
        tool_grammar(HERMES, TOOLS, ToolChoice("required", "nope"), True, byte_level)
    with pytest.raises(InvalidRequest, match="no tools"):
        tool_grammar(HERMES, (), ANY, True, byte_level)


@pytest.mark.parametrize("name", ["a-b.c", 'quo"te', "ünï", "back\\slash"])
def test_odd_names(byte_level: Tokenizer, name: str) -> None:
    grammar = tool_grammar(HERMES, (Tool(name),), ANY, True, byte_level)
    call = json.dumps({"name": name, "arguments": {}}, ensure_ascii=False)
    assert verdict(grammar, byte_level, f"<tool_call>\n{call}\n</tool_call>") == "ends"


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("... <tool_call>\n{{ tool_call.arguments | tojson }} ...", HERMES),
        ("... <tool_call>\n<function={{ name }}> ...", None),
        ("... [TOOL_CALLS] ...", MISTRAL),
        ("... Environment: ipython ...", LLAMA3),
        ("{{ messages }}", None),
    ],
)
def test_a_template_tells_its_format(template: str, wanted: ToolFormat | None) -> None:
    assert find_tool_format(template) is wanted


def test_special_marks_need_special_text(byte_level: Tokenizer) -> None:
    assert MISTRAL.hides_marks(byte_level)
    assert not HERMES.hides_marks(byte_level)


def test_tools_for_templates_leave_out_what_is_not_given() -> None:
    assert NOW.for_template() == {"type": "function", "function": {"name": "now"}}
    assert re.match("The", WEATHER.for_template()["function"]["description"])


ANSWERS = [
    (Grammar("json_object"), '{"a": 1}', "plain"),
    (Grammar("json_schema", '{"type": "object", "required": ["a"]}'), '{"a": 1}', "{}"),
    (Grammar("regex", "yes/no|maybe"), "yes/no", "perhaps"),
    (Grammar("lark", 'start: X | "again " start // start: "x"\nX: "start"'), "again again start", "again"),
]


@pytest.mark.parametrize(("answer", "good", "bad"), ANSWERS)
def test_calls_or_a_bound_answer(byte_level: Tokenizer, answer: Grammar, good: str, bad: str) -> None:
    grammar = calls_or_answer_grammar(HERMES, TOOLS, answer, True, byte_level)
    assert verdict(grammar, byte_level, good) == verdict(grammar, byte_level, TWO) == "ends"
    assert verdict(grammar, byte_level, bad) != "ends"
