"""What replicas of image models observe. Names and labels are those of the other metrics where they mean the same."""

from speciate.core.denoise import Stage
from speciate.core.picture import PictureFinish, PictureRequest
from speciate.telemetry.metrics import Metrics
from speciate.telemetry.tally import HistogramTally


class PictureMetrics:
    """Of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._stages: dict[Stage, HistogramTally] = {
            stage: metrics.stage_seconds.labels(model, stage.value) for stage in Stage
        }
        self._items = metrics.pass_items.labels(model)

    def observe_step(self, stage: Stage, num_items: int, observed_s: float) -> None:
        self._stages[stage].observe(observed_s)
        if stage is Stage.PASS:
            self._items.observe(num_items)

    def observe_finish(self, request: PictureRequest, finish: PictureFinish) -> None:
        line, labels = finish.timeline, self._labels(request)
        took_s = line.finished_s - line.arrival_s
        self._metrics.histogram("vllm:e2e_request_latency_seconds", *labels).observe(took_s)
        self._metrics.histogram("vllm:request_queue_time_seconds", *labels).observe(line.scheduled_s - line.arrival_s)
        self._metrics.counter("vllm:request_success", *labels, "stop").inc()
        promised_s = request.segment.slo.e2e_s
        is_kept = promised_s is None or took_s <= promised_s
        self._metrics.counter("speciate:promises", *labels, "true" if is_kept else "false").inc()

    def observe_cancelled(self, request: PictureRequest) -> None:
        """Its caller left."""
        self._metrics.counter("speciate:requests_cancelled", *self._labels(request)).inc()

    def observe_failed(self, request: PictureRequest, code: str) -> None:
        self._metrics.counter("speciate:requests_failed", *self._labels(request), code).inc()

    def _labels(self, request: PictureRequest) -> tuple[str, str, str]:
        return (self._model, request.segment.tier.value, request.segment.name)
