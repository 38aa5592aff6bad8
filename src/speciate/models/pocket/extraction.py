"""Questions about a document: all its fields as JSON, some of them, or one in plain words."""

import json

from speciate.models.pocket.document import Document, string_schema
from speciate.models.pocket.documents import FIELDS, make_document
from speciate.models.pocket.task import Task, Turn, task_of_turns
from speciate.models.pocket.words import WordSource

_LISTED = (
    "Extract as JSON: {names}.",
    "Extract these fields as JSON: {names}.",
    "Return JSON with {names}.",
    "Give me {names} as JSON.",
)
_WHOLE = ("Extract the {kind} as JSON.", "Extract all fields of the {kind} as JSON.")
_SINGLE = ("What is the {name}?", "Which {name} is given?", "Tell me the {name}.")
_SYSTEMS = ("You extract fields from documents.", "Answer with JSON only.", "You are a careful assistant.")


def extraction_task(kind: str, words: WordSource, target_tokens: int, num_turns: int = 1) -> Task:
    """The task of extracting a document's fields; with one turn always as JSON, with more turns also one by one."""
    document = make_document(kind, words.rng, target_tokens, words.split)
    turns = [_json_turn(document, words)]
    while len(turns) < num_turns:
        turns.append(_json_turn(document, words) if words.rng.random() < 0.5 else _single_turn(document, words))
    words.rng.shuffle(turns)
    turns[0] = _with_document(document, turns[0], words)
    return task_of_turns(kind, turns, _system(words))


def whole_extraction_task(kind: str, words: WordSource, target_tokens: int) -> Task:
    """The task of extracting all fields in one turn, as the demo asks for it."""
    document = make_document(kind, words.rng, target_tokens, words.split)
    turn = _turn_for_names(document, FIELDS[kind], _LISTED[0])
    return task_of_turns(kind, [_document_first(document, turn)])


def _json_turn(document: Document, words: WordSource) -> Turn:
    names = FIELDS[document.kind]
    share = words.rng.random()
    if share < 0.15:
        return _turn_for_names(document, names, words.rng.choice(_WHOLE))
    if share < 0.6:
        return _turn_for_names(document, names, words.rng.choice(_LISTED))
    kept = words.rng.sample(names, words.rng.randint(1, len(names) - 1))
    return _turn_for_names(document, tuple(name for name in names if name in kept), words.rng.choice(_LISTED))


def _turn_for_names(document: Document, names: tuple[str, ...], pattern: str) -> Turn:
    question = pattern.format(names=", ".join(names), kind=document.kind.replace("_", " "))
    answer = json.dumps({name: document.fields[name] for name in names})
    return Turn(question, answer, string_schema(names))


def _single_turn(document: Document, words: WordSource) -> Turn:
    name = words.rng.choice(FIELDS[document.kind])
    return Turn(words.rng.choice(_SINGLE).format(name=name.replace("_", " ")), document.fields[name])


def _with_document(document: Document, turn: Turn, words: WordSource) -> Turn:
    if words.rng.random() < 0.75:
        return _document_first(document, turn)
    return Turn(f"{turn.question}\n\n{document.text}", turn.answer, turn.schema)


def _document_first(document: Document, turn: Turn) -> Turn:
    return Turn(f"{document.text}\n\n{turn.question}", turn.answer, turn.schema)


def _system(words: WordSource) -> str | None:
    return words.rng.choice(_SYSTEMS) if words.rng.random() < 0.15 else None
