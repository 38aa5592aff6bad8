"""What clients see of their requests, token by token, and the counts that come of it. Memory does not grow with the
number of requests.

A request keeps its promise if its first token, its last token and its pace do; the pace is judged by three rules:

    deadline   at most 1 % of its tokens later than promised: d(n+1) = min(t(1) + n TPOT, t(n) + (1 + beta) TPOT)
    gap        at most 1 % of its gaps longer than TPOT, which is: the p99 gap is within TPOT
    mean       mean time an output token within TPOT

Refused, expired and unfinished requests broke their promise. Clients that left, and requests whose promise was neither
kept nor broken when the run ended, are not judged.
"""

from collections import Counter
from dataclasses import dataclass, field
from math import exp, inf, log

from speciate.core.segment import Segment
from speciate.sim.workload import SimRequest

LATE_SHARE = 0.01
STALLED_TPOTS = 2.0
"""An open stream that is so much slower than promised when the run ends has broken its promise."""
EPSILON_S = 1e-9
"""Closer than this to a limit, tokens are looked at one by one."""
RESOLUTION = log(1.01)


class Histogram:
    """Quantiles of positive values to 1 %."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0

    def add(self, value: float) -> None:
        self._counts[round(log(max(value, 1e-9)) / RESOLUTION)] += 1
        self.count += 1

    def quantile(self, share: float) -> float | None:
        left = share * self.count
        for bucket, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return exp(bucket * RESOLUTION)
        return None


@dataclass(slots=True, eq=False)
class Track:
    """What a client has seen of its request so far."""

    request: SimRequest
    segment: Segment
    """What was promised."""
    tally: "Tally"
    left: int
    """Output tokens that it will still get."""
    tpot_s: float
    reach_s: float
    """(1 + beta) TPOT."""
    due_s: float = inf
    """When its next token is due."""
    first_s: float = inf
    last_s: float = inf
    num_tokens: int = 0
    num_late: int = 0
    """Tokens after the first that came later than due."""
    num_long: int = 0
    """Gaps longer than TPOT."""

    def see(self, now_s: float) -> bool:
        """A token came; True when it was the last one."""
        if not self.num_tokens:
            return self._see_first(now_s)
        if now_s > self.due_s:
            self.num_late += 1
        if now_s - self.last_s > self.tpot_s:
            self.num_long += 1
        self.last_s = now_s
        self.num_tokens = num = self.num_tokens + 1
        line_s, reach_s = self.first_s + num * self.tpot_s, now_s + self.reach_s
        self.due_s = line_s if line_s < reach_s else reach_s
        return self._count(now_s)

    def see_run(self, times_s: list[float], longest_s: float) -> None:
        """Tokens after the first, none of them the last, at most `longest_s` between them. O(1) where none can be
        late."""
        safe_s = self.tpot_s - EPSILON_S
        is_behind = self.last_s > self.first_s + (self.num_tokens - 1) * self.tpot_s - EPSILON_S
        is_slow = longest_s > safe_s or times_s[0] - self.last_s > safe_s
        if is_slow or is_behind or times_s[-1] > self.tally.window_s:
            for at_s in times_s:
                self.see(at_s)
            return
        num = len(times_s)
        self.last_s = last_s = times_s[-1]
        self.num_tokens += num
        self.left -= num
        self.tally.output_tokens += num
        line_s, reach_s = self.first_s + self.num_tokens * self.tpot_s, last_s + self.reach_s
        self.due_s = line_s if line_s < reach_s else reach_s

    def end(self) -> None:
        """The last token came."""
        self.tally.finish(self)

    def _see_first(self, now_s: float) -> bool:
        self.first_s = self.last_s = now_s
        self.num_tokens = 1
        self.due_s = now_s + self.tpot_s
        self.tally.begin(self)
        return self._count(now_s)

    def _count(self, now_s: float) -> bool:
        if now_s <= self.tally.window_s:
            self.tally.output_tokens += 1
        self.left -= 1
        return not self.left


def make_track(request: SimRequest, segment: Segment, tally: "Tally") -> Track:
    tpot_s = inf if segment.slo.tpot_s is None else segment.slo.tpot_s
    return Track(request, segment, tally, request.output_tokens, tpot_s, (1 + segment.jitter_buffer) * tpot_s)


@dataclass(slots=True)
class Tally:
    """One tier, while the run goes on."""

    window_s: float
    offered: int = 0
    judged: int = 0
    finished: int = 0
    refused: int = 0
    relegated: int = 0
    kept: list[int] = field(default_factory=lambda: [0, 0, 0])
    ttft: Histogram = field(default_factory=Histogram)
    tpot: Histogram = field(default_factory=Histogram)
    e2e: Histogram = field(default_factory=Histogram)
    output_tokens: int = 0
    prompt_tokens: int = 0

    def refuse(self) -> None:
        self.refused += 1
        self.judged += 1

    def begin(self, track: Track) -> None:
        """The first token came."""
        self.ttft.add(track.first_s - track.request.at_s)
        if track.first_s <= self.window_s:
            self.prompt_tokens += track.request.prompt_tokens

    def finish(self, track: Track) -> None:
        """The last token came."""
        self.finished += 1
        self.judged += 1
        self.e2e.add(track.last_s - track.request.at_s)
        if track.num_tokens > 1:
            self.tpot.add((track.last_s - track.first_s) / (track.num_tokens - 1))
        if _is_timely(track):
            for index, is_kept in enumerate(_paces(track)):
                self.kept[index] += is_kept

    def drop(self) -> None:
        """It expired."""
        self.judged += 1

    def stop(self, track: Track, now_s: float) -> None:
        """The run ends before the request did: judged only if its promise is already broken."""
        self.judged += _is_broken(track, now_s)


def _is_timely(track: Track) -> bool:
    slo, at_s = track.segment.slo, track.request.at_s
    in_time = slo.ttft_s is None or track.first_s - at_s <= slo.ttft_s
    return in_time and (slo.e2e_s is None or track.last_s - at_s <= slo.e2e_s)


def _paces(track: Track) -> tuple[bool, bool, bool]:
    gaps = track.num_tokens - 1
    mean_s = (track.last_s - track.first_s) / gaps if gaps else 0.0
    allowed = LATE_SHARE * gaps
    return track.num_late <= allowed, track.num_long <= allowed, mean_s <= track.tpot_s


def _is_broken(track: Track, now_s: float) -> bool:
    slo, waited_s = track.segment.slo, now_s - track.request.at_s
    late_first = slo.ttft_s is not None and min(track.first_s, now_s) - track.request.at_s > slo.ttft_s
    is_stalled = now_s - track.first_s > STALLED_TPOTS * track.tpot_s * max(1, track.num_tokens)
    return late_first or is_stalled or (slo.e2e_s is not None and waited_s > slo.e2e_s)
