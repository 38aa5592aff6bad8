"""`speciate simulate`: the production decisions over a trace or drawn arrivals, under a virtual clock.

`speciate simulate market` replays where and when a batch job runs instead (`simulate_market.py`).
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from speciate.cli import simulate_market
from speciate.config import Settings, load_settings
from speciate.core.errors import ConfigError
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.step_calibration import A100_LLAMA3_8B, StepCalibration, load_calibration
from speciate.sim.faults import Faults
from speciate.sim.policies import POLICIES, seats
from speciate.sim.simulation import Setting, simulate
from speciate.sim.table import report_table
from speciate.sim.traces import read_trace
from speciate.sim.workload import (
    CONVERSATION,
    SessionShape,
    SimRequest,
    backlog,
    diurnal,
    faster,
    gamma_bursts,
    generate,
    merged,
    poisson,
    sessions,
    uniform,
)

WIDTH = 150
"""Of the table where no terminal says how wide it is."""
SPOKEN = uniform((64, 256), (8, 32))
"""Lengths of real-time turns. No public trace has such a tier; these are stated, not measured."""

LENGTHS = {Tier.REALTIME: SPOKEN, Tier.INTERACTIVE: CONVERSATION, Tier.BATCH: CONVERSATION}
SAID = uniform((20, 400), (20, 300))
"""What a turn of a session adds, and its answer."""
SESSION = SessionShape()
BURSTS_CV = 3.5
"""Coefficient of variation of the gaps (BurstGPT's traces lie between 1 and 13)."""
SWING = 0.75
"""A day's rate swings by so much of its mean."""
Draw = Callable[[Tier, float, float, int], Iterator[SimRequest]]
"""(tier, mean requests a second, seconds, seed) to a stream."""


def _steady(tier: Tier, rate_per_s: float, duration_s: float, seed: int) -> Iterator[SimRequest]:
    return generate(tier, poisson(rate_per_s), LENGTHS[tier], duration_s=duration_s, seed=seed)


def _bursts(tier: Tier, rate_per_s: float, duration_s: float, seed: int) -> Iterator[SimRequest]:
    gaps = gamma_bursts(rate_per_s, BURSTS_CV)
    return generate(tier, gaps, LENGTHS[tier], duration_s=duration_s, seed=seed)


def _day(tier: Tier, rate_per_s: float, duration_s: float, seed: int) -> Iterator[SimRequest]:
    """The run is the day, however short."""
    gaps = diurnal((1 - SWING) * rate_per_s, (1 + SWING) * rate_per_s, duration_s)
    return generate(tier, gaps, LENGTHS[tier], duration_s=duration_s, seed=seed)


def _sessions(tier: Tier, rate_per_s: float, duration_s: float, seed: int) -> Iterator[SimRequest]:
    """Real-time turns stay alone."""
    if tier is Tier.REALTIME:
        return _steady(tier, rate_per_s, duration_s, seed)
    gaps = poisson(rate_per_s / SESSION.turns)
    return sessions(tier, gaps, SAID, SESSION, duration_s=duration_s, seed=seed)


ARRIVALS: dict[str, Draw] = {"poisson": _steady, "bursts": _bursts, "day": _day, "sessions": _sessions}


def main(arguments: Sequence[str]) -> int:
    """Status 0 when every run came to its end."""
    if arguments and arguments[0] == "market":
        return simulate_market.main(arguments[1:])
    given = _parser().parse_args(arguments)
    settings = load_settings(given.config)
    calibration = load_calibration(given.calibration)
    segments = {tier: _promise(segment, given) for tier, segment in settings.segment_table().items()}
    reports = [
        simulate(_requests(given, seed), _setting(given, settings, calibration, segments, policy, seed))
        for policy in given.policy
        for seed in given.seeds
    ]
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(reports), indent=2))
    title = f"Simulated: {calibration.name}, load x{given.load:g}"
    Console(width=None if sys.stdout.isatty() else WIDTH).print(report_table(reports, segments, title))
    return 0


def _setting(
    given: argparse.Namespace,
    settings: Settings,
    calibration: StepCalibration,
    segments: dict[Tier, Segment],
    policy: str,
    seed: int,
) -> Setting:
    options = msgspec.structs.replace(settings.scheduler_of(), prefix_cache=_has_prefixes(given))
    has_admission = policy.startswith("speciate") and not given.no_admission
    return Setting(
        policy=policy,
        calibration=calibration,
        segments=segments,
        seats=lambda: seats(policy, calibration, options),
        window_s=given.duration,
        drain_s=given.drain,
        limits=settings.admission if has_admission else None,
        may_downgrade=given.may_downgrade,
        faults=Faults(noise=given.noise, disconnect_share=given.disconnects),
        seed=seed,
    )


def _has_prefixes(given: argparse.Namespace) -> bool:
    """Only Mooncake's traces and sessions have prompts that begin alike; else a prefix cache can only cost time."""
    return given.arrivals == "sessions" or any(path.suffix == ".jsonl" for _, path in given.trace)


def _requests(given: argparse.Namespace, seed: int) -> Iterator[SimRequest]:
    """Traces as they are, drawn tiers by seed, both faster by the load multiplier; and a backlog."""
    streams = [read_trace(path, tier) for tier, path in given.trace]
    for tier, rate_per_s in zip(Tier, given.rates, strict=True):
        if rate_per_s:
            streams.append(ARRIVALS[given.arrivals](tier, rate_per_s, given.duration * given.load, seed))
    return merged(backlog(Tier.BATCH, given.backlog, CONVERSATION, seed), faster(merged(*streams), given.load))


def _promise(segment: Segment, given: argparse.Namespace) -> Segment:
    """The settings' promise, with what was given on the command line instead."""
    slo: Slo = segment.slo
    ttft_s, tpot_s = {
        Tier.REALTIME: given.realtime_slo,
        Tier.INTERACTIVE: given.interactive_slo,
        Tier.BATCH: None,
    }[segment.tier] or (slo.ttft_s, slo.tpot_s)
    e2e_s = given.batch_slo if segment.tier is Tier.BATCH and given.batch_slo else slo.e2e_s
    return msgspec.structs.replace(segment, slo=Slo(ttft_s, tpot_s, e2e_s, slo.share))


def _trace(text: str) -> tuple[Tier, Path]:
    tier, _, path = text.partition("=")
    if not path:
        return Tier.INTERACTIVE, Path(text)
    if tier not in list(Tier):
        raise argparse.ArgumentTypeError(f"{tier!r} is no tier; use one of {', '.join(Tier)}")
    return Tier(tier), Path(path)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _policy(text: str) -> str:
    if text not in POLICIES:
        raise ConfigError(f"There is no policy {text!r}. Known: {', '.join(POLICIES)}.")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speciate simulate",
        description="Run the production scheduler, or another policy, over simulated requests.",
        epilog="policies: " + ", ".join(POLICIES) + ". `speciate simulate market --help`: spot markets instead.",
    )
    add = parser.add_argument
    add(
        "--trace",
        type=_trace,
        action="append",
        default=[],
        metavar="[TIER=]FILE",
        help="Azure CSV, Mooncake JSONL or plain CSV; may be repeated (tier: interactive)",
    )
    add(
        "--rates",
        type=float,
        nargs=3,
        default=(0.0, 0.0, 0.0),
        metavar=("RT", "INTER", "BATCH"),
        help="drawn requests a second by tier, beside or instead of traces",
    )
    add(
        "--arrivals",
        choices=ARRIVALS,
        default="poisson",
        help="pattern of what --rates draws: independent, in bursts, a day's swing, or sessions with growing context",
    )
    add("--backlog", type=int, default=0, help="batch requests filed at the start")
    add("--load", type=_positive, default=1.0, help="multiplies the rate of all arrivals (default 1)")
    add("--policy", type=_policy, nargs="+", default=["speciate"], help="one or more (see below)")
    add("--seeds", type=int, nargs="+", default=[1])
    add("--duration", type=_positive, default=600.0, metavar="SECONDS", help="of arrivals (default 600)")
    add("--drain", type=float, default=600.0, metavar="SECONDS", help="how long to go on afterwards (default 600)")
    add("--calibration", default=A100_LLAMA3_8B.name, help=f"a JSON file, or {A100_LLAMA3_8B.name} (default)")
    add("--realtime-slo", type=_positive, nargs=2, metavar=("TTFT", "TPOT"), help="seconds")
    add("--interactive-slo", type=_positive, nargs=2, metavar=("TTFT", "TPOT"), help="seconds")
    add("--batch-slo", type=_positive, metavar="E2E", help="seconds")
    add("--noise", type=float, default=0.0, help="deviation of the logarithm of step times (default 0)")
    add("--disconnects", type=float, default=0.0, help="share of clients that leave early (default 0)")
    add("--no-admission", action="store_true", help="let everything in; baselines always do")
    add("--may-downgrade", action="store_true", help="clients accept a slower tier instead of a refusal")
    add("-c", "--config", type=Path, help="a speciate.yaml: promises, scheduler and admission options")
    add("--json", type=Path, help="also write the reports here")
    return parser
