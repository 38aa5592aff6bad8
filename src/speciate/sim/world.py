"""A virtual clock and what happens when. Events have a total order: (time, priority, sequence), as in simpy."""

from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush
from math import inf

Action = Callable[[float], None]
"""Called with the time at which it happens."""


class Priority(IntEnum):
    """What goes first at equal times: a step's results, then the outside, then the next decision."""

    STEP_ENDS = 0
    FAULT = 1
    ARRIVAL = 2
    PLAN = 3


class World:
    """Owns the time. Equal calls give equal runs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.num_events = 0
        self._events: list[tuple[float, int, int, Action]] = []
        self._num_posted = 0
        self._until_s = inf

    def at(self, time_s: float, priority: Priority, action: Action) -> None:
        """Let `action` happen at `time_s`, or now if that has passed."""
        self._num_posted += 1
        heappush(self._events, (max(time_s, self.now_s), priority, self._num_posted, action))

    def soon(self, time_s: float, priority: Priority, action: Action) -> None:
        """The same, without the detour over the queue where nothing else can happen before."""
        if self.now_s <= time_s < self.next_s():
            self.now_s = time_s
            self.num_events += 1
            action(time_s)
        else:
            self.at(time_s, priority, action)

    def next_s(self) -> float:
        """Before this nothing happens that is not posted yet: the next event, or the end of the run."""
        return min(self._events[0][0], self._until_s) if self._events else self._until_s

    def run(self, until_s: float = inf) -> None:
        """Until nothing is left, or the next event is later than `until_s`: then that is the time."""
        events = self._events
        self._until_s = until_s
        while events and events[0][0] <= until_s:
            self.now_s, _, _, action = heappop(events)
            self.num_events += 1
            action(self.now_s)
        if events:
            self.now_s = until_s
