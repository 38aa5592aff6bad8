"""Wall-clock seconds that never go back while the process lives, whatever is done to the machine's clock."""

import time
from collections.abc import Callable


class WallClock:
    """Follows the machine's clock forward; when that is set back, goes on from where it was. Implements `Clock`."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._wall_s, self._monotonic_s = wall(), monotonic()

    def now_s(self) -> float:
        monotonic_s = self._monotonic()
        self._wall_s = max(self._wall(), self._wall_s + monotonic_s - self._monotonic_s)
        self._monotonic_s = monotonic_s
        return self._wall_s
