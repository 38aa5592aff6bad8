"""Log-probabilities in the two shapes that OpenAI has for them."""

from collections.abc import Sequence

from msgspec import Struct

from speciate.core.output import SampledLogprob, TokenLogprob

LEAST = -9999.0
"""Written for probabilities of zero: JSON has no infinity, and this is the number OpenAI writes."""


class TopLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct, frozen=True):
    content: list[ChatLogprob]
    refusal: None = None


class LegacyLogprobs(Struct, frozen=True):
    """Four parallel lists, as /v1/completions has always had them."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


def chat_logprobs(sampled: Sequence[SampledLogprob]) -> ChatLogprobs:
    return ChatLogprobs([_chat(s) for s in sampled])


def legacy_logprobs(sampled: Sequence[SampledLogprob], offset: int) -> LegacyLogprobs:
    """`offset` is where the first of these tokens begins in the text of the choice, in characters."""
    tokens = [_text(s.chosen) for s in sampled]
    offsets = [offset]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    return LegacyLogprobs(
        tokens=tokens,
        token_logprobs=[_finite(s.chosen.logprob) for s in sampled],
        top_logprobs=[{_text(t): _finite(t.logprob) for t in s.top} for s in sampled],
        text_offset=offsets[: len(tokens)],
    )


def _chat(sampled: SampledLogprob) -> ChatLogprob:
    chosen = sampled.chosen
    top = [TopLogprob(_text(t), _finite(t.logprob), list(t.data)) for t in sampled.top]
    return ChatLogprob(_text(chosen), _finite(chosen.logprob), list(chosen.data), top)


def _text(token: TokenLogprob) -> str:
    return token.data.decode("utf-8", "replace")


def _finite(logprob: float) -> float:
    return max(logprob, LEAST)
