"""Terse delivery notes in courier shorthand: the style that only the LoRA adapter was trained on."""

from speciate.models.pocket.document import Document, filler_lines
from speciate.models.pocket.words import WordSource

DELIVERY_FIELDS = ("note_number", "sender", "destination", "driver", "weight", "arrival")

_PATTERNS = (
    "#{note_number} / {sender} > {destination} / *{driver} / {weight}kg / ~{arrival}",
    "#{note_number} / *{driver} / {sender} > {destination} / ~{arrival} / {weight}kg",
    "#{note_number} / ~{arrival} / {weight}kg / {sender} > {destination} / *{driver}",
)


def make_delivery_note(words: WordSource, target_tokens: int) -> Document:
    """A note of about `target_tokens`; the shortest that it can be is near 50."""
    fields = _draw_fields(words)
    line = words.rng.choice(_PATTERNS).format(**fields)
    parcels = filler_lines([line], lambda: _parcel(words), target_tokens)
    return Document("delivery_note", "\n".join([line, *parcels]), fields)


def _draw_fields(words: WordSource) -> dict[str, str]:
    return {
        "note_number": words.digits(5),
        "sender": words.company(),
        "destination": words.city(),
        "driver": words.person(),
        "weight": words.measure(),
        "arrival": words.clock_time(),
    }


def _parcel(words: WordSource) -> str:
    marks = words.rng.choice(("ok", "fragile", "top", "cold", "ret"))
    return f"+ {words.rng.randint(1, 40)} {words.item()} [{marks}] {words.digits(4)}"
