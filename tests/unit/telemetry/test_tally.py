"""The cheap metrics are exposed exactly as the library's own are."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from speciate.telemetry.tally import CountFamily, HistogramFamily

BOUNDS = (0.001, 0.5, 1, 2.5, 100)


def exposed(registry: CollectorRegistry) -> list[str]:
    """Without the library's `_created` stamps."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(values=st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 200)), max_size=30))
def test_a_histogram_reads_as_the_librarys(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    cheap = HistogramFamily("vllm:x_seconds", "Help.", ("tier", "model"), BOUNDS, ours).labels("batch", "m")
    known = Histogram("vllm:x_seconds", "Help.", ("tier", "model"), buckets=BOUNDS, registry=theirs).labels(
        "batch", "m"
    )
    for value in values:
        cheap.observe(value)
        known.observe(value)
    assert exposed(ours) == exposed(theirs)


@given(amounts=st.lists(st.integers(0, 10**6), max_size=10))
def test_a_counter_reads_as_the_librarys(amounts: list[int]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    cheap = CountFamily("vllm:tokens", "Help.", ("tier",), ours).labels("batch")
    known = Counter("vllm:tokens", "Help.", ("tier",), registry=theirs).labels("batch")
    for amount in amounts:
        cheap.inc(amount)
        known.inc(amount)
    assert exposed(ours) == exposed(theirs)


def test_equal_labels_share_a_child() -> None:
    family = CountFamily("vllm:tokens", "Help.", ("tier",), CollectorRegistry())
    family.labels("a").inc()
    family.labels("a").inc()
    assert family.labels("a").value == 2
