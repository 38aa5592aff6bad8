import itertools
from pathlib import Path

import pytest

from speciate.bench.arrivals import CODE, CONVERSATION, draw_like, paced, read_azure_trace
from speciate.bench.client import Outcome
from speciate.bench.report import percentile, report_by_tier
from speciate.core.errors import ConfigError
from speciate.core.segment import Slo, Tier

TRACES = Path(__file__).resolve().parents[4] / "shared" / "data"
PROMISES = {tier: Slo(ttft_s=0.1, tpot_s=0.05) for tier in Tier}


def _outcome(**changes: object) -> Outcome:
    fields = {
        "index": 0, "tier": Tier.REALTIME, "at_s": 0.0, "ttft_s": 0.05, "e2e_s": 0.45, "gaps_s": (), "prompt_tokens": 5,
        "output_tokens": 9, "served_tier": "priority", "is_correct": True, "error": None,
    }  # fmt: skip
    return Outcome(**{**fields, **changes})  # type: ignore[arg-type]


def test_failed_requests_count_as_missed_and_as_offered() -> None:
    outcomes = [
        _outcome(),
        _outcome(error="RateLimitError: full", ttft_s=None, e2e_s=None),
        _outcome(ttft_s=0.2),
        _outcome(e2e_s=0.9),
    ]
    row = report_by_tier(outcomes, PROMISES, wall_s=2.0)["realtime"]
    assert (row.offered, row.completed, row.attainment) == (4, 3, 0.25)
    assert row.errors == {"RateLimitError": 1}
    assert row.tokens_per_s == 18


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.99, 4), (0.0, 1), (1.0, 4), (0.25, 1)])
def test_percentile_is_nearest_rank(share: float, expected: float) -> None:
    assert percentile([3, 1, 4, 2], share) == expected
    assert percentile([], share) is None


def test_generated_arrivals_are_seeded_and_paced() -> None:
    assert draw_like(CODE, 50, seed=3) == draw_like(CODE, 50, seed=3) != draw_like(CODE, 50, seed=4)
    arrivals = paced(draw_like(CONVERSATION, 400, seed=1), start_s=0, duration_s=30, rate_per_s=10)
    assert len(arrivals) == 300
    assert 29 < arrivals[-1].at_s <= 30.01
    assert arrivals == sorted(arrivals, key=lambda a: a.at_s)


def test_a_file_that_is_no_trace_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"wrong\.csv is not an Azure LLM trace"):
        read_azure_trace(path)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not in ../shared/data")
def test_the_generator_resembles_the_real_trace() -> None:
    for name, shape in (("conv", CONVERSATION), ("code", CODE)):
        real = read_azure_trace(TRACES / f"azure_llm_2023_{name}.csv")
        drawn = draw_like(shape, 20_000, seed=1)
        for length in ("prompt_tokens", "output_tokens"):
            medians = [percentile([getattr(a, length) for a in arrivals], 0.5) for arrivals in (real, drawn)]
            assert 0.5 < medians[0] / medians[1] < 2.0, (name, length, medians)
        gaps = sorted(b.at_s - a.at_s for a, b in itertools.pairwise(real))[: int(0.995 * len(real))]
        assert 0.5 < sum(gaps) / len(gaps) / shape.gap_s < 2.0
