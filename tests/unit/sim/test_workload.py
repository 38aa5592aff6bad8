"""Streams of requests: seeded, in order, lazy; traces in three formats."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from speciate.core.errors import ConfigError
from speciate.core.segment import Tier
from speciate.sim.replica import prompt_of
from speciate.sim.traces import read_trace
from speciate.sim.workload import (
    CONVERSATION,
    SessionShape,
    SimRequest,
    Span,
    again,
    backlog,
    diurnal,
    faster,
    gamma_bursts,
    generate,
    make_request,
    merged,
    poisson,
    sessions,
    square_wave,
    uniform,
)

AZURE = Path("../shared/data/azure_llm_2023_conv.csv")


def arrivals(gaps: object, seed: int = 1, duration_s: float = 2000.0) -> list[SimRequest]:
    return list(generate(Tier.INTERACTIVE, gaps, CONVERSATION, duration_s=duration_s, seed=seed))  # type: ignore[arg-type]


def test_equal_seeds_give_equal_streams_and_others_do_not() -> None:
    assert arrivals(poisson(3.0), 1) == arrivals(poisson(3.0), 1)
    assert arrivals(poisson(3.0), 1) != arrivals(poisson(3.0), 2)


@pytest.mark.parametrize(
    ("gaps", "rate_per_s", "cv"),
    [(poisson(3.0), 3.0, 1.0), (gamma_bursts(3.0, 3.0), 3.0, 3.0), (gamma_bursts(3.0, 0.5), 3.0, 0.5)],
)
def test_arrivals_have_the_rate_and_the_spread_asked_for(gaps: object, rate_per_s: float, cv: float) -> None:
    times = [request.at_s for request in arrivals(gaps, duration_s=3000.0)]
    between = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) / 3000 == pytest.approx(rate_per_s, rel=0.08)
    assert pstdev(between) / fmean(between) == pytest.approx(cv, rel=0.12)


def test_a_square_wave_is_slow_then_fast() -> None:
    times = [request.at_s % 60 for request in arrivals(square_wave(1.0, 3.0, 60.0))]
    slow = sum(at < 30 for at in times)
    assert (len(times) - slow) / slow == pytest.approx(3.0, rel=0.15)


def test_a_day_is_lowest_at_its_start() -> None:
    times = [request.at_s for request in arrivals(diurnal(1.0, 5.0, period_s=2000.0))]
    assert sum(500 < at < 1500 for at in times) > 1.5 * sum(not 500 < at < 1500 for at in times)


def test_limits_do_not_give_lengths_away() -> None:
    limits = {make_request(0.0, Tier.BATCH, 10, output).max_tokens for output in range(129, 257)}
    assert limits == {512}


def test_streams_merge_in_order_and_a_factor_only_changes_the_pace() -> None:
    streams = [generate(tier, poisson(1.0), uniform((1, 9), (1, 9)), duration_s=50, seed=3) for tier in Tier]
    both = list(merged(*streams, backlog(Tier.BATCH, 5, CONVERSATION, 1)))
    assert [request.at_s for request in both] == sorted(request.at_s for request in both)
    quick = list(faster(both, 2.0))
    assert [(r.at_s * 2, r.prompt_tokens) for r in quick] == [(r.at_s, r.prompt_tokens) for r in both]


def test_a_stream_repeats_end_to_end_without_being_held() -> None:
    def ten() -> Iterator[SimRequest]:
        return (make_request(float(at), Tier.BATCH, 1, 1) for at in range(10))

    times = [request.at_s for request in again(ten, 10.0, 3)]
    assert times == [float(at) for at in range(30)]


def test_a_session_says_again_what_was_said() -> None:
    shape = SessionShape(turns=4, think_s=5.0, system_tokens=32, context_tokens=2000)
    stream = sessions(Tier.INTERACTIVE, poisson(0.2), uniform((5, 20), (5, 20)), shape, duration_s=300, seed=1)
    requests = list(stream)
    assert [r.at_s for r in requests] == sorted(r.at_s for r in requests)
    of_one = [r for r in requests if r.tenant == requests[0].tenant]
    assert len(of_one) > 1
    for before, after in itertools.pairwise(of_one):
        said = prompt_of(1, before)
        assert prompt_of(2, after)[: len(said)] == said
        assert after.prompt_tokens == len(prompt_of(2, after)) > before.prompt_tokens


def test_prompts_without_spans_share_nothing() -> None:
    request = make_request(0.0, Tier.BATCH, 40, 4)
    assert prompt_of(1, request)[0] != prompt_of(2, request)[0]
    assert len(prompt_of(1, request)) == 40


def test_formats_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "azure.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.6805900,396,109\n"
    )
    (tmp_path / "mooncake.jsonl").write_text(
        '{"timestamp": 500, "input_length": 600, "output_length": 7, "hash_ids": [3, 9]}\n'
    )
    (tmp_path / "plain.csv").write_text("at_s,prompt_tokens,output_tokens,tier,tenant\n0,5,6,realtime,me\n1,7,8,,\n")
    azure = list(read_trace(tmp_path / "azure.csv", Tier.BATCH))
    assert [(r.at_s, r.prompt_tokens, r.output_tokens, r.tier) for r in azure] == [
        (0.0, 374, 44, Tier.BATCH),
        (4.0, 396, 109, Tier.BATCH),
    ]
    (mooncake,) = read_trace(tmp_path / "mooncake.jsonl", Tier.INTERACTIVE)
    assert (mooncake.at_s, mooncake.output_tokens) == (0.5, 7)
    assert mooncake.spans == (Span((1 << 40) + 3, 512), Span((1 << 40) + 9, 88))
    plain = list(read_trace(tmp_path / "plain.csv", Tier.INTERACTIVE))
    assert [(r.tier, r.tenant) for r in plain] == [(Tier.REALTIME, "me"), (Tier.INTERACTIVE, "default")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "not a plain trace"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374\n", "not a azure trace"),
        ("at_s,prompt_tokens,output_tokens\n5,1,1\n4,1,1\n", "sort it"),
    ],
)
def test_a_trace_that_is_none_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ConfigError, match=says):
        list(read_trace(tmp_path / "bad.csv", Tier.BATCH))


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv"):
        list(read_trace(tmp_path / "none.csv", Tier.BATCH))


@pytest.mark.skipif(not AZURE.exists(), reason="the Azure trace is not in ../shared/data")
def test_the_azure_trace_is_read_row_by_row() -> None:
    head = list(itertools.islice(read_trace(AZURE, Tier.INTERACTIVE), 100))
    assert (head[0].at_s, head[0].prompt_tokens, head[0].output_tokens) == (0.0, 374, 44)
    assert head[-1].at_s > head[1].at_s > 0
