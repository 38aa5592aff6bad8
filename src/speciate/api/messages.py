"""Anthropic's /v1/messages and its count_tokens."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from speciate.api.call import BytesReply, Call, Reply, Services, new_id
from speciate.api.errors import anthropic_error
from speciate.api.messages_body import MessagesBody, decode_count, decode_messages, messages_wish, sampling_fields
from speciate.api.messages_events import MessageEvents, MessagesUsage, ping, stop_reason, usage_of_message
from speciate.api.pieces import Said
from speciate.api.promise import promise_of
from speciate.api.prompt import turn_prompt
from speciate.api.sampling import SamplingFields
from speciate.api.sse import EventStream
from speciate.api.submit import find_text_model
from speciate.api.turn import Turn, open_turn
from speciate.core.errors import SpeciateError
from speciate.core.output import Finish


class TextAnswer(Struct, frozen=True, tag="text"):
    text: str
    citations: None = None


class ThinkingAnswer(Struct, frozen=True, tag="thinking"):
    thinking: str
    signature: str = ""


class ToolUseAnswer(Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


class MessageAnswer(Struct, frozen=True):
    id: str
    model: str
    content: list[ThinkingAnswer | TextAnswer | ToolUseAnswer]
    stop_reason: str
    stop_sequence: str | None
    usage: MessagesUsage
    type: str = "message"
    role: str = "assistant"


class TokenCount(Struct, frozen=True):
    input_tokens: int


_encode = msgspec.json.Encoder().encode


async def create_message(services: Services, call: Call) -> Reply:
    call.extra_headers.append((b"request-id", call.request_id.encode()))
    body = decode_messages(call.body)
    fields = sampling_fields(body)
    promise = promise_of(services, call, body.model, fields, may_use_read_timeout=not body.stream)
    turn = await open_turn(services, new_id("msg_"), messages_wish(body, fields, body.max_tokens), promise)
    return _stream(services, call, turn, body) if body.stream else await _whole(turn, body)


async def count_tokens(services: Services, call: Call) -> Reply:
    body = decode_count(call.body)
    _, text = find_text_model(services.gateway, body.model)
    prompt = await turn_prompt(text, messages_wish(body, SamplingFields(), None))
    return BytesReply(_encode(TokenCount(len(prompt.tokens))))


async def _whole(turn: Turn, body: MessagesBody) -> Reply:
    (whole,) = await turn.wholes()
    said = turn.said(whole)
    finish = whole.finish
    answer = MessageAnswer(
        id=turn.answer_id,
        model=body.model,
        content=_content(said),
        stop_reason=stop_reason(finish, bool(said.calls), body.max_tokens),
        stop_sequence=finish.stop_sequence,
        usage=usage_of_message(finish),
    )
    return BytesReply(_encode(answer), headers=lambda: turn.headers_in(finish.tier))


def _content(said: Said) -> list[ThinkingAnswer | TextAnswer | ToolUseAnswer]:
    content: list[ThinkingAnswer | TextAnswer | ToolUseAnswer] = []
    if said.reasoning:
        content.append(ThinkingAnswer(said.reasoning))
    if said.text or not said.calls:
        content.append(TextAnswer(said.text))
    return content + [ToolUseAnswer(c.call_id, c.name, _object(c.arguments)) for c in said.calls]


def _object(arguments: str) -> msgspec.Raw:
    """This dialect wants an object, so what a model wrote that is none is wrapped in one."""
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return msgspec.Raw(_encode({"unparsed_arguments": arguments} if arguments.strip() else {}))
    return msgspec.Raw(arguments.encode())


def _stream(services: Services, call: Call, turn: Turn, body: MessagesBody) -> Reply:
    def error_frame(error: SpeciateError) -> bytes:
        return b"event: error\ndata: %b\n\n" % anthropic_error(error, call.request_id)

    return EventStream(
        _frames(turn, body),
        error_frame,
        heartbeat_s=services.options.heartbeat_s,
        write_stall_s=services.options.write_stall_s,
        heartbeat=ping(),
        headers=turn.headers(),
    )


async def _frames(turn: Turn, body: MessagesBody) -> AsyncGenerator[bytes, None]:
    writer = MessageEvents(turn.reader())
    opening = writer.start(turn.answer_id, body.model, len(turn.prompt.tokens), turn.tier)
    async with aclosing(turn.events()) as events:
        async for choice_event in events:
            event = choice_event.event
            frame = writer.finish(event, body.max_tokens) if isinstance(event, Finish) else writer.delta(event)
            if frame or opening:
                yield opening + frame
                opening = b""
