"""The Response object and its output items. Every nullable field is there: strict clients ask for all of them."""

from typing import Any, Literal

from msgspec import Struct

from speciate.api.formats import TextFormat
from speciate.api.logprobs import ChatLogprob, chat_logprobs
from speciate.api.pieces import Said, ToolCall
from speciate.api.responses_body import ReasoningOptions, ResponsesBody, TextOptions
from speciate.api.tiers import WORD_OF_TIER
from speciate.core.output import Finish, FinishReason, SampledLogprob
from speciate.core.request import SamplingParams
from speciate.core.segment import Tier

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(Struct, frozen=True, tag="output_text"):
    text: str
    logprobs: list[ChatLogprob]
    annotations: tuple[()] = ()


class ReasoningText(Struct, frozen=True, tag="reasoning_text"):
    text: str


class OutputMessage(Struct, frozen=True, tag="message"):
    id: str
    status: ItemStatus
    content: list[OutputText]
    role: str = "assistant"


class OutputCall(Struct, frozen=True, tag="function_call"):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class OutputReasoning(Struct, frozen=True, tag="reasoning"):
    id: str
    status: ItemStatus
    content: list[ReasoningText]
    summary: tuple[()] = ()
    encrypted_content: None = None


OutputItem = OutputMessage | OutputCall | OutputReasoning


class InputDetails(Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct, frozen=True):
    reasoning_tokens: int


class ResponseUsage(Struct, frozen=True):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseError(Struct, frozen=True):
    code: str
    message: str


class IncompleteDetails(Struct, frozen=True):
    reason: str


class ToolEcho(Struct, frozen=True):
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool
    type: str = "function"


class Response(Struct, kw_only=True):
    """Owned and written by its run; everybody else reads."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    background: bool
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningOptions
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    presence_penalty: float
    frequency_penalty: float
    text: TextOptions
    tool_choice: Any
    tools: list[ToolEcho]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None = None
    user: str | None


def new_response(response_id: str, created: int, body: ResponsesBody, sampling: SamplingParams, tier: Tier) -> Response:
    text = body.text or TextOptions()
    return Response(
        id=response_id,
        created_at=created,
        status="queued" if body.background else "in_progress",
        background=bool(body.background),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        model=body.model,
        output=[],
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning=body.reasoning or ReasoningOptions(),
        safety_identifier=body.safety_identifier,
        service_tier=WORD_OF_TIER[tier],
        store=body.store is not False,
        temperature=sampling.temperature,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        text=TextOptions(text.format or TextFormat(), text.verbosity),
        tool_choice=body.tool_choice or "auto",
        tools=[ToolEcho(t.name or "", t.description, t.parameters, bool(t.strict)) for t in body.tools or ()],
        top_logprobs=body.top_logprobs or 0,
        top_p=sampling.top_p,
        truncation=body.truncation or "disabled",
        user=body.user,
    )


def close_response(response: Response, finish: Finish, reasoning_tokens: int, now: int) -> None:
    """The answer is over: completed, or incomplete for want of tokens."""
    is_whole = finish.reason is not FinishReason.LENGTH
    response.status = "completed" if is_whole else "incomplete"
    response.incomplete_details = None if is_whole else IncompleteDetails("max_output_tokens")
    response.completed_at = now if is_whole else None
    response.service_tier = WORD_OF_TIER[finish.tier]
    response.usage = ResponseUsage(
        input_tokens=finish.usage.prompt_tokens,
        input_tokens_details=InputDetails(finish.usage.cached_tokens),
        output_tokens=finish.usage.completion_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens),
        total_tokens=finish.usage.prompt_tokens + finish.usage.completion_tokens,
    )


def reasoning_item(item_id: str, status: ItemStatus, text: str | None) -> OutputReasoning:
    return OutputReasoning(item_id, status, [] if text is None else [ReasoningText(text)])


def message_item(item_id: str, status: ItemStatus, parts: list[OutputText]) -> OutputMessage:
    return OutputMessage(item_id, status, parts)


def text_part(text: str, sampled: tuple[SampledLogprob, ...]) -> OutputText:
    return OutputText(text, chat_logprobs(sampled).content)


def call_item(item_id: str, status: ItemStatus, call: ToolCall) -> OutputCall:
    return OutputCall(item_id, status, call.call_id, call.name, call.arguments)


def has_message(said: Said) -> bool:
    """An answer without calls has a message even when it says nothing."""
    return bool(said.text) or not said.calls
