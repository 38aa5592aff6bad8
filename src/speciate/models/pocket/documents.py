"""The kinds of document that the pocket model reads: how to make one, which fields it has, and their JSON schemas.

Pure Python, used by the training recipe, the tests and the demo alike. Knows nothing of prompts or tokenizers.
"""

import random
from collections.abc import Callable
from typing import Any

from speciate.models.pocket.delivery_notes import DELIVERY_FIELDS, make_delivery_note
from speciate.models.pocket.document import Document, estimate_tokens, string_schema
from speciate.models.pocket.invoices import INVOICE_FIELDS, make_invoice
from speciate.models.pocket.sensor_logs import SENSOR_LOG_FIELDS, make_sensor_log
from speciate.models.pocket.tickets import TICKET_FIELDS, make_ticket
from speciate.models.pocket.words import Split, WordSource

__all__ = ["ADAPTER_KINDS", "FIELDS", "KINDS", "SCHEMAS", "Document", "estimate_tokens", "make_document"]

KINDS = ("invoice", "ticket", "sensor_log")
"""What the base model reads."""

ADAPTER_KINDS = ("delivery_note",)
"""What only the adapter reads."""

FIELDS: dict[str, tuple[str, ...]] = {
    "invoice": INVOICE_FIELDS,
    "ticket": TICKET_FIELDS,
    "sensor_log": SENSOR_LOG_FIELDS,
    "delivery_note": DELIVERY_FIELDS,
}

SCHEMAS: dict[str, dict[str, Any]] = {kind: string_schema(names) for kind, names in FIELDS.items()}
"""JSON schema of each kind's answer: every field a string, in this order, spaced as by `json.dumps`."""

_MAKERS: dict[str, Callable[[WordSource, int], Document]] = {
    "invoice": make_invoice,
    "ticket": make_ticket,
    "sensor_log": make_sensor_log,
    "delivery_note": make_delivery_note,
}


def make_document(kind: str, rng: random.Random, target_tokens: int, split: Split = "train") -> Document:
    """A document of about `target_tokens` whose values belong to the split. Raises KeyError for unknown kinds."""
    return _MAKERS[kind](WordSource(rng, split), target_tokens)
