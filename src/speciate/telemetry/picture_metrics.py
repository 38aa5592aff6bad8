"""What a painter tells: implements its `PaintWatch`. Names and labels are other metrics' where they mean the same."""

from speciate.core.denoise import DenoisePlan, Stage
from speciate.core.errors import SpeciateError
from speciate.core.picture import PictureFinish, PictureRequest
from speciate.telemetry.metrics import Metrics


class PictureMetrics:
    """Of all image models of a device."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def stepped(self, plan: DenoisePlan, observed_s: float) -> None:
        self._metrics.stage_seconds.labels(plan.model, plan.stage.value).observe(observed_s)
        if plan.stage is Stage.PASS:
            self._metrics.pass_items.labels(plan.model).observe(len(plan.items))

    def ended(self, request: PictureRequest, end: PictureFinish | SpeciateError) -> None:
        labels = _labels(request)
        if isinstance(end, SpeciateError):
            self._metrics.counter("speciate:requests_failed", *labels, end.code).inc()
            return
        line, promised_s = end.timeline, request.segment.slo.e2e_s
        took_s = line.finished_s - line.arrival_s
        self._metrics.histogram("vllm:e2e_request_latency_seconds", *labels).observe(took_s)
        self._metrics.histogram("vllm:request_queue_time_seconds", *labels).observe(line.scheduled_s - line.arrival_s)
        self._metrics.counter("vllm:request_success", *labels, "stop").inc()
        is_kept = promised_s is None or took_s <= promised_s
        self._metrics.counter("speciate:promises", *labels, "true" if is_kept else "false").inc()

    def left(self, request: PictureRequest) -> None:
        """Its caller left."""
        self._metrics.counter("speciate:requests_cancelled", *_labels(request)).inc()


def _labels(request: PictureRequest) -> tuple[str, str, str]:
    return (request.model, request.segment.tier.value, request.segment.name)
