"""The body of /v1/completions."""

from typing import Annotated

import msgspec
from msgspec import Meta

from speciate.api.body import decode_body
from speciate.api.chat_body import StreamOptions
from speciate.api.formats import (
    ResponseFormat,
    StructuredOutputs,
    grammar_of_response_format,
    grammar_of_structured_outputs,
    only_one,
)
from speciate.api.sampling import Name, NumChoices, Positive, SamplingFields
from speciate.api.submit import MAX_SEQUENCES
from speciate.core.errors import InvalidRequest
from speciate.core.request import Grammar

TokenId = Annotated[int, Meta(ge=0)]
Prompt = str | list[int]


class CompletionBody(SamplingFields, kw_only=True):
    """Fields that this server honours; all others are ignored, as OpenAI does."""

    model: Name
    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    suffix: str | None = None
    max_tokens: Positive | None = None
    n: NumChoices | None = None
    best_of: NumChoices | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None


_DECODER = msgspec.json.Decoder(CompletionBody)


def decode_completion(body: bytes) -> CompletionBody:
    """Raises InvalidRequest for combinations that this server cannot honour."""
    decoded = decode_body(_DECODER, body)
    if decoded.best_of not in (None, decoded.n or 1):
        raise InvalidRequest(
            f"best_of is {decoded.best_of} and n is {decoded.n or 1}; candidates are not ranked here, so they must be "
            "equal.",
            param="best_of",
        )
    if decoded.echo and decoded.logprobs is not None:
        raise InvalidRequest("echo with logprobs is not served: prompts are not scored.", param="echo")
    return decoded


def prompts_of(body: CompletionBody) -> list[Prompt]:
    """One text or token row each."""
    given = body.prompt
    if isinstance(given, str):
        return [given]
    if all(isinstance(p, int) for p in given):
        return [[p for p in given if isinstance(p, int)]]
    prompts = [p for p in given if not isinstance(p, int)]
    if len(prompts) != len(given):
        raise InvalidRequest("prompt mixes token ids with texts or token lists; send one kind.", param="prompt")
    if len(prompts) * (body.n or 1) > MAX_SEQUENCES:
        raise InvalidRequest(
            f"{len(prompts)} prompts with n = {body.n or 1} are more than {MAX_SEQUENCES} completions. "
            "Send fewer at once.",
            param="prompt",
        )
    return prompts


def completion_grammar(body: CompletionBody) -> Grammar | None:
    candidates = (
        grammar_of_response_format(body.response_format),
        grammar_of_structured_outputs(body.structured_outputs),
    )
    return only_one([g for g in candidates if g is not None], "response_format")
