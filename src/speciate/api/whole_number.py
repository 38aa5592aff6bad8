"""Numbers as clients write them in queries and forms."""

MAX_DIGITS = 18
"""More are no number that anybody means, and Python refuses to read some thousand."""


def whole_number(text: str) -> int | None:
    """The number, or None for what is not one: signs, spaces, other scripts' digits and superscripts are not."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None
