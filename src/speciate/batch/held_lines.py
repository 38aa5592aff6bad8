"""The lines that a worker holds: claimed, running, or done and not yet written. Stops the runs of those that nobody
waits for, and of those that are handed back.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Collection, Iterable, Iterator
from math import inf

from speciate.batch.line_job import Leased, Place, place_of
from speciate.batch.line_times import LineTimes
from speciate.batch.lines import LineAnswer
from speciate.batch.records import Claim, JobFacts
from speciate.scaling.notice import RunningLine


class HeldLines:
    """Mirror verbs: `add` when claimed, `let_go` when written or given back."""

    def __init__(self) -> None:
        self._held: dict[Place, Leased] = {}
        self._scopes: dict[Place, asyncio.Timeout] = {}
        self.in_flight: Counter[int] = Counter()
        """Lines by batch."""
        self.times = LineTimes()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Leased]:
        return iter(self._held.values())

    def add(self, claim: Claim, job: JobFacts) -> Leased:
        leased = self._held[place_of(claim)] = Leased(claim, job)
        self.in_flight[claim.batch_key] += 1
        return leased

    def let_go(self, places: Iterable[Place]) -> None:
        for place in places:
            if self._held.pop(place, None) is not None:
                self.in_flight[place[0]] -= 1

    async def within(self, leased: Leased, run: Awaitable[LineAnswer]) -> LineAnswer | None:
        """What `run` gives; None when it was stopped."""
        place = place_of(leased.claim)
        try:
            async with asyncio.timeout(None) as scope:
                self._scopes[place] = scope
                return await run
        except TimeoutError:
            if not scope.expired():
                raise
            return None
        finally:
            self._scopes.pop(place, None)

    def stop_batch(self, batch_key: int) -> None:
        """The batch is over: nobody waits for its lines."""
        self._stop(place for place in self._scopes if place[0] == batch_key)

    def running(self) -> list[RunningLine]:
        """All that is neither done nor on its way back."""
        now_s = time.monotonic()
        return [self._running_line(leased, now_s) for leased in self if not (leased.is_over or leased.is_handed_back)]

    def hand_back(self, line_ids: Collection[str]) -> list[Leased]:
        """Stop their runs; gives those that have not begun."""
        chosen = [leased for leased in self if _line_id(leased) in line_ids]
        for leased in chosen:
            leased.is_handed_back = True
        self._stop(place_of(leased.claim) for leased in chosen)
        return [leased for leased in chosen if leased.started_s is None]

    def _running_line(self, leased: Leased, now_s: float) -> RunningLine:
        """One that has not begun is not waited for. None can resume: a run that stops starts over elsewhere."""
        if leased.started_s is None:
            return RunningLine(_line_id(leased), inf, 0.0, can_resume=False)
        done_s = now_s - leased.started_s
        return RunningLine(_line_id(leased), self.times.left_s(leased.job.model, done_s), done_s, can_resume=False)

    def _stop(self, places: Iterable[Place]) -> None:
        now_s = asyncio.get_running_loop().time()
        scopes = [self._scopes[place] for place in places if place in self._scopes]
        for scope in scopes:
            if not scope.expired():
                scope.reschedule(now_s)


def _line_id(leased: Leased) -> str:
    return "-".join(map(str, place_of(leased.claim)))
