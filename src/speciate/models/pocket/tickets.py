"""Support tickets: a form or a mail, with a thread of notes in which other people and other tickets are named."""

from speciate.models.pocket.document import Document, filler_lines
from speciate.models.pocket.words import WordSource

TICKET_FIELDS = ("ticket_id", "customer", "email", "product", "priority", "opened")

_LABELS = {
    "ticket_id": ("Ticket", "Ticket id", "Case", "Ticket number"),
    "customer": ("Customer", "Reported by", "Client", "Name"),
    "email": ("Email", "Mail", "Contact"),
    "product": ("Product", "Device", "Model"),
    "priority": ("Priority", "Urgency"),
    "opened": ("Opened", "Created", "Date"),
}
_PRIORITIES = ("low", "normal", "high", "urgent")
_PROBLEMS = (
    "The {product} does not start after the update.",
    "The {product} stops after a few minutes.",
    "The screen of the {product} stays dark.",
    "My {product} is very loud and gets hot.",
    "The {product} lost its settings again.",
)
_NOTES = (
    "Agent {person} asked for the log file.",
    "{person} from support called back at {time}.",
    "Similar to ticket {other}, closed on {date}.",
    "The cable was replaced, without success.",
    "{person} tried a restart at {time}.",
    "A spare part was ordered on {date}.",
    "The error code on the display is {number}.",
    "The customer waits for a reply.",
    "{person} moved the case to the second level.",
)


def make_ticket(words: WordSource, target_tokens: int) -> Document:
    """A ticket of about `target_tokens`; the shortest that it can be is near 75."""
    fields = _draw_fields(words)
    head = words.rng.choice((_form, _form, _mail))(words, fields)
    if target_tokens > 90:
        head.append(words.rng.choice(_PROBLEMS).format(**fields))
    notes = filler_lines(head, lambda: _note(words), target_tokens)
    return Document("ticket", "\n".join(head + notes), fields)


def _draw_fields(words: WordSource) -> dict[str, str]:
    person = words.person()
    return {
        "ticket_id": words.code(words.rng.choice(("T", "TK", "CASE")), words.rng.choice((4, 5))),
        "customer": person,
        "email": _address(words, person),
        "product": words.product(),
        "priority": words.rng.choice(_PRIORITIES),
        "opened": words.date(),
    }


def _address(words: WordSource, person: str) -> str:
    first, last = person.lower().split()
    name = words.rng.choice((f"{first}.{last}", f"{first}{words.rng.randint(1, 99)}", f"{last}.{first}"))
    return f"{name}@{words.invented_word()}.{words.rng.choice(('com', 'org', 'net', 'io'))}"


def _form(words: WordSource, fields: dict[str, str]) -> list[str]:
    names = list(TICKET_FIELDS)
    if words.rng.random() < 0.5:
        words.rng.shuffle(names)
    return [f"{words.rng.choice(_LABELS[name])}: {fields[name]}" for name in names]


def _mail(words: WordSource, fields: dict[str, str]) -> list[str]:
    heading = "From: {customer}, {email}\nSent: {opened}\nSubject: {ticket_id}, {priority} priority"
    body = words.rng.choice(
        ("I write about my {product}.", "Hello, this is about the {product}.", "Help with {product}!")
    )
    return [heading.format(**fields), body.format(**fields)]


def _note(words: WordSource) -> str:
    return words.rng.choice(_NOTES).format(
        person=words.first_name(),
        other=words.code("T", 4),
        time=words.clock_time(),
        date=words.date(),
        number=words.digits(3),
    )
