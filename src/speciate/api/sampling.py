"""The fields that every generating dialect shares, with their limits, and what they mean in core words.

Limits are declared as types, so that decoding itself refuses what is out of range and names the field.
"""

from collections.abc import Iterable
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from speciate.api.tiers import ServiceTier
from speciate.core.errors import ContextLengthExceeded, InvalidRequest
from speciate.core.request import SamplingParams, StopRules

N = TypeVar("N", int, float)

MAX_CHOICES = 16
MAX_STOP_STRINGS = 16
MAX_TOP_LOGPROBS = 20

Positive = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
Bias = Annotated[float, Meta(ge=-100.0, le=100.0)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
NumChoices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
NumTop = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]
StopString = Annotated[str, Meta(max_length=1024)]
StopStrings = Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)]
TokenIds = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(max_length=256)]
Name = Annotated[str, Meta(min_length=1, max_length=512)]


class SamplingFields(Struct, kw_only=True):
    """OpenAI's sampling fields and vLLM's extras. None means the model's own default."""

    temperature: Temperature | None = None
    top_p: Fraction | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[int, Bias], Meta(max_length=1024)] | None = None
    seed: Seed | None = None
    stop: StopString | StopStrings | None = None
    service_tier: ServiceTier | None = None
    user: str | None = None
    safety_identifier: str | None = None
    # vLLM's extras
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Fraction | None = None
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    stop_token_ids: TokenIds | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    priority: int | None = None


def sampling_params(fields: SamplingFields, defaults: SamplingParams, num_logprobs: int | None) -> SamplingParams:
    """What the caller set, over what the model was published with."""
    return SamplingParams(
        temperature=_or(fields.temperature, defaults.temperature),
        top_p=_or(fields.top_p, defaults.top_p),
        top_k=max(_or(fields.top_k, defaults.top_k), 0),
        min_p=_or(fields.min_p, defaults.min_p),
        presence_penalty=_or(fields.presence_penalty, defaults.presence_penalty),
        frequency_penalty=_or(fields.frequency_penalty, defaults.frequency_penalty),
        repetition_penalty=_or(fields.repetition_penalty, defaults.repetition_penalty),
        logit_bias=defaults.logit_bias if fields.logit_bias is None else tuple(fields.logit_bias.items()),
        seed=fields.seed,
        num_logprobs=num_logprobs,
    )


def stop_rules(fields: SamplingFields, max_tokens: int) -> StopRules:
    return StopRules(
        max_tokens=max_tokens,
        stop=stop_strings(fields.stop),
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        ignore_eos=bool(fields.ignore_eos),
        min_tokens=fields.min_tokens or 0,
        include_stop=bool(fields.include_stop_str_in_output),
    )


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """Empty strings are left out: they would stop everything at once, and nobody means that."""
    given: Iterable[str] = (stop,) if isinstance(stop, str) else stop or ()
    return tuple(s for s in given if s)


def output_budget(num_prompt: int, wanted: int | None, context_tokens: int, param: str) -> int:
    """How many tokens may be made: what was asked for, else all that fits. Raises ContextLengthExceeded."""
    room = room_after(num_prompt, context_tokens, param)
    if wanted is None:
        return room
    if wanted > room:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context_tokens} tokens. However, you requested "
            f"{num_prompt + wanted} tokens ({num_prompt} in the prompt, {wanted} for the completion). "
            f"Shorten the prompt or ask for at most {room} tokens.",
            param=param,
        )
    return wanted


def clamped_budget(num_prompt: int, wanted: int | None, context_tokens: int, param: str) -> int:
    """As `output_budget`, for dialects whose limit is an upper bound and not a demand."""
    room = room_after(num_prompt, context_tokens, param)
    return room if wanted is None else min(wanted, room)


def room_after(num_prompt: int, context_tokens: int, param: str) -> int:
    room = context_tokens - num_prompt
    if num_prompt == 0:
        raise InvalidRequest("The prompt has no tokens; send at least one.", param=param)
    if room < 1:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context_tokens} tokens. However, your prompt has "
            f"{num_prompt} tokens, which leaves no room for an answer. Shorten it.",
            param=param,
        )
    return room


def _or(value: N | None, default: N) -> N:
    return default if value is None else value
