"""The shipped pocket model's folder goes through the same readers, streams and grammars as any other."""

import json

import pytest

from speciate.core.request import Grammar
from speciate.engines.grammar import GrammarCompiler
from speciate.models.catalog import read_model_folder
from speciate.models.pocket import TEXT_DIR
from speciate.models.text_model import TextModel, load_text_model
from speciate.models.tool_formats import HERMES, Tool, ToolChoice, tool_grammar
from speciate.models.tool_stream import CallArguments, CallStarted, ToolCallStream

WEATHER = Tool(
    "get_weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    is_strict=True,
)
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'


@pytest.fixture(scope="module")
def pocket() -> TextModel:
    return load_text_model(read_model_folder(TEXT_DIR))


def accepts(pocket: TextModel, grammar: Grammar | None, text: str) -> bool:
    assert grammar is not None
    folder = read_model_folder(TEXT_DIR)
    compiler = GrammarCompiler(pocket.tokenizer.json_text, folder.vocab_size, folder.eos_token_ids)
    matcher = compiler.matcher(grammar)
    for token_id in pocket.tokenizer.encode(text, add_special=False):
        if not matcher.allowed()[token_id] or not matcher.accept(token_id):
            return False
    return bool(matcher.allowed()[folder.eos_token_ids[0]])


def test_its_folder_is_complete() -> None:
    folder = read_model_folder(TEXT_DIR)
    assert folder.kind == "decoder"
    assert folder.vocab_size == load_text_model(folder).tokenizer.vocab_size
    assert len(folder.eos_token_ids) == 1


def test_its_template_teaches_hermes_calls(pocket: TextModel) -> None:
    assert pocket.tool_format is HERMES
    assert pocket.template.takes_tools
    prompt = pocket.template.render([{"role": "user", "content": "Hi"}], [WEATHER.for_template()])
    assert json.dumps(WEATHER.for_template()) in prompt
    assert prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("mode", ["required", "auto"])
def test_its_calls_obey_the_grammar_and_are_read_back(pocket: TextModel, mode: str) -> None:
    grammar = tool_grammar(HERMES, (WEATHER,), ToolChoice(mode), True, pocket.tokenizer)
    assert accepts(pocket, grammar, CALL)
    assert not accepts(pocket, grammar, CALL.replace("city", "town"))
    assert accepts(pocket, grammar, "Hello.") is (mode == "auto")
    ids = pocket.tokenizer.encode(CALL, add_special=False)
    stream, calls = pocket.tokenizer.stream(), ToolCallStream(HERMES, frozenset({"get_weather"}))
    events = [event for token_id in ids for event in calls.push(stream.push(token_id).text)]
    assert CallStarted(0, "get_weather") in events
    assert "".join(e.text for e in events if isinstance(e, CallArguments)) == '{"city": "Bern"}'


def test_json_as_it_was_trained_obeys_a_schema(pocket: TextModel) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "rows": {"type": "array", "items": {"type": "integer"}}},
        "required": ["name", "rows"],
        "additionalProperties": False,
    }
    text = json.dumps({"name": "Ada Ünal", "rows": [1, 22, 333]}, ensure_ascii=False)
    assert accepts(pocket, Grammar("json_schema", json.dumps(schema)), text)
