"""Tasks that call tools: the right name, the right arguments with their types, and the answer once the result is in."""

import json
from dataclasses import dataclass
from typing import Any

from speciate.models.pocket.small_tasks import small_talk_turn
from speciate.models.pocket.task import Message, Task, ToolSignature, assistant, user
from speciate.models.pocket.tool_catalogue import DESCRIPTIONS, FAMILIES, NOUNS, PARAMETERS, VERBS, Family
from speciate.models.pocket.words import WordSource

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Call:
    """A tool and the request that asks for it."""

    signature: ToolSignature
    request: str
    arguments: dict[str, Value]

    @property
    def name(self) -> str:
        return str(self.signature["function"]["name"])


def tool_task(words: WordSource, num_turns: int = 1) -> Task:
    """The task of calling one of one to three tools, after `num_turns - 1` calls with their results and answers."""
    calls = [_draw_call(words) for _ in range(words.rng.choice((1, 1, 2, 3)))]
    calls = list({call.name: call for call in calls}.values())
    messages: list[Message] = []
    for _ in range(num_turns - 1):
        messages += _finished_turn(words.rng.choice(calls), words)
    asked = words.rng.choice(calls)
    tools = tuple(call.signature for call in calls)
    if words.rng.random() < 0.06:
        turn = small_talk_turn(words)
        return Task("small_talk", (*messages, user(turn.question)), turn.answer, tools)
    return Task("tool_call", (*messages, user(asked.request)), call_text(asked.name, asked.arguments), tools)


def tool_result_task(words: WordSource) -> Task:
    """The task of answering in words once a tool has returned."""
    call = _draw_call(words)
    *messages, last = _finished_turn(call, words)
    return Task("tool_result", tuple(messages), str(last["content"]), (call.signature,))


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A tool call as the model writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def _finished_turn(call: Call, words: WordSource) -> list[Message]:
    content, answer = _draw_result(words)
    function = {"name": call.name, "arguments": call.arguments}
    asked = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    return [user(call.request), asked, {"role": "tool", "content": content}, assistant(answer)]


def _draw_result(words: WordSource) -> tuple[str, str]:
    value: Value = words.rng.choice((_any_number, _any_string))(words)
    share = words.rng.random()
    if share < 0.15:
        return words.rng.choice(("ok", "done", '{"status": "ok"}')), "Done."
    if share < 0.6:
        return str(value), f"The result is {value}."
    key = words.rng.choice(("result", "value", words.rng.choice(NOUNS), words.invented_word()))
    return json.dumps({key: value}), f"The {key} is {value}."


def _draw_call(words: WordSource) -> Call:
    share = words.rng.random()
    if share < 0.3:
        return _family_call(words.rng.choice(FAMILIES), words)
    if share < 0.55:
        return _verb_noun_call(words)
    return _named_call(words)


def _family_call(family: Family, words: WordSource) -> Call:
    arguments = {name: _draw_value(kind, words) for name, kind in family.parameters.items()}
    request = words.rng.choice(family.requests).format(**arguments)
    return Call(_signature(family.name, family.description, family.parameters, words), request, arguments)


def _verb_noun_call(words: WordSource) -> Call:
    verb, noun = _any_name(VERBS, words), _any_name(NOUNS, words)
    parameters = {words.rng.choice(("name", "id", noun, "device", "target")): "string"}
    if words.rng.random() < 0.6:
        parameters[words.rng.choice(("level", "value", "amount", "count"))] = "integer"
    arguments = {name: _draw_value(kind, words) for name, kind in parameters.items()}
    joiner = words.rng.choice((" to ", " by ", " with "))
    request = f"{verb.capitalize()} the {noun} " + joiner.join(str(value) for value in arguments.values())
    signature = _signature(f"{verb}_{noun}", words.rng.choice(DESCRIPTIONS), parameters, words)
    return Call(signature, request + words.rng.choice(("", ".", ". Use the tool.")), arguments)


def _named_call(words: WordSource) -> Call:
    name = _draw_name(words)
    names = [_any_name(PARAMETERS, words) for _ in range(words.rng.choice((0, 1, 1, 1, 2, 2)))]
    parameters = {parameter: words.rng.choice(("integer", "integer", "string", "number")) for parameter in names}
    arguments = {parameter: _draw_value(kind, words) for parameter, kind in parameters.items()}
    signature = _signature(name, words.rng.choice(DESCRIPTIONS), parameters, words)
    return Call(signature, _named_request(name, arguments, words), arguments)


def _draw_name(words: WordSource) -> str:
    first = words.rng.choice((words.invented_word(), words.rng.choice(VERBS), "magic"))
    return f"{first}_{words.rng.choice(('function', 'tool', words.rng.choice(NOUNS), words.invented_word()))}"


def _any_name(known: list[str], words: WordSource) -> str:
    return words.rng.choice(known) if words.rng.random() < 0.65 else words.invented_word()


def _named_request(name: str, arguments: dict[str, Value], words: WordSource) -> str:
    share = words.rng.random()
    if share < 0.6 or not arguments:
        listed = ", ".join(
            json.dumps(value) if words.rng.random() < 0.3 else str(value) for value in arguments.values()
        )
        pattern = words.rng.choice(
            (
                "What is the value of {name}({listed})? Use the tool.",
                "What is the value of {name}({listed})? You must use the tool.",
                "Call {name}({listed}).",
                "Run {name}({listed})",
                "What is {name}({listed})?",
            )
        )
        return pattern.format(name=name, listed=listed)
    listed = " and ".join(f"{parameter} {value}" for parameter, value in arguments.items())
    return words.rng.choice(("Use {name} with {listed}.", "Call {name} with {listed}.")).format(
        name=name, listed=listed
    )


def _draw_value(kind: str, words: WordSource) -> Value:
    if kind == "integer":
        return words.rng.randrange(10 ** words.rng.randint(1, 4))
    if kind == "number":
        return words.rng.randrange(1000) / 10
    return _any_string(words)


def _any_number(words: WordSource) -> Value:
    return _draw_value(words.rng.choice(("integer", "number")), words)


def _any_string(words: WordSource) -> str:
    draw = words.rng.choice((words.invented_word, words.city, words.first_name, words.item, words.person))
    return draw()


def _signature(name: str, description: str, parameters: dict[str, str], words: WordSource) -> ToolSignature:
    properties: dict[str, Any] = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    if words.rng.random() < 0.15:
        for parameter, entry in properties.items():
            entry["description"] = f"The {parameter}."
    schema: list[tuple[str, Any]] = [("type", "object"), ("properties", properties), ("required", list(parameters))]
    if words.rng.random() < 0.4:
        words.rng.shuffle(schema)
    function: dict[str, Any] = {"name": name}
    if words.rng.random() < 0.8:
        function["description"] = description
    function["parameters"] = dict(schema)
    return {"type": "function", "function": function}
