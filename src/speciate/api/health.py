"""Whether the process lives, whether it can serve, and what it measures. Open to everybody: probes carry no keys."""

from collections.abc import Callable

from speciate.api.call import BytesReply, Call, Reply, Services
from speciate.core.errors import ShuttingDown

METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


async def health(services: Services, call: Call) -> Reply:
    return BytesReply(b'{"status":"ok"}')


async def ready(services: Services, call: Call) -> Reply:
    """503 while models load and while the server drains: a balancer then sends its calls elsewhere."""
    if not services.gateway.is_ready():
        raise ShuttingDown("Not ready: models are loading, or the server is shutting down. Try again shortly.")
    return BytesReply(b'{"status":"ready"}')


class MetricsPage:
    """What the telemetry registry renders, as Prometheus scrapes it."""

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render

    async def answer(self, services: Services, call: Call) -> Reply:
        return BytesReply(self._render(), content_type=METRICS_TYPE)
