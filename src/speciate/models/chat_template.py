"""Chat templates: from messages to the prompt text that a model was trained on, as transformers renders them.

A template is code from whoever made the model, so it runs in Jinja's immutable sandbox and its output is bounded.
"""

import contextlib
import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import meta, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from speciate.core.errors import InvalidRequest, LoadFailed

Message = Mapping[str, Any]
Tool = Mapping[str, Any]

MAX_PROMPT_CHARS = 32 * 1024 * 1024
"""A template that writes more is stopped: no context holds it, and a loop in a template must not fill the memory."""


class ChatTemplate:
    """One compiled template with its model's special tokens. Safe to share between threads."""

    def __init__(self, source: str, special_tokens: tuple[tuple[str, str], ...] = ()) -> None:
        """Raises LoadFailed with the line of a syntax error."""
        environment = _make_environment()
        try:
            self._template = environment.from_string(source)
            self._template.globals = dict(self._template.globals)  # read at every rendering; as a ChainMap in Python
            self._variables = meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise LoadFailed(f"the chat template has an error in line {error.lineno}: {error.message}") from error
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._takes_parts = self._probe_parts()

    @property
    def takes_tools(self) -> bool:
        """Whether the template shows tools to the model at all."""
        return "tools" in self._variables

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, **options: Any) -> str:
        """The prompt. `tools` are OpenAI's `{"type": "function", "function": {...}}`; options go to the template
        (`add_generation_prompt` is True unless given, `enable_thinking`, ...).

        Raises InvalidRequest with the template's own words when it refuses the conversation.
        """
        options = {"add_generation_prompt": True, **options}
        return self._run([self._prepare(message) for message in messages], tools, options)

    def _run(self, messages: list[dict[str, Any]], tools: Sequence[Tool] | None, options: dict[str, Any]) -> str:
        variables = {**self._special_tokens, "documents": None, **options, "messages": messages, "tools": tools or None}
        try:
            return _join_bounded(self._template.generate(variables))
        except jinja2.TemplateError as error:
            raise InvalidRequest(f"The chat template refuses these messages: {error}", param="messages") from error
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
            raise InvalidRequest(
                f"The chat template cannot render these messages ({type(error).__name__}: {error})", param="messages"
            ) from error

    def _prepare(self, message: Message) -> dict[str, Any]:
        """What templates expect and OpenAI's wire does not say: arguments as objects, text as text, no null content."""
        prepared = {**message, "content": self._content(message.get("content"))}
        if message.get("tool_calls"):
            prepared["tool_calls"] = [_with_parsed_arguments(call) for call in message["tool_calls"]]
        if message.get("role") == "developer" and "developer" not in self.source:
            prepared["role"] = "system"
        return prepared

    def _content(self, content: Any) -> Any:
        if content is None:
            return ""
        if isinstance(content, str) or self._takes_parts:
            return content
        return "\n".join(_part_text(part) for part in content)

    def _probe_parts(self) -> bool:
        """Whether the template reads content given as parts, found by giving it one."""
        probe: dict[str, Any] = {"role": "user", "content": [{"type": "text", "text": "probe"}]}
        try:
            text = self._run([probe], None, {"add_generation_prompt": True})
        except InvalidRequest:
            return False
        return "probe" in text and "{" not in text.partition("probe")[0].rpartition("\n")[2]


def _part_text(part: Any) -> str:
    """Raises InvalidRequest for parts that are not text: no image may be dropped in silence."""
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if isinstance(text, str):
        return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise InvalidRequest(f"This model reads text only, but a message has a part of type {kind!r}", param="messages")


def _with_parsed_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with its arguments as an object; text that is no JSON stays as it is."""
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        with contextlib.suppress(ValueError, RecursionError):
            function["arguments"] = json.loads(function["arguments"] or "{}")
    return {**call, "function": function}


def _join_bounded(pieces: Any) -> str:
    parts: list[str] = []
    size = 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > MAX_PROMPT_CHARS:
            raise InvalidRequest(f"The prompt is longer than {MAX_PROMPT_CHARS} characters", param="messages")
    return "".join(parts)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}` marks what to train on; here its body is written as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Callable[[], str]) -> str:
        return caller()


class _Environment(ImmutableSandboxedEnvironment):
    """Messages are dicts, and `message.role` asks for an attribute first: the same answer without the failed look."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICTS:
            return obj[attribute]
        return super().getattr(obj, attribute)


_OF_DICTS = frozenset(dir(dict))


def _make_environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    """Templates that tell the model today's date mean the server's."""
    return datetime.datetime.now().strftime(form)
