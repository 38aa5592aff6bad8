"""What a collector gets: names, attributes, values and times, over OTLP/HTTP to a receiver of our own."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from speciate.core.output import Finish, FinishReason, Timeline, Usage
from speciate.core.request import EmbedRequest, GenerateRequest, SamplingParams, StopRules
from speciate.core.segment import Segment, Slo, Tier
from speciate.runtime.clock import MonotonicClock
from speciate.telemetry.export import OtelOptions
from speciate.telemetry.otel import otlp_exporter

VOICE = Segment("text-realtime", Tier.REALTIME, Slo(ttft_s=0.1))
REQUEST = GenerateRequest(
    "chatcmpl-1-0", "pocket", (1, 2, 3), VOICE, 10.0, SamplingParams(temperature=0.0, seed=7), StopRules(max_tokens=50),
    trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)  # fmt: skip
FINISH = Finish(FinishReason.STOP, Usage(3, 11, 2), Timeline(10.0, 10.02, 10.05, 11.05, 1), Tier.REALTIME)


class Collector:
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Message]] = []
        kinds = {"/v1/metrics": ExportMetricsServiceRequest, "/v1/traces": ExportTraceServiceRequest}
        received = self.received

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append((self.path, kinds[self.path].FromString(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def metrics(self) -> dict[str, Any]:
        return {
            metric.name: metric
            for path, message in self.received
            if path == "/v1/metrics"
            for resource in message.resource_metrics  # type: ignore[attr-defined]
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def spans(self) -> list[Any]:
        return [
            span
            for path, message in self.received
            if path == "/v1/traces"
            for resource in message.resource_spans  # type: ignore[attr-defined]
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def attributes(point: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in point.attributes}


def test_a_finished_request_is_told_under_the_conventions_names(collector: Collector) -> None:
    exporter = otlp_exporter(OtelOptions(collector.url), MonotonicClock())
    exporter.finished(REQUEST, FINISH)
    exporter.close()
    metrics = collector.metrics()
    sums = {name: metric.histogram.data_points[0].sum for name, metric in metrics.items()}
    assert sums["gen_ai.server.request.duration"] == pytest.approx(1.05)
    assert sums["gen_ai.server.time_to_first_token"] == pytest.approx(0.05)
    assert sums["gen_ai.server.time_per_output_token"] == pytest.approx(0.1)
    usage = {
        attributes(p)["gen_ai.token.type"]: p.sum for p in metrics["gen_ai.client.token.usage"].histogram.data_points
    }
    assert usage == {"input": 3, "output": 11}
    assert attributes(metrics["gen_ai.server.time_to_first_token"].histogram.data_points[0]) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "speciate",
        "gen_ai.request.model": "pocket",
        "gen_ai.response.model": "pocket",
        "tier": "realtime",
        "segment": "text-realtime",
    }
    assert metrics["gen_ai.server.time_to_first_token"].unit == "s"
    assert list(metrics["gen_ai.server.time_to_first_token"].histogram.data_points[0].explicit_bounds)[:3] == [
        0.001, 0.005, 0.01,
    ]  # fmt: skip


def test_a_span_has_the_requests_own_times_and_its_callers_trace(collector: Collector) -> None:
    exporter = otlp_exporter(OtelOptions(collector.url), MonotonicClock())
    exporter.finished(REQUEST, FINISH)
    exporter.close()
    (span,) = collector.spans()
    assert span.name == "chat pocket"
    assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 == pytest.approx(1.05)
    moments = {e.name: (e.time_unix_nano - span.start_time_unix_nano) / 1e9 for e in span.events}
    assert moments == {"scheduled": pytest.approx(0.02, abs=1e-5), "first token": pytest.approx(0.05, abs=1e-5)}
    facts = attributes(span)
    assert facts["gen_ai.usage.output_tokens"] == 11
    assert facts["gen_ai.request.seed"] == 7
    assert [v.string_value for v in facts["gen_ai.response.finish_reasons"].values] == ["stop"]


def test_failures_have_their_code_and_no_token_times(collector: Collector) -> None:
    exporter = otlp_exporter(OtelOptions(collector.url), MonotonicClock())
    exporter.failed(REQUEST, "deadline_exceeded", 12.0)
    exporter.close()
    (point,) = collector.metrics()["gen_ai.server.request.duration"].histogram.data_points
    assert attributes(point)["error.type"] == "deadline_exceeded"
    assert point.sum == pytest.approx(2.0)
    assert set(collector.metrics()) == {"gen_ai.server.request.duration"}
    assert collector.spans()[0].status.code == 2


def test_embeddings_are_metrics_without_spans(collector: Collector) -> None:
    exporter = otlp_exporter(OtelOptions(collector.url), MonotonicClock())
    exporter.embedded(EmbedRequest("emb-1", "enc", ((1, 2),), VOICE, 10.0), 2, 10.5)
    exporter.close()
    (point,) = collector.metrics()["gen_ai.client.token.usage"].histogram.data_points
    assert (point.sum, attributes(point)["gen_ai.operation.name"]) == (2, "embeddings")
    assert collector.spans() == []


def test_without_spans_only_metrics_are_sent(collector: Collector) -> None:
    exporter = otlp_exporter(OtelOptions(collector.url, spans=False), MonotonicClock())
    exporter.finished(REQUEST, FINISH)
    exporter.close()
    assert {path for path, _ in collector.received} == {"/v1/metrics"}
