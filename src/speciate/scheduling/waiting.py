"""The sequences that hold no blocks: per tier, in order, counted. Knows nothing of memory or steps."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from speciate.core.errors import InvariantError
from speciate.scheduling.order import FairQueue, Key
from speciate.scheduling.sequence import Phase, Sequence
from speciate.scheduling.tenants import Tenants

BUCKET_TTFT = 0.2
"""Share of a TTFT inside which the least served tenant may go first."""
LATE_BUCKET_TTFT = 0.5
"""The same, counted from now, once the first of the queue is late anyway: all that are late are equal."""
BUCKET_WINDOW = 0.25
MAX_BUCKET_S = 6 * 3600.0
"""Batch work is not urgent while more than a quarter of its window, at most 6 h, is left: so far fairness reaches."""


class TierQueue:
    """One tier's waiting sequences, kept in one order or in several at once (one per load level)."""

    def __init__(self, keys: tuple[Key, ...], tenants: Tenants) -> None:
        self._queues = tuple(FairQueue(key, tenants) for key in keys)
        self.num_waiting = 0
        self.num_tokens = 0
        """Tokens to compute, cached prefixes not subtracted."""

    def add(self, seq: Sequence) -> None:
        self.num_waiting += 1
        self.num_tokens += seq.num_tokens
        for queue in self._queues:
            queue.push(seq)
            queue.compact(self.num_waiting)

    def remove(self, seq: Sequence) -> None:
        """It starts, or leaves for good. Queue entries go void by its stamp."""
        self.num_waiting -= 1
        self.num_tokens -= seq.num_tokens
        seq.stamp += 1

    def order(self, level: int) -> FairQueue:
        return self._queues[level]

    def check(self, waiting: list[Sequence]) -> None:
        """Raise InvariantError unless exactly these wait, and every order can find each of them."""
        if (len(waiting), sum(seq.num_tokens for seq in waiting)) != (self.num_waiting, self.num_tokens):
            raise InvariantError(f"{len(waiting)} sequences wait, {self.num_waiting} are counted")
        for queue in self._queues:
            queue.check(waiting)


class Candidates:
    """Merges started prompts with the queue, in key order, for one step. `close` puts back what was only looked at."""

    def __init__(self, started: list[Sequence], key: Key, queue: FairQueue, bucket_s: Callable[[Sequence], float]):
        self._key = key
        self._started = sorted(started, key=lambda seq: (self._place(seq), seq.order), reverse=True)
        self._queue = queue
        self._bucket_s = bucket_s
        self._looked_at: list[tuple[Sequence, int]] = []
        self._next: Sequence | None = None
        self._first: list[Sequence] = []
        self._is_open = True

    def next(self) -> Sequence | None:
        while self._first:
            seq = self._first.pop()
            if self._is_open or seq.phase is not Phase.WAITING:
                return seq
        waiting = self._peek() if self._is_open else None
        if self._started and (waiting is None or self._place(self._started[-1]) <= self._place(waiting)):
            return self._started.pop()
        self._next = None
        return waiting

    def put_back(self, sequences: list[Sequence]) -> None:
        """These came from `next` and are next again, in this order."""
        self._first = sequences[::-1]

    def skip_waiting(self) -> None:
        """Only started prompts from here on: the first of the queue has no room, and nobody overtakes it."""
        self._is_open = False

    def close(self) -> None:
        for seq, stamp in self._looked_at:
            if seq.stamp == stamp:
                self._queue.push(seq)
        self._looked_at.clear()

    def _place(self, seq: Sequence) -> float:
        return min(seq.place_s, self._key(seq))

    def _peek(self) -> Sequence | None:
        if self._next is None:
            self._next = self._queue.pop(self._bucket_s)
            if self._next is not None:
                self._looked_at.append((self._next, self._next.stamp))
        return self._next


class Deadlines:
    """Who is dropped when; entries of sequences that ended are skipped."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Sequence]] = []

    def add(self, seq: Sequence, num_live: int) -> None:
        if seq.work.deadline_s is None:
            return
        heappush(self._heap, (seq.work.deadline_s, seq.order, seq))
        if len(self._heap) > 2 * num_live + 64:
            self._heap = [entry for entry in self._heap if entry[2].phase is not Phase.GONE]
            heapify(self._heap)

    def next_s(self) -> float | None:
        while self._heap and self._heap[0][2].phase is Phase.GONE:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_s: float) -> Sequence | None:
        due_s = self.next_s()
        return heappop(self._heap)[2] if due_s is not None and due_s <= now_s else None


def prompt_bucket_s(now_s: float) -> Callable[[Sequence], float]:
    """How far from the first one's key fairness may reach, for work with a TTFT."""

    def bucket_s(first: Sequence) -> float:
        if first.deadline_s == float("inf"):
            return 0.0
        late_s = now_s - first.deadline_s
        return BUCKET_TTFT * first.ttft_s if late_s < 0 else late_s + LATE_BUCKET_TTFT * first.ttft_s

    return bucket_s


def batch_horizon_s(seq: Sequence) -> float:
    """H: with less than this left, batch work begins to be urgent."""
    return min(BUCKET_WINDOW * (seq.due_s - seq.work.arrival_s), MAX_BUCKET_S)


def batch_bucket_s(now_s: float) -> Callable[[Sequence], float]:
    """Fairness reaches as far as the first one can spare."""

    def bucket_s(first: Sequence) -> float:
        horizon_s = batch_horizon_s(first)
        return horizon_s if first.due_s - now_s > 2 * horizon_s else 0.0

    return bucket_s
