"""An argument parser whose errors are two short lines and name the nearest option; and the values that options take."""

import argparse
import difflib
import math
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Status 2 for wrong usage."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **more)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return given

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nSee {self.prog} --help.\n")

    def _unknown(self, argument: str) -> str:
        options = [option for action in self._actions for option in action.option_strings]
        nearest = difflib.get_close_matches(argument.partition("=")[0], options, n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        return f"there is no argument {argument!r}.{hint}"


class _Formatter(argparse.HelpFormatter):
    """One column for options, wide enough that a name and its help share a line."""

    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, max_help_position=34, **more)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`-c, --config FILE`, and not the metavar twice."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        names, takes = ", ".join(action.option_strings), self._get_default_metavar_for_optional(action)
        return f"{names} {self._format_args(action, takes)}"


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def not_negative(text: str) -> float:
    """A finite number, 0 or more."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return value


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def port(text: str) -> int:
    """0 to 65535."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is no port; ports are 0 to 65535")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
