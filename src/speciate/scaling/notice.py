"""A machine is about to be taken: which running lines to finish, park, or hand back within the notice. Pure.

    finish      its rest fits in what is left of the notice
    park        its tokens so far are written down, to be resumed elsewhere from there; costs a moment each
    hand back   neither: the line starts over on another machine, its work so far is lost

Lines run side by side, so finishing one costs the others nothing; parking is done one after another, and what is worth
most (the longest work so far) is parked first. Committing progress in the grace period is SpotServe's idea (ASPLOS'24).
"""

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct


class Fate(StrEnum):
    FINISH = "finish"
    PARK = "park"
    HAND_BACK = "hand_back"


class RunningLine(Struct, frozen=True):
    """A line on the machine that goes."""

    line_id: str
    left_s: float
    """Predicted until its last token, at the pace of now."""
    done_s: float
    """Work that would be lost if it started over."""
    can_resume: bool = True
    """Whether its engine can go on from tokens so far (fixed seed or not, the text so far is kept)."""


class NoticeOptions(Struct, frozen=True):
    """What an operator may turn."""

    margin_s: float = 3.0
    """Kept free before the machine goes."""
    park_s: float = 0.02
    """To write one line's tokens to the store."""
    error_factor: float = 1.3
    """A line is finished only if this many times its predicted rest fits."""


DEFAULT_NOTICE = NoticeOptions()


class LineFate(Struct, frozen=True):
    """What to do with one line."""

    line_id: str
    fate: Fate
    lost_s: float = 0.0
    """Work that this undoes."""


def fates(
    lines: Iterable[RunningLine], notice_s: float, options: NoticeOptions = DEFAULT_NOTICE
) -> tuple[LineFate, ...]:
    """One for each line: those to park first, in that order (park at once), then those to finish, then the rest.

    A line that might not finish in time and can resume is parked, not gambled with.
    """
    room_s = max(0.0, notice_s - options.margin_s)
    ordered = sorted(lines, key=lambda line: (-line.done_s, line.line_id))
    finish = [line for line in ordered if line.left_s * options.error_factor <= room_s]
    others = [line for line in ordered if line.left_s * options.error_factor > room_s]
    num_parked = int(room_s / options.park_s) if options.park_s > 0 else len(others)
    resumable = [line for line in others if line.can_resume]
    park = resumable[:num_parked]
    lost = resumable[num_parked:] + [line for line in others if not line.can_resume]
    return (
        *(LineFate(line.line_id, Fate.PARK) for line in park),
        *(LineFate(line.line_id, Fate.FINISH) for line in finish),
        *(LineFate(line.line_id, Fate.HAND_BACK, line.done_s) for line in lost),
    )


def expected_lost_s(lines: Iterable[RunningLine], notice_s: float, options: NoticeOptions = DEFAULT_NOTICE) -> float:
    """Work that a preemption undoes now: what `MarketView.lost_s` should say."""
    return sum(fate.lost_s for fate in fates(lines, notice_s, options))
