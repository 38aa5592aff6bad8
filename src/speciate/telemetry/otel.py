"""OpenTelemetry: requests under the names of the GenAI semantic conventions (`gen_ai.*`), with `tier` and `segment`.

The one file that knows the SDK (extra `otel`). What is recorded is aggregated and sent by the SDK's own threads.
"""

import time

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from speciate import __version__
from speciate.core.output import Finish
from speciate.core.ports import Clock
from speciate.core.request import EmbedRequest, GenerateRequest
from speciate.telemetry.export import OtelOptions

Attributes = dict[str, str | int | float | tuple[str, ...]]

DURATION_BUCKETS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TTFT_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TPOT_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))
"""Boundaries that the conventions advise."""


def otlp_exporter(options: OtelOptions, clock: Clock) -> "OtelExporter":
    """Sends to a collector over HTTP; one that does not answer costs nothing but the SDK's log lines."""
    url = options.endpoint.rstrip("/")
    metrics = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=f"{url}/v1/metrics"), export_interval_millis=1000 * options.interval_s
    )
    spans = BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")) if options.spans else None
    return OtelExporter(metrics, spans, options.service_name, clock)


class OtelExporter:
    """Implements `RequestExporter`. Owns the SDK's providers: `close` flushes and ends them."""

    def __init__(self, reader: MetricReader, spans: SpanProcessor | None, service_name: str, clock: Clock) -> None:
        resource = Resource.create({"service.name": service_name, "service.version": __version__})
        self._meters = MeterProvider([reader], resource, shutdown_on_exit=False)
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        if spans is not None:
            self._tracers.add_span_processor(spans)
        self._tracer = self._tracers.get_tracer("speciate", __version__) if spans is not None else None
        self._propagator = TraceContextTextMapPropagator()
        self._epoch_s = time.time() - clock.now_s()
        """Of the replica's clock, in Unix seconds."""
        self._duration = self._histogram("gen_ai.server.request.duration", "s", DURATION_BUCKETS_S)
        self._ttft = self._histogram("gen_ai.server.time_to_first_token", "s", TTFT_BUCKETS_S)
        self._tpot = self._histogram("gen_ai.server.time_per_output_token", "s", TPOT_BUCKETS_S)
        self._tokens = self._histogram("gen_ai.client.token.usage", "{token}", TOKEN_BUCKETS)

    def finished(self, request: GenerateRequest, finish: Finish) -> None:
        line, usage = finish.timeline, finish.usage
        labels = _labels(request, request.operation) | {"tier": finish.tier.value}
        self._duration.record(line.finished_s - line.arrival_s, labels)
        self._ttft.record(line.first_token_s - line.arrival_s, labels)
        if usage.completion_tokens > 1:
            self._tpot.record((line.finished_s - line.first_token_s) / (usage.completion_tokens - 1), labels)
        self._count_tokens(labels, input=usage.prompt_tokens, output=usage.completion_tokens)
        facts: Attributes = {
            "gen_ai.response.finish_reasons": (finish.reason.value,),
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "speciate.evictions": line.num_evictions,
        }
        moments = {"scheduled": line.scheduled_s, "first token": line.first_token_s}
        self._span(request, labels | facts | _sampling(request), line.finished_s, moments)

    def failed(self, request: GenerateRequest, code: str, now_s: float) -> None:
        labels = _labels(request, request.operation) | {"error.type": code}
        self._duration.record(now_s - request.arrival_s, labels)
        self._span(request, labels | _sampling(request), now_s, {})

    def embedded(self, request: EmbedRequest, num_tokens: int, now_s: float) -> None:
        labels = _labels(request, "embeddings")
        self._duration.record(now_s - request.arrival_s, labels)
        self._count_tokens(labels, input=num_tokens)

    def close(self) -> None:
        self._meters.shutdown()
        self._tracers.shutdown()

    def _histogram(self, name: str, unit: str, buckets: tuple[float, ...]) -> Histogram:
        return self._meters.get_meter("speciate", __version__).create_histogram(
            name, unit, explicit_bucket_boundaries_advisory=buckets
        )

    def _count_tokens(self, labels: Attributes, **counts: int) -> None:
        for kind, count in counts.items():
            self._tokens.record(count, labels | {"gen_ai.token.type": kind})

    def _span(self, request: GenerateRequest, facts: Attributes, end_s: float, moments: dict[str, float]) -> None:
        """Written afterwards, with the times that the request really had."""
        if self._tracer is None:
            return
        carrier = {} if request.trace_parent is None else {"traceparent": request.trace_parent}
        span = self._tracer.start_span(
            f"{request.operation} {request.model}",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            facts | {"gen_ai.response.id": request.request_id},
            start_time=self._unix_ns(request.arrival_s),
        )
        for name, at_s in moments.items():
            span.add_event(name, timestamp=self._unix_ns(at_s))
        if "error.type" in facts:
            span.set_status(Status(StatusCode.ERROR, str(facts["error.type"])))
        span.end(self._unix_ns(end_s))

    def _unix_ns(self, at_s: float) -> int:
        return int((at_s + self._epoch_s) * 1e9)


def _labels(request: GenerateRequest | EmbedRequest, operation: str) -> Attributes:
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "speciate",
        "gen_ai.request.model": request.model,
        "gen_ai.response.model": request.model,
        "tier": request.segment.tier.value,
        "segment": request.segment.name,
    }


def _sampling(request: GenerateRequest) -> Attributes:
    facts: Attributes = {
        "gen_ai.request.max_tokens": request.stopping.max_tokens,
        "gen_ai.request.temperature": request.sampling.temperature,
        "gen_ai.request.top_p": request.sampling.top_p,
    }
    return facts if request.sampling.seed is None else facts | {"gen_ai.request.seed": request.sampling.seed}
