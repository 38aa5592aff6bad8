"""What a caller asks of an engine, after every dialect has been parsed away."""

from typing import Literal

from msgspec import Struct

from speciate.core.segment import Segment


class SamplingParams(Struct, frozen=True):
    """How the next token is drawn. Defaults leave the distribution as the model made it."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    """Over prompt and output, as in CTRL (Keskar 2019); 1 is off."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    num_logprobs: int | None = None
    """None: no logprobs; 0: of the chosen token only; n: also of the n likeliest."""


class StopRules(Struct, frozen=True):
    """When a sequence ends."""

    max_tokens: int
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    """Beside the model's own end tokens."""
    ignore_eos: bool = False
    min_tokens: int = 0
    """End tokens are not sampled before this many output tokens."""
    include_stop: bool = False
    """Whether a matched stop string stays in the text."""


class Grammar(Struct, frozen=True):
    """A constraint on the output text; compiled where tokens are sampled."""

    kind: Literal["json_schema", "json_object", "regex", "lark"]
    source: str = ""
    """The schema as JSON text, the pattern, or the Lark grammar; empty for json_object."""
    asked_as: str = ""
    """The kind that the caller sent, where this one was made around it; for errors."""


class GenerateRequest(Struct, frozen=True):
    """One sequence to generate. `n` choices are n requests that share their prompt's KV blocks."""

    request_id: str
    model: str
    """A served model's name; an adapter's name selects its base and the adapter."""
    prompt_tokens: tuple[int, ...]
    segment: Segment
    arrival_s: float
    sampling: SamplingParams
    stopping: StopRules
    grammar: Grammar | None = None
    adapter: str | None = None
    tenant: str = "default"
    deadline_s: float | None = None
    """Absolute, on the replica's clock: past it nobody waits, and the work is dropped."""
    may_downgrade: bool = False
    """Whether the caller accepts a slower tier instead of a refusal; told in the answer when used."""
    skip_special_tokens: bool = True
    operation: Literal["chat", "text_completion"] = "chat"
    """What telemetry calls it."""
    trace_parent: str | None = None
    """The caller's span (W3C Trace Context), for telemetry."""


class EmbedRequest(Struct, frozen=True):
    """Texts (already tokens) to embed, one vector each."""

    request_id: str
    model: str
    inputs: tuple[tuple[int, ...], ...]
    segment: Segment
    arrival_s: float
    dimensions: int | None = None
    """Keep this many leading components and normalise again (Matryoshka); None keeps all."""
    tenant: str = "default"
    deadline_s: float | None = None
