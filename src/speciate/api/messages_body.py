"""The body of Anthropic's /v1/messages and what it means, in words that no dialect owns."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from speciate.api.body import decode_body
from speciate.api.formats import json_schema
from speciate.api.sampling import Fraction, Name, Positive, SamplingFields, StopStrings
from speciate.api.wish import Message, TurnWish, check_tool_choice
from speciate.core.errors import InvalidRequest
from speciate.core.request import Grammar
from speciate.models.tool_formats import Tool as ModelTool
from speciate.models.tool_formats import ToolChoice


class TextBlock(Struct, tag="text"):
    text: str


class ImageBlock(Struct, tag="image"):
    source: Any = None


class DocumentBlock(Struct, tag="document"):
    source: Any = None


class ThinkingBlock(Struct, tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Struct, tag="redacted_thinking"):
    data: str = ""


class ToolUseBlock(Struct, tag="tool_use"):
    id: str
    name: Name
    input: dict[str, Any]


class ToolResultBlock(Struct, tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] = ""
    is_error: bool | None = None


Block = TextBlock | ImageBlock | DocumentBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock


class MessageParam(Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Struct):
    name: Name
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None
    strict: bool | None = None


class Choice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct):
    type: str


class Metadata(Struct):
    user_id: str | None = None


class OutputFormat(Struct):
    type: str
    schema: dict[str, Any] | None = None


class OutputConfig(Struct):
    format: OutputFormat | None = None
    effort: str | None = None


class CountBody(Struct, kw_only=True):
    """What the tokens of a prompt depend on."""

    model: Name
    messages: Annotated[list[MessageParam], Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


class MessagesBody(CountBody, kw_only=True):
    """Fields that this server honours; all others are ignored."""

    max_tokens: Positive
    stream: bool | None = None
    stop_sequences: StopStrings | None = None
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard", "fast"] | None = None


_MESSAGES = msgspec.json.Decoder(MessagesBody)
_COUNT = msgspec.json.Decoder(CountBody)


def decode_messages(body: bytes) -> MessagesBody:
    return decode_body(_MESSAGES, body)


def decode_count(body: bytes) -> CountBody:
    return decode_body(_COUNT, body)


def sampling_fields(body: MessagesBody) -> SamplingFields:
    """`speed: fast` is this dialect's word for the priority tier."""
    return SamplingFields(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=body.stop_sequences,
        service_tier="priority" if body.speed == "fast" else None,
        user=body.metadata.user_id if body.metadata else None,
    )


def messages_wish(body: CountBody, fields: SamplingFields, max_tokens: int | None) -> TurnWish:
    """A last message of the assistant is the beginning of the answer. Raises InvalidRequest, naming the field."""
    tools = tuple(_tool(tool, i) for i, tool in enumerate(body.tools or ()))
    choice = body.tool_choice
    return TurnWish(
        model=body.model,
        messages=_conversation(body),
        fields=fields,
        max_tokens=max_tokens,
        max_tokens_param="max_tokens",
        is_upper_bound=True,
        tools=tools,
        tool_choice=check_tool_choice(_tool_choice(choice, tools), tools),
        may_call_in_parallel=not (choice is not None and choice.disable_parallel_tool_use),
        grammar=_grammar(body.output_config),
        template_options={"enable_thinking": body.thinking is not None and body.thinking.type != "disabled"},
        continues_last=body.messages[-1].role == "assistant",
    )


def _grammar(config: OutputConfig | None) -> Grammar | None:
    if config is None or config.format is None:
        return None
    if config.format.type != "json_schema":
        raise InvalidRequest(
            f"output_config.format.type is {config.format.type!r}; json_schema is served.", param="output_config.format"
        )
    return json_schema(config.format.schema)


def _tool(tool: Tool, place: int) -> ModelTool:
    if tool.type not in (None, "custom"):
        raise InvalidRequest(
            f"Tools of type {tool.type!r} run on Anthropic's servers; describe yours with an input_schema.",
            param=f"tools[{place}]",
        )
    return ModelTool(tool.name, tool.description, tool.input_schema, bool(tool.strict))


def _tool_choice(choice: Choice | None, tools: tuple[ModelTool, ...]) -> ToolChoice:
    if choice is None:
        return ToolChoice("auto" if tools else "none")
    match choice.type:
        case "any":
            return ToolChoice("required")
        case "tool":
            return ToolChoice("required", choice.name or "")
        case mode:
            return ToolChoice(mode)


def _conversation(body: CountBody) -> list[Message]:
    system = body.system if isinstance(body.system, str) else "\n".join(b.text for b in body.system or ())
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for place, message in enumerate(body.messages):
        messages += _template_messages(message, f"messages[{place}].content")
    return messages


def _template_messages(message: MessageParam, path: str) -> list[Message]:
    """One message of this dialect can be several: tool results stand among a user's blocks here."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if message.role == "assistant":
        return [_assistant(message.content, path)]
    results: list[Message] = []
    texts: list[str] = []
    for i, block in enumerate(message.content):
        match block:
            case ToolResultBlock():
                results.append(_tool_result(block, f"{path}[{i}]"))
            case TextBlock(text):
                texts.append(text)
            case _:
                raise _not_text(block, f"{path}[{i}]")
    return results + ([{"role": message.role, "content": "\n".join(texts)}] if texts else [])


def _tool_result(block: ToolResultBlock, path: str) -> Message:
    content = block.content
    if not isinstance(content, str):
        content = "\n".join(_text(part, f"{path}.content[{i}]") for i, part in enumerate(content))
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def _text(block: Block, path: str) -> str:
    if not isinstance(block, TextBlock):
        raise _not_text(block, path)
    return block.text


def _assistant(blocks: list[Block], path: str) -> Message:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for i, block in enumerate(blocks):
        match block:
            case TextBlock(text):
                texts.append(text)
            case ThinkingBlock(thinking):
                thoughts.append(thinking)
            case RedactedThinkingBlock():
                continue
            case ToolUseBlock(call_id, name, arguments):
                calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}})
            case _:
                raise _not_text(block, f"{path}[{i}]")
    message: Message = {"role": "assistant", "content": "\n".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    return {**message, "tool_calls": calls} if calls else message


def _not_text(block: Block, path: str) -> InvalidRequest:
    kind = type(block).__struct_config__.tag
    return InvalidRequest(f"{path} is of type {kind}; it cannot be read here: the models served read text.", param=path)
