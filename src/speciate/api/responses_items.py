"""Input items of the Responses API: what they look like on the wire, and the conversation that they mean."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from speciate.api.body import decode_body
from speciate.api.call import new_id
from speciate.api.sampling import Name
from speciate.api.wish import Message, call_arguments
from speciate.core.errors import InvalidRequest

Item = dict[str, Any]
"""An item as it is stored and listed: the wire's own keys, always with `type` and `id`."""


class TextPart(Struct):
    """Any part of a message; only those with text can be read."""

    type: str
    text: str | None = None
    refusal: str | None = None


class MessageItem(Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[TextPart]
    id: str | None = None
    type: Literal["message"] = "message"


class FunctionCallItem(Struct):
    call_id: str
    name: Name
    arguments: str
    type: Literal["function_call"]
    id: str | None = None


class FunctionOutputItem(Struct):
    call_id: str
    output: str | list[TextPart]
    type: Literal["function_call_output"]
    id: str | None = None


class ReasoningItem(Struct):
    type: Literal["reasoning"]
    summary: list[TextPart] = []
    content: list[TextPart] | None = None
    id: str | None = None


class ReferenceItem(Struct):
    id: str
    type: Literal["item_reference"]


class _Peek(Struct):
    """Messages may leave their type out."""

    type: str | None = None


class _Prefix(Struct, frozen=True):
    """The id prefix of a kind of item."""

    kind: type
    prefix: str


_KINDS: dict[str, _Prefix] = {
    "message": _Prefix(MessageItem, "msg_"),
    "function_call": _Prefix(FunctionCallItem, "fc_"),
    "function_call_output": _Prefix(FunctionOutputItem, "fco_"),
    "reasoning": _Prefix(ReasoningItem, "rs_"),
    "item_reference": _Prefix(ReferenceItem, "ref_"),
}
_PEEK: msgspec.json.Decoder[_Peek] = msgspec.json.Decoder(_Peek)
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {k: msgspec.json.Decoder(v.kind) for k, v in _KINDS.items()}

Input = str | Annotated[list[msgspec.Raw], Meta(min_length=1)]


def input_items(given: Input, known: dict[str, Item]) -> list[Item]:
    """Checked items with ids. `known` resolves references. Raises InvalidRequest that names the item."""
    if isinstance(given, str):
        part = {"type": "input_text", "text": given}
        return [{"id": new_id("msg_"), "type": "message", "role": "user", "status": "completed", "content": [part]}]
    return [_item(bytes(raw), i, known) for i, raw in enumerate(given)]


def _item(raw: bytes, place: int, known: dict[str, Item]) -> Item:
    path = f"input[{place}]"
    kind = _decode(_PEEK, raw, path).type or "message"
    if kind not in _KINDS:
        raise InvalidRequest(f"{path} is of type {kind!r}; served are: {', '.join(_KINDS)}.", param=path)
    decoded: Any = _decode(_DECODERS[kind], raw, path)
    if kind == "item_reference":
        if decoded.id not in known:
            raise InvalidRequest(f"{path} refers to {decoded.id!r}, which is not part of the conversation.", param=path)
        return known[decoded.id]
    template_messages_of(decoded, path)
    item: Item = msgspec.json.decode(raw)
    if isinstance(item.get("content"), str):
        item["content"] = [{"type": _part_type(item["role"]), "text": item["content"]}]
    return {"status": "completed", **item, "type": kind, "id": item.get("id") or new_id(_KINDS[kind].prefix)}


def _part_type(role: str) -> str:
    return "output_text" if role == "assistant" else "input_text"


def _decode(decoder: msgspec.json.Decoder[Any], raw: bytes, path: str) -> Any:
    try:
        return decode_body(decoder, raw)
    except InvalidRequest as e:
        raise InvalidRequest(e.message, param=f"{path}.{e.param}" if e.param else path) from e


def conversation(items: list[Item], instructions: str | None) -> list[Message]:
    """Messages for the chat template. Calls and reasoning that stand before a message belong to one assistant turn."""
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        decoded: Any = msgspec.convert(item, _KINDS[item["type"]].kind)
        for message in template_messages_of(decoded, "input"):
            _join(messages, message)
    return messages


def _join(messages: list[Message], message: Message) -> None:
    """Neighbouring assistant items are one message to a template."""
    last = messages[-1] if messages else None
    if last is None or last["role"] != "assistant" or message["role"] != "assistant":
        messages.append(dict(message))
        return
    texts = [text for text in (last["content"], message["content"]) if text]
    calls = [*last.get("tool_calls", []), *message.get("tool_calls", [])]
    thoughts = [t for t in (last.get("reasoning_content"), message.get("reasoning_content")) if t]
    last["content"] = "\n".join(texts)
    if calls:
        last["tool_calls"] = calls
    if thoughts:
        last["reasoning_content"] = "\n".join(thoughts)


def template_messages_of(item: Any, path: str) -> list[Message]:
    """Raises InvalidRequest for parts that are not text."""
    match item:
        case MessageItem():
            return [{"role": item.role, "content": _text(item.content, f"{path}.content")}]
        case FunctionCallItem():
            function = {"name": item.name, "arguments": call_arguments(item.arguments, f"{path}.arguments")}
            call = {"id": item.call_id, "type": "function", "function": function}
            return [{"role": "assistant", "content": "", "tool_calls": [call]}]
        case FunctionOutputItem():
            return [{"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output, f"{path}.output")}]
        case ReasoningItem():
            text = _text(item.content or item.summary, f"{path}.content")
            return [{"role": "assistant", "content": "", "reasoning_content": text}] if text else []
        case _:
            return []


def _text(content: str | list[TextPart], path: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part, f"{path}[{i}]") for i, part in enumerate(content))


def _part_text(part: TextPart, path: str) -> str:
    text = part.text if part.text is not None else part.refusal
    if text is None:
        raise InvalidRequest(f"{path} is of type {part.type!r}; the models served here read text only.", param=path)
    return text
