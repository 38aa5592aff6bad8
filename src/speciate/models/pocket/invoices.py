"""Invoices: a form with shuffled header lines or a letter in prose, then the items, then the amount to pay."""

from speciate.models.pocket.document import Document, filler_lines
from speciate.models.pocket.words import WordSource

INVOICE_FIELDS = ("invoice_number", "vendor", "customer", "date", "due_date", "total")

_LABELS = {
    "invoice_number": ("Invoice number", "Invoice no.", "Invoice", "Reference"),
    "vendor": ("Vendor", "From", "Seller", "Supplier"),
    "customer": ("Customer", "Bill to", "Buyer", "Client"),
    "date": ("Date", "Issued", "Invoice date"),
    "due_date": ("Due date", "Due", "Payable by"),
    "total": ("Total", "Amount due", "Total due", "Grand total"),
}
_OPENINGS = ("INVOICE", "Invoice", "TAX INVOICE", "")
_NOTES = (
    "Thank you for your business.",
    "Please quote the reference when you pay.",
    "Goods remain ours until they are paid.",
    "All prices are in euros.",
    "Delivered by road, free of charge.",
    "Questions? Call the office on weekdays.",
)


def make_invoice(words: WordSource, target_tokens: int) -> Document:
    """An invoice of about `target_tokens`; the shortest that it can be is near 70."""
    fields = _draw_fields(words)
    write = words.rng.choice((_form, _form, _letter))
    head, tail = write(words, fields)
    items = filler_lines(head + tail, lambda: _item_line(words), target_tokens)
    text = "\n".join(line for line in head + items + tail if line)
    return Document("invoice", text, fields)


def _draw_fields(words: WordSource) -> dict[str, str]:
    return {
        "invoice_number": words.code(words.rng.choice(("INV", "INV", "R", "A", "BILL")), words.rng.choice((4, 5))),
        "vendor": words.company(),
        "customer": words.company() if words.rng.random() < 0.7 else words.person(),
        "date": words.date(),
        "due_date": words.date(),
        "total": words.amount(),
    }


def _form(words: WordSource, fields: dict[str, str]) -> tuple[list[str], list[str]]:
    names = [name for name in INVOICE_FIELDS if name != "total"]
    if words.rng.random() < 0.5:
        words.rng.shuffle(names)
    head = [words.rng.choice(_OPENINGS), *(_labelled(words, name, fields[name]) for name in names)]
    return head, _totals(words, fields["total"])


def _letter(words: WordSource, fields: dict[str, str]) -> tuple[list[str], list[str]]:
    opening = words.rng.choice(
        (
            "{vendor} bills {customer} under invoice {invoice_number}, issued on {date} and payable by {due_date}.",
            "Invoice {invoice_number} of {date}. Dear {customer}, please pay by {due_date}. Yours, {vendor}.",
            "On {date} we, {vendor}, delivered to {customer}. Invoice {invoice_number} is due on {due_date}.",
        )
    )
    return [opening.format(**fields)], _totals(words, fields["total"])


def _totals(words: WordSource, total: str) -> list[str]:
    lines = [_labelled(words, "total", total)]
    if words.rng.random() < 0.4:
        lines = [f"Subtotal: {words.amount()}", f"Tax: {words.amount(999)}", *lines]
    if words.rng.random() < 0.4:
        lines.append(words.rng.choice(_NOTES))
    return lines


def _labelled(words: WordSource, name: str, value: str) -> str:
    return f"{words.rng.choice(_LABELS[name])}: {value}"


def _item_line(words: WordSource) -> str:
    quantity = words.rng.randint(1, 60)
    pattern = words.rng.choice(("{n} x {item} at {price}", "{n} x {item} at {price}", "{item}, {n} pieces, {price}"))
    return pattern.format(n=quantity, item=words.item(), price=words.amount(999))
