"""Names for ways to run one device, with their knobs: ours, its ablations, and the baselines."""

from collections.abc import Callable, Mapping

from msgspec import structs

from speciate.core.engine import TokenEngineShape
from speciate.core.errors import ConfigError
from speciate.core.segment import Tier
from speciate.costs.step_calibration import StepCalibration
from speciate.scheduling.baselines.ablations import FixedChunkScheduler
from speciate.scheduling.baselines.aimd import AimdGateway, AimdOptions
from speciate.scheduling.baselines.edf import edf
from speciate.scheduling.baselines.fcfs import fcfs
from speciate.scheduling.baselines.qoserve import QoServeOptions, qoserve
from speciate.scheduling.baselines.sglang import SglangOptions, sglang, sglang_mixed
from speciate.scheduling.baselines.vllm_priority import vllm_priority
from speciate.scheduling.options import Reservation, StepTimePrior, TokenSchedulerOptions
from speciate.scheduling.token import TokenScheduler
from speciate.sim.simulation import Seat

Build = Callable[[TokenEngineShape, TokenSchedulerOptions], tuple[Seat, ...]]
"""Fresh schedulers for one device."""

NEVER_MATTERS = 1e9


def shape_of(calibration: StepCalibration) -> TokenEngineShape:
    """The engine that a calibration stands for."""
    return TokenEngineShape(
        model=calibration.name,
        vocab_size=1 << 31,
        context_tokens=calibration.context_tokens,
        block_tokens=calibration.block_tokens,
        num_blocks=calibration.num_blocks,
        block_bytes=1,
        eos_token_ids=(),
        max_step_tokens=calibration.max_step_tokens,
        max_step_sequences=calibration.max_step_sequences,
        step_sizes=calibration.step_sizes,
    )


def prior_of(calibration: StepCalibration) -> StepTimePrior:
    """Where the scheduler's own model starts: what `speciate serve` would have measured while warming up."""
    line = calibration.small
    return StepTimePrior(
        base_s=line.base_s,
        decode_s=max(line.decode_s, 1e-9),
        context_s=max(line.context_s, 1e-12),
        prefill_s=max(line.prefill_s, 1e-9),
        prefill_context_s=max(line.pair_s + line.chunk_context_s / 512, 1e-13),
    )


def seats(name: str, calibration: StepCalibration, options: TokenSchedulerOptions) -> tuple[Seat, ...]:
    """Fresh schedulers under a policy's name. Raises ConfigError that names what exists."""
    if name not in POLICIES:
        raise ConfigError(f"There is no policy {name!r}. Known: {', '.join(POLICIES)}.")
    return POLICIES[name](shape_of(calibration), structs.replace(options, prior=prior_of(calibration)))


def ours(**changes: object) -> Build:
    """The production scheduler with some options changed."""
    return lambda shape, options: (Seat(TokenScheduler(shape, structs.replace(options, **changes))),)


def silos(shares: Mapping[Tier, float], step_tokens: int = 512) -> Build:
    """A replica a tier, FCFS each: the device's speed and memory are cut once and for all.

    A slice of 1/n takes n times as long for each step, weights read included: generous to the small slices of GPUs
    that share memory bandwidth, and exact for a fleet of n replicas seen as one device.
    """

    def build(shape: TokenEngineShape, options: TokenSchedulerOptions) -> tuple[Seat, ...]:
        return tuple(
            Seat(fcfs(_slice(shape, share), options, step_tokens=step_tokens), share, (tier,))
            for tier, share in shares.items()
        )

    return build


def _slice(shape: TokenEngineShape, share: float) -> TokenEngineShape:
    return structs.replace(shape, num_blocks=int(shape.num_blocks * share))


def _one(build: Callable[[TokenEngineShape, TokenSchedulerOptions], TokenScheduler | AimdGateway]) -> Build:
    return lambda shape, options: (Seat(build(shape, options)),)


def _fixed_chunk(tokens: int) -> Build:
    return _one(lambda shape, options: FixedChunkScheduler(shape, options, tokens))


def _cut(realtime: float, interactive: float) -> dict[Tier, float]:
    shares = {Tier.REALTIME: realtime, Tier.INTERACTIVE: interactive}
    return {**shares, Tier.BATCH: round(1 - realtime - interactive, 6)}


def _fcfs(tokens: int) -> Build:
    return _one(lambda shape, options: fcfs(shape, options, step_tokens=tokens))


def _vllm(tokens: int) -> Build:
    return _one(lambda shape, options: vllm_priority(shape, options, step_tokens=tokens))


def _edf(tokens: int) -> Build:
    return _one(lambda shape, options: edf(shape, options, step_tokens=tokens))


def _sglang(tokens: int) -> Build:
    return _one(lambda shape, options: sglang(shape, options, SglangOptions(chunk_tokens=tokens)))


def _sglang_mixed(tokens: int) -> Build:
    return _one(lambda shape, options: sglang_mixed(shape, options, SglangOptions(chunk_tokens=tokens)))


def _qoserve(alpha_s: float, safety: float) -> Build:
    knobs = QoServeOptions(alpha_s=alpha_s, safety=safety)
    return _one(lambda shape, options: qoserve(shape, options, knobs))


def _aimd(tokens: int, max_window: float) -> Build:
    knobs = AimdOptions(max_window=max_window)
    return _one(lambda shape, options: AimdGateway(fcfs(shape, options, step_tokens=tokens), knobs))


def _aimd_priority(tokens: int, max_window: float) -> Build:
    """The same gateway in front of priorities: what Tidal and llm-d's Batch Gateway recommend."""
    knobs = AimdOptions(max_window=max_window, first_window=min(8.0, max_window))
    return _one(lambda shape, options: AimdGateway(vllm_priority(shape, options, step_tokens=tokens), knobs))


POLICIES: dict[str, Build] = {
    "speciate": ours(),
    "speciate-reserved": ours(reservations=(Reservation(),)),
    "speciate-without-guard": ours(arm_s=0.0),
    "speciate-without-pausing": ours(pause_batch=False),
    "speciate-fixed-margin": ours(min_margin=1.1, max_margin=1.1),
    "speciate-fixed-chunk": _fixed_chunk(256),
    "fcfs-256": _fcfs(256),
    "fcfs-512": _fcfs(512),
    "fcfs-2048": _fcfs(2048),
    "vllm-priority-64": _vllm(64),
    "vllm-priority-128": _vllm(128),
    "vllm-priority-256": _vllm(256),
    "vllm-priority-512": _vllm(512),
    "vllm-priority-2048": _vllm(2048),
    "sglang-512": _sglang(512),
    "sglang-2048": _sglang(2048),
    "sglang-mixed-128": _sglang_mixed(128),
    "sglang-mixed-256": _sglang_mixed(256),
    "sglang-mixed-512": _sglang_mixed(512),
    "edf-64": _edf(64),
    "edf-128": _edf(128),
    "edf-256": _edf(256),
    "edf-512": _edf(512),
    "edf-2048": _edf(2048),
    "qoserve": _qoserve(0.008, 1.2),
    "qoserve-alpha-1ms": _qoserve(0.001, 1.2),
    "qoserve-careful": _qoserve(0.001, 1.5),
    "aimd-128": _aimd(128, 64),
    "aimd-128-window-16": _aimd(128, 16),
    "aimd-priority-128-window-4": _aimd_priority(128, 4),
    "aimd-priority-256-window-4": _aimd_priority(256, 4),
    "aimd-priority-256": _aimd_priority(256, 64),
    "aimd-256": _aimd(256, 64),
    "aimd-512": _aimd(512, 64),
    "silo-30-50-20": silos(_cut(0.3, 0.5)),
    "silo-20-50-30": silos(_cut(0.2, 0.5)),
    "silo-60-30-10": silos(_cut(0.6, 0.3)),
    "silo-40-40-20": silos(_cut(0.4, 0.4)),
}
"""Families differ before the first number; a family is reported at its best knob."""
