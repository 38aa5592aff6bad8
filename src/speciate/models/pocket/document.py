"""What a document is, and how one is stretched to a length. Knows no particular kind of document."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_PIECES = re.compile(r"<\|\w+\|>|[A-Za-z]+|[0-9]|\n|[^A-Za-z0-9\n]+")
_LETTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the values that a perfect reader would extract from it, as they stand in the text."""

    kind: str
    text: str
    fields: dict[str, str]


def estimate_tokens(text: str) -> int:
    """Length in tokens of the pocket tokenizer, within about a tenth, without loading it."""
    return sum(
        1 + (len(piece) - 1) // _LETTERS_PER_TOKEN if piece[0].isalpha() else 1 for piece in _PIECES.findall(text)
    )


def filler_lines(kept: list[str], draw: Callable[[], str], target_tokens: int) -> list[str]:
    """Lines to add to the kept ones so that all together are about `target_tokens` long; none if they already are."""
    lines: list[str] = []
    missing_tokens = target_tokens - estimate_tokens("\n".join(kept))
    while missing_tokens > 0:
        line = draw()
        missing_tokens -= estimate_tokens(line) + 1
        lines.append(line)
    return lines


def string_schema(field_names: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """The JSON schema of an object that holds exactly these fields, in this order, as strings."""
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in field_names},
        "required": list(field_names),
        "additionalProperties": False,
    }
