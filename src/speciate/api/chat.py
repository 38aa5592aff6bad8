"""/v1/chat/completions: whole answers and streams of chunks."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from speciate.api.call import BytesReply, Call, Reply, Services, new_id
from speciate.api.chat_body import ChatBody, chat_wish, decode_chat
from speciate.api.chat_chunks import ChoiceWriter, ChunkTemplate
from speciate.api.errors import openai_error
from speciate.api.fingerprint import FINGERPRINT
from speciate.api.logprobs import ChatLogprobs, chat_logprobs
from speciate.api.pieces import Said, ToolCall
from speciate.api.promise import promise_of
from speciate.api.sse import DONE, EventStream
from speciate.api.tiers import WORD_OF_TIER
from speciate.api.turn import Turn, open_turn
from speciate.api.usage import CompletionUsage, served_tier, usage_of
from speciate.core.errors import SpeciateError
from speciate.core.output import Finish, Whole


class FunctionAnswer(Struct, frozen=True):
    name: str
    arguments: str


class ToolCallAnswer(Struct, frozen=True):
    id: str
    function: FunctionAnswer
    type: str = "function"


class MessageAnswer(Struct, frozen=True, omit_defaults=True):
    """`content` and `refusal` are always there, as null if need be; the others only when there is something."""

    content: str | None
    refusal: str | None
    role: str
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The same twice: half of the clients know one name, half the other."""
    tool_calls: list[ToolCallAnswer] | None = None


class ChoiceAnswer(Struct, frozen=True):
    index: int
    message: MessageAnswer
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatAnswer(Struct, frozen=True):
    id: str
    created: int
    model: str
    choices: list[ChoiceAnswer]
    usage: CompletionUsage
    service_tier: str
    system_fingerprint: str = FINGERPRINT
    object: str = "chat.completion"


_encode = msgspec.json.Encoder().encode


async def create_chat(services: Services, call: Call) -> Reply:
    body = decode_chat(call.body)
    promise = promise_of(services, call, body.model, body, may_use_read_timeout=not body.stream)
    turn = await open_turn(services, new_id("chatcmpl-"), chat_wish(body), promise)
    return _stream(services, turn, body) if body.stream else await _whole(turn)


async def _whole(turn: Turn) -> Reply:
    wholes = await turn.wholes()
    said = [turn.said(whole) for whole in wholes]
    finishes = [whole.finish for whole in wholes]
    tier = served_tier(finishes)
    answer = ChatAnswer(
        id=turn.answer_id,
        created=turn.created,
        model=turn.wish.model,
        choices=[_choice(turn, i, whole, s) for i, (whole, s) in enumerate(zip(wholes, said, strict=True))],
        usage=usage_of(finishes, sum(turn.num_tokens(s.reasoning) for s in said), choices_per_prompt=len(finishes)),
        service_tier=WORD_OF_TIER[tier],
    )
    return BytesReply(_encode(answer), headers=lambda: turn.headers_in(tier))


def _choice(turn: Turn, index: int, whole: Whole, said: Said) -> ChoiceAnswer:
    message = MessageAnswer(
        content=said.text if said.text or not said.calls else None,
        refusal=None,
        role="assistant",
        reasoning_content=said.reasoning or None,
        reasoning=said.reasoning or None,
        tool_calls=[_tool_call(c) for c in said.calls] or None,
    )
    logprobs = None if turn.wish.num_logprobs is None else chat_logprobs(whole.logprobs)
    return ChoiceAnswer(index, message, logprobs, "tool_calls" if said.calls else whole.finish.reason.value)


def _tool_call(call: ToolCall) -> ToolCallAnswer:
    return ToolCallAnswer(call.call_id, FunctionAnswer(call.name, call.arguments))


def _stream(services: Services, turn: Turn, body: ChatBody) -> Reply:
    has_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return EventStream(
        _frames(turn, has_usage),
        error_frame,
        heartbeat_s=services.options.heartbeat_s,
        write_stall_s=services.options.write_stall_s,
        headers=turn.headers(),
    )


def error_frame(error: SpeciateError) -> bytes:
    return b"data: %b\n\n" % openai_error(error, "")


async def _frames(turn: Turn, has_usage: bool) -> AsyncGenerator[bytes, None]:
    template = ChunkTemplate(turn, has_usage=has_usage)
    writers = [ChoiceWriter(template, i, turn.reader(), turn.wish.num_logprobs) for i in range(len(turn.submissions))]
    finishes: list[Finish] = []
    opening = template.roles(len(writers))
    async with aclosing(turn.events()) as events:
        async for choice_event in events:
            writer, event = writers[choice_event.index], choice_event.event
            if isinstance(event, Finish):
                finishes.append(event)
                frame = writer.finish(event)
            else:
                frame = writer.delta(event)
            if frame or opening:
                yield opening + frame
                opening = b""
    if has_usage:
        reasoning_tokens = sum(turn.num_tokens(writer.reasoning) for writer in writers)
        yield template.usage(
            usage_of(finishes, reasoning_tokens, choices_per_prompt=len(writers)), served_tier(finishes)
        )
    yield DONE
