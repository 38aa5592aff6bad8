"""Writes the pages that are made from code: `python docs/generate_reference.py`. A test fails when they lag behind."""

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from speciate.config import Settings, settings_schema

FOLDER = Path(__file__).resolve().parent / "reference"

SETTINGS_INTRODUCTION = """\
`speciate serve --config speciate.yaml`. [speciate.yaml](../../speciate.yaml) is an annotated example with every key;
[settings.schema.json](settings.schema.json) is its JSON Schema; `speciate config FILE` checks a file. Every key may be
left out. An unknown key is an error that names the nearest one. Made from the code by `docs/generate_reference.py`."""


def settings_page() -> str:
    """Every table of speciate.yaml with its keys, types, defaults and docstrings."""
    lines = ["# Settings", "", SETTINGS_INTRODUCTION, ""]
    for struct in _structs(Settings):
        lines += [f"## {struct.__name__}", "", inspect.cleandoc(struct.__doc__ or ""), ""]
        lines += ["| key | type | default | |", "|---|---|---|---|", *_rows(struct), ""]
    return "\n".join(lines).rstrip() + "\n"


def schema_page() -> str:
    return json.dumps(settings_schema(), indent=2) + "\n"


PAGES = {"settings.md": settings_page, "settings.schema.json": schema_page}


def _structs(root: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The struct and all that its fields hold, in order of first appearance."""
    found: list[type[msgspec.Struct]] = []

    def visit(info: msgspec.inspect.Type) -> None:
        if isinstance(info, msgspec.inspect.StructType) and info.cls not in found:
            found.append(info.cls)
            for field in info.fields:
                visit(field.type)
        for part in ("item_type", "value_type"):
            if hasattr(info, part):
                visit(getattr(info, part))
        for kind in getattr(info, "types", ()):
            visit(kind)

    visit(msgspec.inspect.type_info(root))
    return found


def _rows(struct: type[msgspec.Struct]) -> list[str]:
    notes = _attribute_docs(struct)
    rows = []
    for field in msgspec.structs.fields(struct):
        kind = _type_text(struct.__annotations__[field.name])
        note = " ".join(notes.get(field.name, "").split()).replace("|", "\\|")
        rows.append(f"| `{field.name}` | {kind} | {_default_text(field)} | {note} |")
    return rows


def _attribute_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Strings that follow a field in the class body."""
    body = ast.parse(inspect.getsource(struct)).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            docs[field.target.id] = str(ast.literal_eval(after.value))
    return docs


def _type_text(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    for noise in (
        "speciate.config.",
        "speciate.core.segment.",
        "typing.",
        "speciate.scheduling.options.",
        "speciate.telemetry.export.",
        "speciate.scaling.spec.",
        "speciate.scaling.signals.",
        "speciate.scaling.market.",
    ):
        text = text.replace(noise, "")
    text = _BOUNDED.sub(lambda found: found[1] + "".join(_bound_text(*b) for b in _BOUND.findall(found[2])), text)
    return "`" + text.replace("|", "\\|") + "`"


_BOUNDED = re.compile(r"Annotated\[(\w+), msgspec\.Meta\(([^)]*)\)\]")
_BOUND = re.compile(r"(gt|ge|le)=([0-9.]+)")


def _bound_text(kind: str, value: str) -> str:
    return f" {({'gt': '>', 'ge': '>=', 'le': '<='})[kind]} {float(value):g}"


def _default_text(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT:
        return "required" if field.default_factory is msgspec.NODEFAULT else "see the example"
    value = msgspec.to_builtins(field.default)
    if isinstance(value, dict):
        return "see below"
    return "see the example" if isinstance(value, list) and value else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
