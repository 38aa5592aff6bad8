"""Paragraphs of small events, and questions of who, where, when and how many about them."""

from collections.abc import Callable

from speciate.models.pocket import word_lists
from speciate.models.pocket.document import estimate_tokens
from speciate.models.pocket.task import Task, Turn, task_of_turns
from speciate.models.pocket.words import WordSource

_DELIVERY_VERBS = (("delivered", "deliver"), ("sent", "send"), ("sold", "sell"), ("brought", "bring"))
_UNITS = ("boxes", "crates", "bags", "pallets")
_FILLERS = (
    "The weather was fine.",
    "Nobody complained.",
    "It had rained all morning.",
    "The road was closed for an hour.",
    "Lunch was late that day.",
    "The office stayed open.",
)


def paragraph_task(words: WordSource, target_tokens: int, num_turns: int = 1) -> Task:
    """The task of answering questions about a paragraph of about `target_tokens`, whose people and places differ."""
    sentences, turns = _events(words, target_tokens)
    asked = words.rng.sample(turns, min(num_turns, len(turns)))
    paragraph = " ".join(sentences)
    first = asked[0]
    mark = words.rng.choice(("", "", "Question: "))
    asked[0] = Turn(f"{paragraph}\n\n{mark}{first.question}", first.answer)
    return task_of_turns("paragraph", asked)


def _events(words: WordSource, target_tokens: int) -> tuple[list[str], list[Turn]]:
    sentences: list[str] = []
    turns: list[Turn] = []
    num_tokens = 0
    while num_tokens < target_tokens - 10:
        draw: Callable[[WordSource], tuple[str, list[Turn]]] = words.rng.choice(
            (_delivery, _delivery, _meeting, _hiring)
        )
        sentence, more_turns = draw(words)
        if words.rng.random() < 0.25:
            sentence = f"{sentence} {words.rng.choice(_FILLERS)}"
        num_tokens += estimate_tokens(sentence) + 1
        sentences.append(sentence)
        turns += more_turns
    return sentences, turns


def _delivery(words: WordSource) -> tuple[str, list[Turn]]:
    person, item, city, day = words.person(), words.item(), words.city(), words.rng.choice(word_lists.WEEKDAYS)
    count, unit = str(words.rng.randint(2, 99)), words.rng.choice(_UNITS)
    past, verb = words.rng.choice(_DELIVERY_VERBS)
    sentence = f"{person} {past} {count} {unit} of {item} to {city} on {day}."
    return sentence, [
        Turn(f"Who {past} the {item}?", person),
        Turn(f"Where did {person} {verb} the {item}?", city),
        Turn(f"When did {person} {verb} the {item}?", day),
        Turn(f"How many {unit} of {item} did {person} {verb}?", count),
        Turn(f"What did {person} {verb}?", item),
    ]


def _meeting(words: WordSource) -> tuple[str, list[Turn]]:
    host, guest, city, time = words.person(), words.person(), words.city(), words.clock_time()
    sentence = f"At {time} {host} met {guest} in {city}."
    return sentence, [
        Turn(f"Who met {guest}?", host),
        Turn(f"Who did {host} meet?", guest),
        Turn(f"Where did {host} meet {guest}?", city),
        Turn(f"When did {host} meet {guest}?", time),
    ]


def _hiring(words: WordSource) -> tuple[str, list[Turn]]:
    company, city, count = words.company(), words.city(), str(words.rng.randint(2, 99))
    month = f"{words.rng.choice(word_lists.MONTHS)} {words.rng.randint(2015, 2029)}"
    sentence = f"In {month} {company} hired {count} people in {city}."
    return sentence, [
        Turn(f"How many people did {company} hire?", count),
        Turn(f"Where did {company} hire people?", city),
        Turn(f"When did {company} hire people?", month),
        Turn(f"Who hired people in {city}?", company),
    ]
