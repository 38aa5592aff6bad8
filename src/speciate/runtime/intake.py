"""What a replica makes of a request: what the engine, the scheduler and the sequence itself must know of it."""

from speciate.core.engine import SequenceSpec
from speciate.core.errors import ContextLengthExceeded, InvalidRequest
from speciate.core.request import GenerateRequest
from speciate.core.scheduler import TokenWork


def validate(request: GenerateRequest, context_tokens: int) -> None:
    """Raises InvalidRequest for a prompt without tokens, ContextLengthExceeded for more than the context holds."""
    num_prompt = len(request.prompt_tokens)
    if num_prompt == 0:
        raise InvalidRequest("The prompt has no tokens; send at least one.", param="prompt")
    if num_prompt + request.stopping.max_tokens > context_tokens:
        raise ContextLengthExceeded(
            f"This model's context is {context_tokens} tokens; the prompt has {num_prompt} and max_tokens asks for "
            f"{request.stopping.max_tokens} more. Shorten the prompt or lower max_tokens.",
            param="messages",
        )


def end_tokens(request: GenerateRequest, eos_token_ids: tuple[int, ...]) -> frozenset[int]:
    """All tokens that end this request: its own, and the model's unless it ignores them."""
    own = request.stopping.stop_token_ids
    return frozenset(own if request.stopping.ignore_eos else (*own, *eos_token_ids))


def spec_of(seq_id: int, request: GenerateRequest, end_token_ids: frozenset[int]) -> SequenceSpec:
    """What the engine's sampler must know of a request."""
    return SequenceSpec(
        seq_id=seq_id,
        prompt_tokens=request.prompt_tokens,
        sampling=request.sampling,
        grammar=request.grammar,
        adapter=request.adapter,
        stop_token_ids=tuple(sorted(end_token_ids)),
        min_tokens=request.stopping.min_tokens,
    )


def work_of(seq_id: int, request: GenerateRequest) -> TokenWork:
    """What the scheduler must know of it."""
    return TokenWork(
        seq_id=seq_id,
        prompt_tokens=request.prompt_tokens,
        segment=request.segment,
        arrival_s=request.arrival_s,
        max_tokens=request.stopping.max_tokens,
        tenant=request.tenant,
        deadline_s=request.deadline_s,
        cache_salt=request.adapter or "",
        may_downgrade=request.may_downgrade,
    )
