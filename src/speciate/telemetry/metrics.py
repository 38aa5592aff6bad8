"""Prometheus metrics. Names, units and buckets are vLLM's (`vllm:*`) where the meaning is the same, so that routers and
dashboards made for it work; what vLLM does not have is `speciate:*`. Labels `tier` and `segment` are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from speciate.core.engine import TokenEngineShape
from speciate.core.output import Finish, FinishReason
from speciate.core.picture import PictureRequest
from speciate.core.replica import ReplicaLoad
from speciate.core.request import EmbedRequest, GenerateRequest
from speciate.core.scheduler import Decision
from speciate.core.segment import Segment, Tier
from speciate.telemetry.export import RequestExporter
from speciate.telemetry.tally import CountFamily, CountTally, HistogramFamily, HistogramTally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TTFT_BUCKETS_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
)
_GAP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_E2E_BUCKETS_S = (0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)
_TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
_STEP_BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
_ITEM_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_LABELS = ("model_name", "tier", "segment")


class Metrics:
    """One registry a process. `render` gives the text that Prometheus scrapes."""

    def __init__(self, exporter: RequestExporter | None = None) -> None:
        """`exporter` is told of every request's end too; the caller closes it."""
        self.exporter = exporter
        self.registry = CollectorRegistry()
        self._histograms = {
            name: HistogramFamily(name, text, _LABELS, bounds, self.registry)
            for name, text, bounds in (
                ("vllm:time_to_first_token_seconds", "Arrival to first token, s.", _TTFT_BUCKETS_S),
                ("vllm:inter_token_latency_seconds", "Between two tokens of a sequence, s.", _GAP_BUCKETS_S),
                ("vllm:e2e_request_latency_seconds", "Arrival to last token, s.", _E2E_BUCKETS_S),
                ("vllm:request_queue_time_seconds", "Arrival to the first step that works on it, s.", _E2E_BUCKETS_S),
                ("vllm:request_prompt_tokens", "Prompt tokens of finished requests.", _TOKEN_BUCKETS),
                ("vllm:request_generation_tokens", "Output tokens of finished requests.", _TOKEN_BUCKETS),
            )
        }
        self._counters = {
            name: CountFamily(name, text, labels, self.registry)
            for name, text, labels in (
                ("vllm:prompt_tokens", "Prompt tokens of finished requests.", _LABELS),
                ("vllm:generation_tokens", "Output tokens of all requests.", _LABELS),
                ("vllm:request_success", "Finished requests.", (*_LABELS, "finished_reason")),
                ("speciate:requests_cancelled", "Requests whose caller left before the end.", _LABELS),
                ("speciate:promises", "Finished requests by whether their SLO was met.", (*_LABELS, "kept")),
                ("speciate:requests_failed", "Requests that ended with an error of the server.", (*_LABELS, "code")),
                ("vllm:admission_rejections", "Requests refused at the door.", _LABELS),
            )
        }
        self.step_seconds = HistogramFamily(
            "speciate:step_seconds", "Duration of a step, s.", ("model_name",), _STEP_BUCKETS_S, self.registry
        )
        self.step_tokens = HistogramFamily(
            "vllm:iteration_tokens_total", "Tokens computed by a step.", ("model_name",), _TOKEN_BUCKETS, self.registry
        )
        self.stage_seconds = HistogramFamily(
            "speciate:image_step_seconds", "Duration of an image step, s.", ("model_name", "stage"), _STEP_BUCKETS_S,
            self.registry,
        )  # fmt: skip
        self.pass_items = HistogramFamily(
            "speciate:image_pass_items", "Pictures that shared a pass.", ("model_name",), _ITEM_BUCKETS, self.registry
        )
        self._cache_config = Gauge(
            "vllm:cache_config_info",
            "Always 1; the KV cache in its labels.",
            ("model_name", "block_size", "num_gpu_blocks"),
            registry=self.registry,
        )
        self._kv_bytes, self._kv_tokens = (
            Gauge(name, text, ("model_name",), registry=self.registry)
            for name, text in (
                ("speciate:kv_cache_bytes", "What all KV blocks take."),
                ("speciate:kv_cache_tokens", "Tokens that they hold."),
            )
        )
        self.build = Gauge("speciate:build_info", "Version of the server.", ("version",), registry=self.registry)

    def histogram(self, name: str, *labels: str) -> HistogramTally:
        return self._histograms[name].labels(*labels)

    def counter(self, name: str, *labels: str) -> CountTally:
        return self._counters[name].labels(*labels)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def refused(self, model: str, request: GenerateRequest, now_s: float) -> None:
        segment = request.segment
        self.counter("vllm:admission_rejections", model, segment.tier, segment.name).inc()
        if self.exporter is not None:
            self.exporter.failed(request, "rate_limit_exceeded", now_s)

    def refused_picture(self, model: str, request: PictureRequest) -> None:
        segment = request.segment
        self.counter("vllm:admission_rejections", model, segment.tier, segment.name).inc()

    def embedded(self, request: EmbedRequest, num_tokens: int, now_s: float) -> None:
        if self.exporter is not None:
            self.exporter.embedded(request, num_tokens, now_s)

    def watch(self, model: str, load: Callable[[], ReplicaLoad], shape: TokenEngineShape) -> None:
        """Read this replica's load whenever someone scrapes."""
        facts = (model, str(shape.block_tokens), str(shape.num_blocks))
        self._cache_config.labels(*facts).set(1)
        self._kv_bytes.labels(model).set(shape.num_blocks * shape.block_bytes)
        self._kv_tokens.labels(model).set(shape.num_blocks * shape.block_tokens)
        self.registry.register(_LoadCollector(model, load))


@dataclass(slots=True)
class _SegmentMetrics:
    """Children bound to one segment's labels: looking them up by label costs more than observing."""

    ttft: HistogramTally
    gap: HistogramTally
    e2e: HistogramTally
    queue: HistogramTally
    prompt: HistogramTally
    output: HistogramTally
    prompt_total: CountTally
    output_total: CountTally
    cancelled: CountTally
    kept: CountTally
    broken: CountTally
    success: dict[FinishReason, CountTally]


class BatchMetrics:
    """What the durable path does: lines published, tried again, given up; and how many wait."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self._lines = Counter(
            "speciate:batch_lines", "Lines of batches published.", ("model_name", "outcome"), registry=registry
        )
        self._retries = Counter(
            "speciate:batch_retries", "Lines that run again because their engine failed.", ("model_name",),
            registry=registry,
        )  # fmt: skip
        self._lost = Counter("speciate:batch_lost_lines", "Lines whose worker died.", registry=registry)
        self._poisoned = Counter("speciate:batch_poison_lines", "Lines given up: workers died.", registry=registry)
        self._depth = Gauge("speciate:batch_queue_depth", "Lines of batches in progress that are open.",
                            registry=registry)  # fmt: skip
        self._jobs = Gauge("speciate:batch_jobs", "Batches in progress.", registry=registry)

    def published(self, model: str, num_completed: int, num_failed: int) -> None:
        self._lines.labels(model, "completed").inc(num_completed)
        self._lines.labels(model, "failed").inc(num_failed)

    def retried(self, model: str) -> None:
        self._retries.labels(model).inc()

    def reaped(self, num_suspects: int, num_poisoned: int) -> None:
        self._lost.inc(num_suspects + num_poisoned)
        self._poisoned.inc(num_poisoned)

    def queued(self, num_jobs: int, num_lines: int) -> None:
        self._jobs.set(num_jobs)
        self._depth.set(num_lines)


class ReplicaMetrics:
    """What one replica observes. Cheap enough for every token (below 1 us)."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._segments: dict[str, _SegmentMetrics] = {}
        self._step_seconds = metrics.step_seconds.labels(model)
        self._step_tokens = metrics.step_tokens.labels(model)

    def observe_step(self, decision: Decision, observed_s: float) -> None:
        self._step_seconds.observe(observed_s)
        if decision.plan is not None:
            self._step_tokens.observe(decision.plan.num_tokens)

    def observe_token(self, request: GenerateRequest, gap_s: float | None, now_s: float) -> None:
        """A token came out, `gap_s` after the one before it (None for the first)."""
        bound = self._bound(request.segment)
        bound.output_total.inc()
        if gap_s is None:
            bound.ttft.observe(now_s - request.arrival_s)
        else:
            bound.gap.observe(gap_s)

    def observe_finish(self, request: GenerateRequest, finish: Finish) -> None:
        bound, line = self._bound(request.segment), finish.timeline
        bound.e2e.observe(line.finished_s - line.arrival_s)
        bound.queue.observe(line.scheduled_s - line.arrival_s)
        bound.prompt.observe(finish.usage.prompt_tokens)
        bound.output.observe(finish.usage.completion_tokens)
        bound.prompt_total.inc(finish.usage.prompt_tokens)
        (bound.kept if is_kept(request.segment, finish) else bound.broken).inc()
        bound.success[finish.reason].inc()
        if self._metrics.exporter is not None:
            self._metrics.exporter.finished(request, finish)

    def observe_cancelled(self, request: GenerateRequest, now_s: float) -> None:
        """Its caller left."""
        self._bound(request.segment).cancelled.inc()
        if self._metrics.exporter is not None:
            self._metrics.exporter.failed(request, "cancelled", now_s)

    def observe_failed(self, request: GenerateRequest, code: str, now_s: float) -> None:
        segment = request.segment
        self._metrics.counter("speciate:requests_failed", self._model, segment.tier, segment.name, code).inc()
        if self._metrics.exporter is not None:
            self._metrics.exporter.failed(request, code, now_s)

    def _bound(self, segment: Segment) -> _SegmentMetrics:
        bound = self._segments.get(segment.name)
        if bound is None:
            bound = self._segments[segment.name] = self._bind(segment)
        return bound

    def _bind(self, segment: Segment) -> _SegmentMetrics:
        labels = (self._model, segment.tier.value, segment.name)
        metrics = self._metrics
        return _SegmentMetrics(
            ttft=metrics.histogram("vllm:time_to_first_token_seconds", *labels),
            gap=metrics.histogram("vllm:inter_token_latency_seconds", *labels),
            e2e=metrics.histogram("vllm:e2e_request_latency_seconds", *labels),
            queue=metrics.histogram("vllm:request_queue_time_seconds", *labels),
            prompt=metrics.histogram("vllm:request_prompt_tokens", *labels),
            output=metrics.histogram("vllm:request_generation_tokens", *labels),
            prompt_total=metrics.counter("vllm:prompt_tokens", *labels),
            output_total=metrics.counter("vllm:generation_tokens", *labels),
            cancelled=metrics.counter("speciate:requests_cancelled", *labels),
            kept=metrics.counter("speciate:promises", *labels, "true"),
            broken=metrics.counter("speciate:promises", *labels, "false"),
            success={r: metrics.counter("vllm:request_success", *labels, r.value) for r in FinishReason},
        )


def is_kept(segment: Segment, finish: Finish) -> bool:
    """Whether a finished request met its segment's promise: TTFT, mean TPOT and E2E, each where one is given."""
    slo, line = segment.slo, finish.timeline
    num_gaps = max(1, finish.usage.completion_tokens - 1)
    return (
        (slo.ttft_s is None or line.first_token_s - line.arrival_s <= slo.ttft_s)
        and (slo.tpot_s is None or (line.finished_s - line.first_token_s) / num_gaps <= slo.tpot_s)
        and (slo.e2e_s is None or line.finished_s - line.arrival_s <= slo.e2e_s)
    )


class _LoadCollector(Collector):
    """Gauges read from a replica's load at scrape time."""

    def __init__(self, model: str, load: Callable[[], ReplicaLoad]) -> None:
        self._model = model
        self._load = load

    def collect(self) -> list[Metric]:
        load = self._load()
        used = 1 - load.free_blocks / max(1, load.total_blocks)
        return [
            self._by_tier("vllm:num_requests_running", "Sequences with KV blocks.", load, lambda t: t.num_running),
            self._by_tier("vllm:num_requests_waiting", "Sequences without.", load, lambda t: t.num_waiting),
            self._by_tier("speciate:backlog_seconds", "Predicted step-seconds of waiting prompts.", load,
                          lambda t: t.backlog_s),
            self._gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0..1.", used),
            self._counter("vllm:prefix_cache_queries", "Prompt tokens looked up.", load.prefix_query_tokens),
            self._counter("vllm:prefix_cache_hits", "Prompt tokens found.", load.prefix_hit_tokens),
            self._counter("vllm:num_preemptions", "Sequences that lost their KV blocks.", load.num_evictions),
            self._counter("speciate:wasted_seconds", "Step-seconds nobody got anything for.", load.wasted_s),
            self._gauge("speciate:step_prediction_error", "Mean relative error of the last 500 predicted steps.",
                        load.prediction_error),
            self._gauge("speciate:step_prediction_margin", "gamma: p95 of observed over predicted.", load.margin),
        ]  # fmt: skip

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["model_name"])
        family.add_metric([self._model], value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=["model_name"])
        family.add_metric([self._model], value)
        return family

    def _by_tier(self, name: str, text: str, load: ReplicaLoad, value: Callable[..., float]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["model_name", "tier"])
        for tier in Tier:
            family.add_metric([self._model, tier.value], value(load.tiers[tier]))
        return family
