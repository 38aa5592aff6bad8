"""How model families write tool calls, and the grammar that makes them do it. Knows no API."""

import json
from typing import Any, Literal

from msgspec import Struct

from speciate.core.errors import InvalidRequest
from speciate.core.request import Grammar
from speciate.models.lark import as_rules
from speciate.models.tokenizer import Tokenizer


class Tool(Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments object; None: no arguments."""
    is_strict: bool = False
    """Whether its calls must obey the schema even when the model may also answer in text."""

    def for_template(self) -> dict[str, Any]:
        """As chat templates read tools."""
        given = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": {key: value for key, value in given.items() if value is not None}}


class ToolChoice(Struct, frozen=True):
    """Whether the model may or must call, and which function if only one will do."""

    mode: Literal["none", "auto", "required"]
    name: str | None = None


class ToolFormat(Struct, frozen=True):
    """One family's way to write calls: `open` call `close` between `open` call `close`, or `open` [call, call]."""

    family: Literal["hermes", "llama3", "mistral"]
    open: str
    """The mark before a call, or before the list of them; `is_open_written` says whether models always write it."""
    close: str
    padding: str
    """Between the marks and the call."""
    between: str
    """Between two calls."""
    arguments_key: str
    is_open_written: bool = True
    is_list: bool = False
    bare_start: str = ""
    """Text that begins a call without a mark, at the start of an answer."""
    separators: str = ""
    """What may stand between two calls beside whitespace."""

    @property
    def arguments_keys(self) -> tuple[str, ...]:
        """Models mix the two up; both are read."""
        return ("arguments", "parameters")

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.open, self.close) if mark)

    def hides_marks(self, tokenizer: Tokenizer) -> bool:
        """Whether a mark is a special token: the text must then be made with `skip_special_tokens=False`."""
        return any(tokenizer.token_id(mark) in tokenizer.special_ids for mark in self.marks)


HERMES = ToolFormat("hermes", "<tool_call>", "</tool_call>", "\n", "\n", "arguments")
"""Hermes 2, Qwen2.5, Qwen3."""
LLAMA3 = ToolFormat(
    "llama3", "<|python_tag|>", "", "", "; ", "parameters", is_open_written=False, bare_start="{", separators=";"
)
"""Llama 3.1 to 3.3, JSON calls."""
MISTRAL = ToolFormat("mistral", "[TOOL_CALLS]", "", "", ", ", "arguments", is_list=True, bare_start="[")
"""Mistral up to tokenizer version 7."""


def find_tool_format(chat_template: str) -> ToolFormat | None:
    """The format that a chat template teaches; None when it shows no tools or a format we do not read."""
    if "[TOOL_CALLS]" in chat_template:
        return MISTRAL
    if "<tool_call>" in chat_template:
        return None if "<function=" in chat_template else HERMES
    is_llama = "<|python_tag|>" in chat_template or "Environment: ipython" in chat_template
    return LLAMA3 if is_llama else None


def tool_grammar(
    tool_format: ToolFormat, tools: tuple[Tool, ...], choice: ToolChoice, parallel: bool, tokenizer: Tokenizer
) -> Grammar | None:
    """The constraint that a choice of tools puts on the answer; None when there is none.

    `required` demands calls whose arguments obey their schemas, of the named tool where one is named. `auto` leaves
    text free, and constrains calls when any tool is strict. Raises InvalidRequest for a choice that cannot be met.
    """
    chosen = _chosen(tools, choice)
    if choice.mode == "none" or (choice.mode == "auto" and not any(tool.is_strict for tool in tools)):
        return None
    writer = _GrammarWriter(tool_format, tokenizer)
    rules = writer.calls(chosen, parallel and choice.name is None)
    start = writer.free_start() if choice.mode == "auto" else "start: calls"
    return Grammar("lark", "\n".join((start, *rules)) + "\n")


def calls_or_answer_grammar(
    tool_format: ToolFormat, tools: tuple[Tool, ...], answer: Grammar, parallel: bool, tokenizer: Tokenizer
) -> Grammar:
    """Either calls whose arguments obey their schemas, or an answer that obeys `answer`."""
    rules = _GrammarWriter(tool_format, tokenizer).calls(tools, parallel)
    source = "\n".join(("start: calls | answer", as_rules(answer, "answer"), *rules)) + "\n"
    return Grammar("lark", source, asked_as=answer.kind)


def _chosen(tools: tuple[Tool, ...], choice: ToolChoice) -> tuple[Tool, ...]:
    if choice.mode == "required" and not tools:
        raise InvalidRequest("tool_choice demands a call, but no tools are given", param="tool_choice")
    if choice.name is None:
        return tools
    named = tuple(tool for tool in tools if tool.name == choice.name)
    if not named:
        names = ", ".join(tool.name for tool in tools)
        raise InvalidRequest(f"tool_choice names {choice.name!r}; the tools are {names}", param="tool_choice")
    return named


class _GrammarWriter:
    """Writes llguidance's Lark: special tokens by id, as `<[7]>`; `%json` for arguments, each schema in a rule of its
    own so that its `$ref`s find their root."""

    def __init__(self, tool_format: ToolFormat, tokenizer: Tokenizer) -> None:
        self._format = tool_format
        self._tokenizer = tokenizer

    def free_start(self) -> str:
        """Any text, and calls once the opening mark is written (or, without marks, at a `{` in the first place)."""
        if not self._format.is_open_written:
            return "start: TEXT | calls\nTEXT: /[^{](.|\\n)*/\n"
        if self._tokenizer.added_id(self._format.open) is None:
            return f"start: TEXT | opened_calls\nTEXT: /(.|\\n)*/\nopening[lazy]: TEXT {_quote(self._format.open)}\n"
        return f"start: {self._free_tokens()}* calls?\n"

    def calls(self, tools: tuple[Tool, ...], parallel: bool) -> list[str]:
        """Rules `calls` and `opened_calls` (after the first opening mark) and all below them."""
        form = self._format
        opening = self._mark(form.open) if form.is_open_written else ""
        body = (
            "body" if form.is_list else _join(_text(form.padding), "body", _text(form.padding), self._mark(form.close))
        )
        if form.is_list:
            more = f"({_quote(form.between)} body)*" if parallel else ""
            rest = _join('"["', body, more, '"]"')
        else:
            more = f"({_join(_text(form.between), opening, body)})*" if parallel else ""
            rest = _join(body, more)
        rules = [f"calls: {_join(opening, 'opened')}", f"opened: {rest}"]
        rules += (
            ["opened_calls: opening opened"]
            if self._tokenizer.added_id(form.open) is None and form.is_open_written
            else []
        )
        rules.append("body: " + " | ".join(f"call_{place}" for place in range(len(tools))))
        for place, tool in enumerate(tools):
            head = f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "{form.arguments_key}": '
            rules.append(f'call_{place}: {_quote(head)} arguments_{place} "}}"')
            rules.append(f"arguments_{place}: %json {json.dumps(_arguments_schema(tool), ensure_ascii=False)}")
        return rules

    def _mark(self, mark: str) -> str:
        token_id = self._tokenizer.added_id(mark)
        return _text(mark) if token_id is None else f"<[{token_id}]>"

    def _free_tokens(self) -> str:
        """Every token but special ones and the marks. Other added tokens, as `<think>`, are text to their models."""
        marks = (self._tokenizer.added_id(mark) for mark in self._format.marks)
        barred = self._tokenizer.special_ids.union(token_id for token_id in marks if token_id is not None)
        return f"<[^{','.join(map(str, sorted(barred)))}]>"


def _arguments_schema(tool: Tool) -> dict[str, Any]:
    """The tool's schema as an object. Properties that it does not name are left out where it does not speak of them:
    the schema allows them, but no caller expects them."""
    schema = dict(tool.parameters or {"properties": {}})
    if not {"type", "$ref", "anyOf", "oneOf", "allOf"} & schema.keys():
        schema["type"] = "object"
    if "properties" in schema and not {"$ref", "anyOf", "oneOf", "allOf", "patternProperties"} & schema.keys():
        schema.setdefault("additionalProperties", False)
    return schema


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _text(text: str) -> str:
    return _quote(text) if text else ""


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
