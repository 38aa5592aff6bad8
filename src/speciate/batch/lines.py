"""What a line of the output and error files looks like, in both dialects. Bodies of answers pass through untouched."""

import msgspec
from msgspec import Struct

from speciate.batch.records import BatchRecord, BatchSpec, ClosedLine, Dialect, LineState, TokenUsage

_encode = msgspec.json.encode


class LineAnswer(Struct, frozen=True):
    """What the gateway answered to a line: as over HTTP, or a refusal that is no answer yet."""

    status: int
    body: bytes
    """JSON."""
    request_id: str
    is_refusal: bool = False
    """It may not run now; the line waits again."""
    is_retryable: bool = False
    """It was lost by no fault of its own."""
    retry_after_s: float = 0.0
    replica: str | None = None
    market: str | None = None

    @property
    def is_success(self) -> bool:
        return self.status == 200


class _UsageDetails(Struct):
    cached_tokens: int | None = 0
    reasoning_tokens: int | None = 0


class _Usage(Struct):
    """Of every dialect at once: they use different names for the same."""

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    prompt_tokens_details: _UsageDetails | None = None
    completion_tokens_details: _UsageDetails | None = None
    input_tokens_details: _UsageDetails | None = None
    output_tokens_details: _UsageDetails | None = None


class _Answer(Struct):
    usage: _Usage | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_NO_DETAILS = _UsageDetails()


def usage_of(body: bytes) -> TokenUsage:
    """Tokens that an answer says it used; none where it says nothing."""
    try:
        usage = _ANSWER.decode(body).usage
    except msgspec.DecodeError:
        return TokenUsage()
    if usage is None:
        return TokenUsage()
    read = usage.prompt_tokens_details or usage.input_tokens_details or _NO_DETAILS
    written = usage.completion_tokens_details or usage.output_tokens_details or _NO_DETAILS
    cached = (read.cached_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return TokenUsage(
        input_tokens=(usage.prompt_tokens or 0) + (usage.input_tokens or 0) + (usage.cache_read_input_tokens or 0),
        cached_tokens=cached,
        output_tokens=(usage.completion_tokens or 0) + (usage.output_tokens or 0),
        reasoning_tokens=written.reasoning_tokens or 0,
    )


def answered_line(dialect: Dialect, batch_id: str, index: int, custom_id: str, answer: LineAnswer) -> str:
    """A line that ran, well or not."""
    body = answer.body.decode()
    name = _text(custom_id)
    if dialect == "anthropic":
        result = f'"succeeded","message":{body}' if answer.is_success else f'"errored","error":{body}'
        return f'{{"custom_id":{name},"result":{{"type":{result}}}}}'
    response = f'{{"status_code":{answer.status},"request_id":{_text(answer.request_id)},"body":{body}}}'
    return f'{{"id":"{line_id(batch_id, index)}","custom_id":{name},"response":{response},"error":null}}'


def unanswered_line(batch: BatchRecord, line: ClosedLine, custom_id: str) -> str:
    """A line that never got an answer: cancelled, expired, or given up."""
    name = _text(custom_id)
    if batch.spec.dialect == "anthropic":
        return f'{{"custom_id":{name},"result":{_anthropic_result(line)}}}'
    code, message = _reason(line, batch.spec)
    error = f'{{"code":{_text(code)},"message":{_text(message)}}}'
    return f'{{"id":"{line_id(batch.id, line.index)}","custom_id":{name},"response":null,"error":{error}}}'


def unrunnable(dialect: Dialect, request_id: str) -> LineAnswer:
    """For a line that our own code stumbles over each time."""
    message = "The server has a bug that this line meets; its log has the details."
    if dialect == "anthropic":
        body = _encode({"type": "error", "error": {"type": "api_error", "message": message}, "request_id": request_id})
    else:
        error = {"message": message, "type": "server_error", "param": None, "code": "internal_error"}
        body = _encode({"error": error})
    return LineAnswer(500, body, request_id)


def line_id(batch_id: str, index: int) -> str:
    return f"batch_req_{batch_id.rpartition('_')[2]}{index:08x}"


def _anthropic_result(line: ClosedLine) -> str:
    if line.state == LineState.CANCELLED:
        return '{"type":"canceled"}'
    if line.state == LineState.EXPIRED:
        return '{"type":"expired"}'
    message = _text(_poison_message(line))
    error = f'{{"type":"error","error":{{"type":"api_error","message":{message}}},"request_id":null}}'
    return f'{{"type":"errored","error":{error}}}'


def _reason(line: ClosedLine, spec: BatchSpec) -> tuple[str, str]:
    if line.state == LineState.CANCELLED:
        return "batch_cancelled", "This request was not executed because the batch was cancelled."
    if line.state == LineState.EXPIRED:
        return (
            "batch_expired",
            f"This request could not be executed before the completion window ({spec.window}) ended.",
        )
    return "worker_died", _poison_message(line)


def _poison_message(line: ClosedLine) -> str:
    return (
        f"{line.deaths} workers died while this request ran, the last of them with nothing else to do; it was given "
        f"up after {line.attempt} attempts. Look at the server's log for what it does to the engine."
    )


def _text(value: str) -> str:
    return _encode(value).decode()
