"""The arrival guard: how long a step may last so that a request that has not arrived yet can still be in time.

A step cannot be interrupted; the next arrival waits for the one in flight, then needs one step of its own.
"""

from bisect import bisect_left, insort
from collections import deque
from math import ceil, inf

WINDOW = 64
QUANTILE = 0.95
SAMPLE = 16
"""So many of the last prompts, evenly spread over their lengths, stand for what may arrive."""
GAP_FACTOR = 1.5
"""The next arrival is expected for so many times the longest of the last gaps: with Poisson arrivals one in about a
thousand comes later."""
MAX_ARM_S = 600.0
"""Work that comes more seldom than this needs a reservation: its guard would cost others more than it brings."""
MIN_SHARE = 0.25
"""The guard of a tier whose own prompts take most of its TTFT never falls below this share of it (see `soft_s`)."""

NOTHING_ASSUMED = (inf, 0)
"""(TTFT, prompt tokens)."""


class ArrivalGuard:
    """One tier's recent arrivals: when, how long their prompts, how short their promise."""

    def __init__(self, arm_s: float, epsilon_s: float) -> None:
        self._arm_s = self._window_s = arm_s
        self._epsilon_s = epsilon_s
        self._last_s = -inf
        self._gaps: deque[float] = deque(maxlen=WINDOW)
        self._reserved: tuple[float, int] | None = None
        self._expected: tuple[float, int] | None = None
        self._expected_until_s = -inf
        self._num_ttfts = 0
        self._least_ttfts: deque[tuple[int, float]] = deque()
        """(number, TTFT) of arrivals of the window with none shorter after them."""
        self.ttft_s = inf
        """The shortest promise lately seen or reserved; infinite if nothing was promised."""
        self._prompts: deque[int] = deque()
        self._sorted_prompts: list[int] = []

    def reserve(self, ttft_s: float, prompt_tokens: int) -> None:
        """Stay armed for such requests even if none comes; of several the strictest of each counts."""
        others_s, others = self._reserved or (inf, 0)
        self._reserved = (min(ttft_s, others_s), max(prompt_tokens, others))
        self._set_ttft()

    def expect(self, ttft_s: float, prompt_tokens: int, until_s: float) -> None:
        """Be armed for such requests until then, or until the first one came and speaks for itself."""
        self._expected, self._expected_until_s = (ttft_s, prompt_tokens), until_s
        self._set_ttft()

    def observe_arrival(self, ttft_s: float, now_s: float) -> None:
        if self._last_s > -inf:
            self._gaps.append(max(0.0, now_s - self._last_s))
            self._window_s = max(self._arm_s, min(MAX_ARM_S, GAP_FACTOR * max(self._gaps)))
        self._last_s = now_s
        self._expected = None
        if ttft_s < inf:
            self._observe_ttft(ttft_s)

    def observe_prompt(self, num_tokens: int) -> None:
        """A prompt begins: so many tokens were not in the prefix cache."""
        self._prompts.append(num_tokens)
        insort(self._sorted_prompts, num_tokens)
        if len(self._prompts) > WINDOW:
            del self._sorted_prompts[bisect_left(self._sorted_prompts, self._prompts.popleft())]

    def is_armed(self, now_s: float) -> bool:
        if self._reserved is not None or (self._expected is not None and now_s < self._expected_until_s):
            return True
        return self._arm_s > 0 and now_s - self._last_s <= self._window_s

    def _observe_ttft(self, ttft_s: float) -> None:
        least = self._least_ttfts
        while least and least[-1][1] >= ttft_s:
            least.pop()
        self._num_ttfts += 1
        least.append((self._num_ttfts, ttft_s))
        if least[0][0] <= self._num_ttfts - WINDOW:
            least.popleft()
        self._set_ttft()

    def _set_ttft(self) -> None:
        seen_s = self._least_ttfts[0][1] if self._least_ttfts else inf
        self.ttft_s = min(seen_s, self._assumed[0])

    @property
    def prompt_tokens(self) -> int:
        """p95 of what the tier's prompts had to compute."""
        reserved = self._assumed[1]
        if not self._sorted_prompts:
            return reserved
        return max(reserved, self._sorted_prompts[ceil(len(self._sorted_prompts) * QUANTILE) - 1])

    @property
    def _assumed(self) -> tuple[float, int]:
        return self._reserved or self._expected or NOTHING_ASSUMED

    def sampled_prompts(self) -> list[int]:
        """Lengths that the next prompt may have, equally likely, longest first; the reserved one where one is."""
        known = self._sorted_prompts
        if not known or self._reserved is not None:
            return [self.prompt_tokens]
        num = len(known)
        return [known[(2 * i + 1) * num // (2 * SAMPLE)] for i in reversed(range(SAMPLE))]

    def shared_bound_s(self, own_steps_s: list[float], late_share: float) -> float:
        """Longest step L so that at most `late_share` of the arrivals are late: one that comes at a random moment of it
        waits for the rest, then for a step of its own, as likely one as the other of `own_steps_s` (longest first).

            a is in time if L <= TTFT - own(a), whenever it comes; with L longer by d it is late with a chance of d / L
        """
        allowed = late_share * len(own_steps_s)
        total_s, bound_s = 0.0, inf
        for num, own_s in enumerate(own_steps_s, 1):
            limit_s = self.bound_s(own_s)
            if limit_s >= bound_s:
                break
            total_s += limit_s
            if num > allowed:
                bound_s = total_s / (num - allowed)
        return bound_s

    def bound_s(self, own_step_s: float) -> float:
        """Longest step, if the next arrival needs a step of `own_step_s` after it; may be negative."""
        return self.ttft_s - own_step_s - self._epsilon_s

    def soft_bound_s(self, own_step_s: float) -> float:
        """The same for a tier that would rather be late sometimes than slow always."""
        return max(self.bound_s(own_step_s), MIN_SHARE * self.ttft_s)
