"""The body of /v1/chat/completions and what it means, in words that no dialect owns."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from speciate.api.body import decode_body
from speciate.api.formats import (
    ResponseFormat,
    StructuredOutputs,
    grammar_of_response_format,
    grammar_of_structured_outputs,
    only_one,
)
from speciate.api.sampling import Name, NumChoices, NumTop, Positive, SamplingFields
from speciate.api.wish import TurnWish, call_arguments, check_tool_choice, template_options
from speciate.core.errors import InvalidRequest
from speciate.core.request import Grammar
from speciate.models.tool_formats import Tool, ToolChoice


class TextPart(Struct, tag="text"):
    text: str


class RefusalPart(Struct, tag="refusal"):
    refusal: str


class ImagePart(Struct, tag="image_url"):
    image_url: Any = None


class AudioPart(Struct, tag="input_audio"):
    input_audio: Any = None


class FilePart(Struct, tag="file"):
    file: Any = None


class VideoPart(Struct, tag="video_url"):
    video_url: Any = None


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart | VideoPart
Content = str | list[Part]


class FunctionCall(Struct):
    name: Name
    arguments: str = ""


class MessageToolCall(Struct):
    function: FunctionCall
    id: str = ""
    type: Literal["function"] = "function"


class SystemMessage(Struct, tag_field="role", tag="system"):
    content: Content
    name: str | None = None


class DeveloperMessage(Struct, tag_field="role", tag="developer"):
    content: Content
    name: str | None = None


class UserMessage(Struct, tag_field="role", tag="user"):
    content: Content
    name: str | None = None


class AssistantMessage(Struct, tag_field="role", tag="assistant"):
    content: Content | None = None
    tool_calls: list[MessageToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    name: str | None = None


class ToolMessage(Struct, tag_field="role", tag="tool"):
    content: Content
    tool_call_id: str = ""
    name: str | None = None


class FunctionMessage(Struct, tag_field="role", tag="function"):
    content: Content | None
    name: str


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage


class FunctionSpec(Struct):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Struct, tag="function"):
    function: FunctionSpec


class CustomTool(Struct, tag="custom"):
    custom: Any = None


class NamedFunction(Struct):
    name: str


class NamedChoice(Struct):
    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Struct):
    include_usage: bool | None = None


class ChatBody(SamplingFields, kw_only=True):
    """Fields that this server honours; all others are ignored, as OpenAI does."""

    model: Name
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    n: NumChoices | None = None
    logprobs: bool | None = None
    top_logprobs: NumTop | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[FunctionTool | CustomTool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    # vLLM's extras
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None


_DECODER = msgspec.json.Decoder(ChatBody)


def decode_chat(body: bytes) -> ChatBody:
    return decode_body(_DECODER, body)


def chat_wish(body: ChatBody) -> TurnWish:
    """Raises InvalidRequest, naming the field, for what this server cannot honour."""
    if "audio" in (body.modalities or ()):
        raise InvalidRequest("This endpoint answers in text; audio output is not served.", param="modalities")
    tools = tuple(_tool(tool, i) for i, tool in enumerate(body.tools or ()))
    return TurnWish(
        model=body.model,
        messages=[_template_message(m, i) for i, m in enumerate(body.messages)],
        fields=body,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        max_tokens_param="max_tokens" if body.max_completion_tokens is None else "max_completion_tokens",
        num_choices=body.n or 1,
        num_logprobs=_num_logprobs(body),
        tools=tools,
        tool_choice=check_tool_choice(_tool_choice(body), tools),
        may_call_in_parallel=body.parallel_tool_calls is not False,
        grammar=_grammar(body),
        template_options=_template_options(body),
        continues_last=bool(body.continue_final_message),
    )


def _num_logprobs(body: ChatBody) -> int | None:
    if not body.logprobs:
        if body.top_logprobs:
            raise InvalidRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
        return None
    return body.top_logprobs or 0


def _template_options(body: ChatBody) -> dict[str, Any]:
    options = template_options(body.chat_template_kwargs, body.reasoning_effort)
    if body.add_generation_prompt is not None:
        options["add_generation_prompt"] = body.add_generation_prompt
    return options


def _grammar(body: ChatBody) -> Grammar | None:
    guided = StructuredOutputs(body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar)
    candidates = (
        grammar_of_response_format(body.response_format),
        grammar_of_structured_outputs(body.structured_outputs),
        grammar_of_structured_outputs(guided),
    )
    return only_one([g for g in candidates if g is not None], "response_format")


def _tool(tool: FunctionTool | CustomTool, place: int) -> Tool:
    if isinstance(tool, CustomTool):
        raise InvalidRequest(
            "Tools of type `custom` are not served; describe it as a function.", param=f"tools[{place}]"
        )
    spec = tool.function
    return Tool(spec.name, spec.description, spec.parameters, bool(spec.strict))


def _tool_choice(body: ChatBody) -> ToolChoice:
    choice = body.tool_choice
    if choice is None:
        return ToolChoice("auto" if body.tools else "none")
    if isinstance(choice, NamedChoice):
        return ToolChoice("required", choice.function.name)
    return ToolChoice(choice)


def _template_message(message: Message, place: int) -> dict[str, Any]:
    """As chat templates want it: text for content, tool arguments as objects."""
    path = f"messages[{place}].content"
    match message:
        case SystemMessage():
            return _named({"role": "system", "content": text_of(message.content, path)}, message.name)
        case DeveloperMessage():
            return _named({"role": "developer", "content": text_of(message.content, path)}, message.name)
        case UserMessage():
            return _named({"role": "user", "content": text_of(message.content, path)}, message.name)
        case AssistantMessage():
            return _assistant(message, path)
        case ToolMessage():
            content = {"content": text_of(message.content, path), "tool_call_id": message.tool_call_id}
            return _named({"role": "tool", **content}, message.name)
        case FunctionMessage():
            return {"role": "tool", "name": message.name, "content": text_of(message.content or "", path)}


def _named(message: dict[str, Any], name: str | None) -> dict[str, Any]:
    return message if name is None else {**message, "name": name}


def _assistant(message: AssistantMessage, path: str) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": text_of(message.content or message.refusal or "", path)}
    reasoning = message.reasoning_content or message.reasoning
    if reasoning:
        said["reasoning_content"] = reasoning
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "id": c.id,
                "type": "function",
                "function": {"name": c.function.name, "arguments": call_arguments(c.function.arguments, path)},
            }
            for c in message.tool_calls
        ]
    return said


def text_of(content: Content, path: str) -> str:
    """Text parts, a line each. Raises InvalidRequest for parts that are not text."""
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part, f"{path}[{i}]") for i, part in enumerate(content))


def _part_text(part: Part, path: str) -> str:
    match part:
        case TextPart(text):
            return text
        case RefusalPart(refusal):
            return refusal
        case ImagePart():
            kind = "an image"
        case AudioPart():
            kind = "audio"
        case VideoPart():
            kind = "video"
        case FilePart():
            kind = "a file"
    raise InvalidRequest(f"{path} is {kind}; the models served here read text only.", param=path)
