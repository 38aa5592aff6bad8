"""What a caller of any chat-like dialect wants of one turn. The dialects make it; `turn.py` carries it out."""

from typing import Any

import msgspec
from msgspec import Struct

from speciate.api.sampling import SamplingFields
from speciate.core.errors import InvalidRequest
from speciate.core.request import Grammar
from speciate.models.tool_formats import Tool, ToolChoice

Message = dict[str, Any]
"""As chat templates take it: role, content as text, tool calls with their arguments as objects."""


class TurnWish(Struct, frozen=True, kw_only=True):
    """One turn of a conversation, wanted `num_choices` times."""

    model: str
    messages: list[Message]
    fields: SamplingFields
    max_tokens: int | None
    max_tokens_param: str
    """The field to name when it does not fit."""
    is_upper_bound: bool = False
    """Whether max_tokens is cut to what fits, or refused when it does not."""
    num_choices: int = 1
    num_logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice("none")
    may_call_in_parallel: bool = True
    grammar: Grammar | None = None
    template_options: dict[str, Any] = {}
    continues_last: bool = False
    """The last message is the beginning of the answer."""


def check_tool_choice(choice: ToolChoice, tools: tuple[Tool, ...]) -> ToolChoice:
    """Raises InvalidRequest for a choice that the tools cannot satisfy."""
    if choice.mode == "required" and not tools:
        raise InvalidRequest("tool_choice demands a tool call, but no tools are given.", param="tool_choice")
    names = [tool.name for tool in tools]
    if choice.name is not None and choice.name not in names:
        raise InvalidRequest(
            f"tool_choice names {choice.name!r}, which is not among the tools: {', '.join(names)}.", param="tool_choice"
        )
    return choice


def template_options(given: dict[str, Any] | None, effort: str | None) -> dict[str, Any]:
    """Raises InvalidRequest for names that are the conversation's own."""
    options = dict(given or {})
    for name in ("messages", "tools", "self"):
        if name in options:
            raise InvalidRequest(f"chat_template_kwargs cannot set {name!r}.", param="chat_template_kwargs")
    if effort is not None:
        options.setdefault("reasoning_effort", effort)
        if effort == "none":
            options.setdefault("enable_thinking", False)
    return options


def call_arguments(text: str, param: str) -> dict[str, Any]:
    """Arguments of an earlier call as an object. Raises InvalidRequest if they are not one."""
    if not text.strip():
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as e:
        raise InvalidRequest(f"The arguments of a tool call are not a JSON object: {e}.", param=param) from e
