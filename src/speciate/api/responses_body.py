"""The body of /v1/responses and what it means, in words that no dialect owns."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from speciate.api.body import decode_body
from speciate.api.formats import TextFormat, grammar_of_text_format
from speciate.api.responses_items import Input, Item, conversation
from speciate.api.sampling import Name, NumTop, Positive, SamplingFields
from speciate.api.wish import TurnWish, check_tool_choice, template_options
from speciate.core.errors import InvalidRequest
from speciate.models.tool_formats import Tool as ModelTool
from speciate.models.tool_formats import ToolChoice

Window = Literal["soonest", "2h", "8h"]
WINDOW_S: dict[str, float] = {"2h": 2 * 3600.0, "8h": 8 * 3600.0}


class Tool(Struct):
    """Only functions can be called here; hosted tools run on OpenAI's servers."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Choice(Struct):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[Tool] | None = None


class TextOptions(Struct):
    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(Struct):
    effort: str | None = None
    summary: str | None = None


class BackgroundOptions(Struct):
    completion_window: Window = "soonest"


class ResponsesBody(SamplingFields, kw_only=True):
    """Fields that this server honours; all others are ignored, as OpenAI does."""

    model: Name
    input: Input
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    max_output_tokens: Positive | None = None
    max_tool_calls: Positive | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    reasoning: ReasoningOptions | None = None
    store: bool | None = None
    stream: bool | None = None
    background: bool | None = None
    background_options: BackgroundOptions | None = None
    text: TextOptions | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | None = None
    top_logprobs: NumTop | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(ResponsesBody)


def decode_responses(body: bytes) -> ResponsesBody:
    """Raises InvalidRequest for what needs state or tools that are not held here."""
    decoded = decode_body(_DECODER, body)
    if decoded.conversation is not None:
        raise InvalidRequest("Conversations are not held here; use previous_response_id.", param="conversation")
    if decoded.prompt is not None:
        raise InvalidRequest("Stored prompts are not held here; send the text as instructions.", param="prompt")
    if decoded.background and decoded.store is False:
        raise InvalidRequest("A background response must be stored to be retrieved.", param="store")
    if decoded.background_options is not None and not decoded.background:
        raise InvalidRequest("background_options needs background to be true.", param="background_options")
    return decoded


def responses_wish(body: ResponsesBody, items: list[Item]) -> TurnWish:
    """`items` are the whole conversation, the new input last. Raises InvalidRequest, naming the field."""
    tools = tuple(_tool(tool, i) for i, tool in enumerate(body.tools or ()))
    tools, choice = _chosen(body.tool_choice, tools)
    return TurnWish(
        model=body.model,
        messages=conversation(items, body.instructions),
        fields=body,
        max_tokens=body.max_output_tokens,
        max_tokens_param="max_output_tokens",
        is_upper_bound=True,
        num_logprobs=_num_logprobs(body),
        tools=tools,
        tool_choice=check_tool_choice(choice, tools),
        may_call_in_parallel=body.parallel_tool_calls is not False,
        grammar=grammar_of_text_format(body.text.format if body.text else None),
        template_options=template_options(body.chat_template_kwargs, body.reasoning.effort if body.reasoning else None),
    )


def _num_logprobs(body: ResponsesBody) -> int | None:
    if "message.output_text.logprobs" in (body.include or ()):
        return body.top_logprobs or 0
    return body.top_logprobs or None


def _tool(tool: Tool, place: int) -> ModelTool:
    if tool.type != "function" or not tool.name:
        raise InvalidRequest(
            f"tools[{place}] is of type {tool.type!r}; this server calls functions that have a name.",
            param=f"tools[{place}]",
        )
    return ModelTool(tool.name, tool.description, tool.parameters, bool(tool.strict))


def _chosen(choice: str | Choice | None, tools: tuple[ModelTool, ...]) -> tuple[tuple[ModelTool, ...], ToolChoice]:
    """The tools that are left, and how they may be used."""
    match choice:
        case None:
            return tools, ToolChoice("auto" if tools else "none")
        case "none" | "auto" | "required" as mode:
            return tools, ToolChoice(mode)
        case Choice(type="function"):
            return tools, ToolChoice("required", choice.name or "")
        case Choice(type="allowed_tools"):
            allowed = {tool.name for tool in choice.tools or ()}
            return tuple(t for t in tools if t.name in allowed), ToolChoice(choice.mode or "auto")
        case _:
            raise InvalidRequest("tool_choice can name a function or allowed tools.", param="tool_choice")
