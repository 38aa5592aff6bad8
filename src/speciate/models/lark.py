"""A constraint as a rule inside a larger Lark grammar, in llguidance's dialect. Knows no model and no tokens."""

import re

from speciate.core.errors import InvalidGrammar
from speciate.core.request import Grammar


def as_rules(grammar: Grammar, name: str) -> str:
    """Rules of which `name` accepts what the grammar accepts. Other rules keep their names. Raises InvalidGrammar."""
    match grammar.kind:
        case "json_schema":
            return f"{name}: %json {grammar.source}"
        case "json_object":
            return f'{name}: %json {{"type": "object"}}'
        case "regex":
            return f"{name}: /{_SLASH.sub(lambda found: found[1] or _ESCAPES[found[0]], grammar.source)}/"
        case "lark":
            if not any(found[1] for found in _START.finditer(grammar.source)):
                raise InvalidGrammar("The Lark grammar has no rule named start; name its first rule so.")
            return _START.sub(lambda found: name if found[1] else found[0], grammar.source)


_SLASH = re.compile(r"(\\.)|[/\n]", re.DOTALL)
_ESCAPES = {"/": r"\/", "\n": r"\n"}
_START = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//.*|\b(start)\b')
"""Literals and comments are matched too, so that the word inside of them is passed over."""
