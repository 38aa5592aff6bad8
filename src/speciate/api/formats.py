"""Constraints on the output, from the many ways that clients have to ask for them, to one core `Grammar`."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from speciate.core.errors import InvalidRequest
from speciate.core.request import Grammar


class JsonSchemaSpec(Struct):
    name: Annotated[str, Meta(max_length=64)] = "response"
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct):
    """OpenAI's `response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaSpec | None = None


class TextFormat(Struct):
    """The same in the words of the Responses API: the schema lies one level higher."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class StructuredOutputs(Struct):
    """vLLM's `structured_outputs`; one of the fields may be set."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


def grammar_of_response_format(spec: ResponseFormat | None) -> Grammar | None:
    if spec is None or spec.type == "text":
        return None
    if spec.type == "json_object":
        return Grammar("json_object")
    if spec.json_schema is None:
        raise InvalidRequest(
            "response_format.type is json_schema, but there is no json_schema.", param="response_format.json_schema"
        )
    return json_schema(spec.json_schema.schema)


def grammar_of_text_format(spec: TextFormat | None) -> Grammar | None:
    if spec is None or spec.type == "text":
        return None
    return Grammar("json_object") if spec.type == "json_object" else json_schema(spec.schema)


def grammar_of_structured_outputs(spec: StructuredOutputs | None) -> Grammar | None:
    """Raises InvalidRequest if more than one constraint is set."""
    if spec is None:
        return None
    found = [
        grammar
        for grammar in (
            None if spec.json is None else _json(spec.json),
            None if spec.regex is None else Grammar("regex", spec.regex),
            None if spec.choice is None else _choice(spec.choice),
            None if spec.grammar is None else Grammar("lark", spec.grammar),
            Grammar("json_object") if spec.json_object else None,
        )
        if grammar is not None
    ]
    return only_one(found, "structured_outputs")


def only_one(grammars: list[Grammar], param: str) -> Grammar | None:
    if len(grammars) > 1:
        raise InvalidRequest(f"{len(grammars)} output constraints are set at once; set one.", param=param)
    return grammars[0] if grammars else None


def json_schema(schema: dict[str, Any] | None) -> Grammar:
    """No schema means any JSON object."""
    return Grammar("json_object") if schema is None else Grammar("json_schema", msgspec.json.encode(schema).decode())


def _json(schema: dict[str, Any] | str) -> Grammar:
    return Grammar("json_schema", schema) if isinstance(schema, str) else json_schema(schema)


def _choice(choices: list[str]) -> Grammar:
    if not choices:
        raise InvalidRequest(
            "structured_outputs.choice is empty; name at least one choice.", param="structured_outputs"
        )
    return Grammar("regex", "|".join(re.escape(choice) for choice in choices))
