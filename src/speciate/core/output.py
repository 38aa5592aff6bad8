"""What an engine gives back: deltas of text and tokens, then exactly one finish, or an exception; or all at once."""

from enum import StrEnum

from msgspec import Struct

from speciate.core.segment import Tier


class FinishReason(StrEnum):
    """Why a sequence ended. Failures are exceptions, never a reason."""

    STOP = "stop"
    LENGTH = "length"


class TokenLogprob(Struct, frozen=True):
    """Log-probability of one token as the model gave it; `data` are the token's own bytes."""

    token_id: int
    data: bytes
    logprob: float


class SampledLogprob(Struct, frozen=True):
    """The chosen token and the likeliest ones at the same place, likeliest first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


class Usage(Struct, frozen=True):
    """Token counts of one sequence; cached ones are part of the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Timeline(Struct, frozen=True):
    """When what happened to a sequence, on the replica's clock in seconds."""

    arrival_s: float
    scheduled_s: float
    first_token_s: float
    finished_s: float
    num_evictions: int = 0


class Delta(Struct, frozen=True, tag="delta"):
    """Text that may be shown now, with the tokens that made it. Text can be empty while bytes are held back."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[SampledLogprob, ...] = ()


class Finish(Struct, frozen=True, tag="finish"):
    """The last event of a sequence."""

    reason: FinishReason
    usage: Usage
    timeline: Timeline
    tier: Tier
    """The tier that actually served it; slower than asked for if it was relegated on the way."""
    stop_sequence: str | None = None


OutputEvent = Delta | Finish


class Whole(Struct, frozen=True):
    """All of one sequence, for whoever does not read along."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[SampledLogprob, ...]
    finish: Finish


class Embeddings(Struct, frozen=True):
    """Vectors in input order, float32, unit length unless the model says otherwise."""

    vectors: tuple[bytes, ...]
    """Little-endian float32, one per input."""
    dimensions: int
    prompt_tokens: int
    tier: Tier
