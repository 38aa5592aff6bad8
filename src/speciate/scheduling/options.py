"""The settings of the token scheduler, in one frozen tree."""

from msgspec import Struct


class StepTimePrior(Struct, frozen=True):
    """Seconds of a step's parts before anything was measured. Learnt online; a rough guess is enough."""

    base_s: float = 0.005
    decode_s: float = 0.0005
    """One more decode in the step."""
    context_s: float = 1e-7
    """One more token of context that a decode reads."""
    prefill_s: float = 0.0005
    """One more prompt token."""
    prefill_context_s: float = 1e-9
    """One more (prompt token, context token) pair."""


class Reservation(Struct, frozen=True):
    """Real-time capacity that is kept for somebody: such a request may come at any time, and is in time.

    What is not used is lent to batch work; it is back within one step, because no step is longer than the guard allows.
    """

    ttft_s: float = 0.1
    prompt_tokens: int = 256
    """Longest prompt that is to begin in time beside everything that must run."""
    step_share: float = 0.0
    """Share 0..1 of the device that admission keeps for the owner's token rates; 0 keeps only the guard up."""
    tenant: str | None = None
    """The owner; null: whoever asks the model for real-time work."""
    model: str | None = None
    """A served model; null: all of them."""


class TokenSchedulerOptions(Struct, frozen=True):
    """What an operator may turn. Everything else is measured."""

    prior: StepTimePrior = StepTimePrior()
    max_step_s: float = 1.0
    """No step is planned longer, whatever the slack: it is also how long a cancellation waits."""
    arm_s: float = 30.0
    """How long after the last arrival of a tier the next one is expected, at least; 0: no arrival guard."""
    reservations: tuple[Reservation, ...] = ()
    expected: Reservation | None = None
    """Real-time work that may come right after the start: the guard is up for `start_arm_s` after the first request."""
    start_arm_s: float = 10.0
    guard_epsilon_s: float = 0.002
    """What a request spends outside the steps: tokenising, sampling, sending."""
    min_chunk_tokens: int = 32
    """An interactive prompt makes at least this progress a step, late decodes or not."""
    alpha_low: float = 1.0
    alpha_high: float = 32.0
    """Weight of a prompt's own prefill time in the interactive order, at low and high load (QoServe's alpha)."""
    kv_reserve: float = 0.1
    """Share of the KV blocks that batch work leaves free while faster tiers are about."""
    eviction_rest_s: float = 5.0
    """A sequence that came back from eviction is spared this long if anyone else can go."""
    batch_window_s: float = 86_400.0
    """The window of batch work that has neither a deadline nor an E2E promise."""
    batch_delay: float = 0.25
    """By how much of its own step's time batch work may delay an interactive prompt that comes while it runs; large
    values leave it to the promises alone."""
    batch_floor: float = 0.1
    """By how much of the budget urgent batch work may lengthen a step that holds no real-time work."""
    pause_batch: bool = True
    """Whether batch decodes sit out steps that they do not fit; False is for comparisons."""
    relegated_ttft_s: float = 2.0
    relegated_tpot_s: float = 0.2
    """The promise of real-time work that was relegated to interactive."""
    prefix_cache: bool = True
    min_margin: float = 1.05
    max_margin: float = 4.0
