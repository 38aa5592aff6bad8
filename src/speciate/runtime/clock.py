"""The real clock. Decisions never see it: drivers read it and pass `now_s` on."""

import time


class MonotonicClock:
    """Seconds since some fixed moment of this process; never goes back."""

    def now_s(self) -> float:
        return time.monotonic()
