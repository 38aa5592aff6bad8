"""The figures of a run: promises kept over what was offered, quantiles, rates."""

from msgspec import Struct

from speciate.core.segment import Tier
from speciate.sim.track import Tally


class Kept(Struct, frozen=True):
    """Shares 0..1 of the judged requests that kept their promise, by the rule for pace."""

    deadline: float
    gap: float
    mean: float


class TierFigures(Struct, frozen=True):
    """One tier of a run. None where nothing was measured."""

    offered: int
    judged: int
    finished: int
    refused: int
    relegated: int
    kept: Kept
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None
    output_tokens_per_s: float
    """Inside the measured window."""
    prompt_tokens_per_s: float
    """Of prompts whose first token came inside the measured window."""


class SimReport(Struct, frozen=True):
    """A run. Times are simulated seconds unless they say otherwise."""

    policy: str
    calibration: str
    seed: int
    window_s: float
    """Arrivals and token rates are measured from 0 to here."""
    ended_s: float
    tiers: dict[Tier, TierFigures]
    num_requests: int
    num_steps: int
    num_events: int
    """What the world had to do for it; fewer where steps were folded."""
    busy_s: float
    """Step-seconds computed."""
    wasted_s: float
    """Of those, for nobody: evicted and computed again, left, expired."""
    num_evictions: int
    margin: float
    prediction_error: float
    cpu_s: float
    """Real seconds that the simulation took, on one core."""

    @property
    def harvest_tokens_per_s(self) -> float:
        """Batch tokens, read and written, a second."""
        batch = self.tiers[Tier.BATCH]
        return batch.output_tokens_per_s + batch.prompt_tokens_per_s


def tier_figures(tally: Tally) -> TierFigures:
    """The counts of one tier as shares, quantiles and rates."""
    return TierFigures(
        offered=tally.offered,
        judged=tally.judged,
        finished=tally.finished,
        refused=tally.refused,
        relegated=tally.relegated,
        kept=Kept(*(count / tally.judged if tally.judged else 1.0 for count in tally.kept)),
        ttft_p50_s=tally.ttft.quantile(0.5),
        ttft_p99_s=tally.ttft.quantile(0.99),
        tpot_p50_s=tally.tpot.quantile(0.5),
        tpot_p99_s=tally.tpot.quantile(0.99),
        e2e_p50_s=tally.e2e.quantile(0.5),
        e2e_p99_s=tally.e2e.quantile(0.99),
        output_tokens_per_s=tally.output_tokens / tally.window_s,
        prompt_tokens_per_s=tally.prompt_tokens / tally.window_s,
    )
