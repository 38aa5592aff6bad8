"""What a completion window may be called. Pure: knows no clock and no database.

Whether one can be kept is `admission/windows.py`'s to say.
"""

import re

from speciate.core.errors import InvalidRequest

MIN_WINDOW_S = 60.0
MAX_WINDOW_S = 366 * 86_400.0
ROUND_UP = 1.25
"""A window that is offered is this much longer than predicted: the prediction is of the mean."""

_SHORT = re.compile(r"(\d{1,4})(m|h|d)")
_ISO = re.compile(
    r"P(?:(?P<w>\d+)W)?(?:(?P<d>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+(?:\.\d+)?)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)
_SECONDS = {"w": 604_800.0, "d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_window(text: str) -> float:
    """Seconds of `24h`, `90m`, `7d` or an ISO 8601 duration (`PT2H30M`, `P1D`; no months and years: they vary).

    Raises InvalidRequest.
    """
    seconds = _short_s(text) or _iso_s(text)
    if seconds is None:
        raise InvalidRequest(
            f"completion_window is {text!r}; it takes 24h, 8h, 2h, any number of m, h or d, or an ISO 8601 duration "
            "such as PT2H30M.",
            param="completion_window",
        )
    if not MIN_WINDOW_S <= seconds <= MAX_WINDOW_S:
        raise InvalidRequest(
            f"completion_window {text!r} is {seconds:g} s; it takes {MIN_WINDOW_S:g} to {MAX_WINDOW_S:g} s.",
            param="completion_window",
        )
    return seconds


def offered_window(earliest_s: float) -> str:
    """The shortest window to ask for instead, in whole minutes, as an ISO 8601 duration."""
    minutes = int(earliest_s * ROUND_UP // 60) + 1
    hours, minutes = divmod(minutes, 60)
    return "PT" + (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes or not hours else "")


def _short_s(text: str) -> float | None:
    found = _SHORT.fullmatch(text)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def _iso_s(text: str) -> float | None:
    found = _ISO.fullmatch(text)
    if found is None or not any(found.groupdict().values()):
        return None
    return sum(float(number) * _SECONDS[unit] for unit, number in found.groupdict().items() if number)
