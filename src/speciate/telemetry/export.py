"""Where the ends of requests are told beside Prometheus. Knows no exporter; `otel.py` is one."""

from typing import Protocol

from msgspec import Struct

from speciate.core.output import Finish
from speciate.core.request import EmbedRequest, GenerateRequest


class OtelOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """OpenTelemetry over OTLP/HTTP (extra `otel`). A collector's keys come from OTEL_EXPORTER_OTLP_HEADERS."""

    endpoint: str
    """For example http://127.0.0.1:4318; /v1/metrics and /v1/traces are added."""
    interval_s: float = 15.0
    """Between two exports of metrics."""
    spans: bool = True
    """One span a request, the child of the caller's where it sends `traceparent`."""
    service_name: str = "speciate"


class RequestExporter(Protocol):
    """Called on the event loop when a request is over: must return within microseconds and never raise."""

    def finished(self, request: GenerateRequest, finish: Finish) -> None: ...

    def failed(self, request: GenerateRequest, code: str, now_s: float) -> None:
        """Refused, broken, late, or left by its caller; `code` says which."""
        ...

    def embedded(self, request: EmbedRequest, num_tokens: int, now_s: float) -> None: ...

    def close(self) -> None:
        """Send what is left. May take seconds; runs off the event loop."""
        ...
