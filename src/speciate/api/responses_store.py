"""Responses that can be asked for again. In memory and bounded: the oldest finished ones leave first."""

from collections import OrderedDict

from speciate.api.responses_run import ResponseRun
from speciate.core.errors import NotFound


class ResponseStore:
    """Keyed by tenant and id: nobody sees another tenant's responses."""

    def __init__(self, max_responses: int, max_bytes: int) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._runs: OrderedDict[str, ResponseRun] = OrderedDict()
        self._num_bytes = 0

    def add(self, run: ResponseRun) -> None:
        """Keep it; makes room by forgetting the oldest that are over. Running ones stay."""
        self._runs[run.response.id] = run
        self._num_bytes += run.num_bytes
        while self._is_over_limit() and self._forget_oldest(run):
            pass

    def find(self, tenant: str, response_id: str) -> ResponseRun:
        """Raises NotFound."""
        run = self._runs.get(response_id)
        if run is None or run.tenant != tenant:
            raise NotFound(
                f"There is no response {response_id!r}. It was never stored, deleted, or has made room for others.",
                param="response_id",
            )
        return run

    def remove(self, run: ResponseRun) -> None:
        if self._runs.pop(run.response.id, None) is not None:
            self._num_bytes -= run.num_bytes

    def runs(self) -> tuple[ResponseRun, ...]:
        return tuple(self._runs.values())

    def _is_over_limit(self) -> bool:
        return len(self._runs) > self._max_responses or self._num_bytes > self._max_bytes

    def _forget_oldest(self, newest: ResponseRun) -> bool:
        over = next((run for run in self._runs.values() if run.is_over and run is not newest), None)
        if over is not None:
            self.remove(over)
        return over is not None
