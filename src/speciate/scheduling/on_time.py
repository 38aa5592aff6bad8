"""Which of several prompts to compute so that most of them are in time. Knows seconds and deadlines, not sequences.

Moore and Hodgson (1968): take the jobs in order of deadline; whenever one would be late, the longest of those taken
so far gives way, because that frees the most time for the fewest broken promises. On one machine with all jobs there,
no other choice has fewer late ones.
"""

from collections.abc import Iterable
from math import ceil, inf

from msgspec import Struct


class Prompt(Struct, frozen=True, gc=False):
    """A first token that somebody waits for."""

    work_s: float
    """What is left of it, in seconds of a step."""
    deadline_s: float
    served: int
    """How much its tenant was served: of several tenants the least served gives way last."""


class PromptPace(Struct, frozen=True, gc=False):
    """How fast prompts are computed: each step has room for them beside what must run."""

    now_s: float
    used_s: float
    """What must run takes so much of each step."""
    step_s: float
    """So long is a step; infinite: all work fits into one."""

    def done_s(self, work_s: float) -> float:
        """When so much work ends: the last step is only as long as what is left."""
        room_s = self.step_s - self.used_s
        if room_s <= 0:
            return inf
        num_before = max(0, ceil(work_s / room_s) - 1)
        return self.now_s + (num_before + 1) * self.used_s + work_s


def giving_way(prompts: Iterable[Prompt], pace: PromptPace) -> frozenset[int]:
    """Positions of those that let the others be in time. `prompts` come in the order in which they would be computed;
    in order of deadline their number is the least possible."""
    taken: list[tuple[int, Prompt]] = []
    late: set[int] = set()
    work_s = 0.0
    for position, prompt in enumerate(prompts):
        taken.append((position, prompt))
        work_s += prompt.work_s
        while position not in late and pace.done_s(work_s) > prompt.deadline_s:
            least = min(other.served for _, other in taken)
            longest = max(taken, key=lambda entry: (entry[1].served > least, entry[1].work_s))
            taken.remove(longest)
            work_s -= longest[1].work_s
            late.add(longest[0])
    return frozenset(late)
