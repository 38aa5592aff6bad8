"""Multipart forms that are small enough to be read whole: fields as text, files as bytes."""

import io
from typing import Any

from msgspec import Struct
from python_multipart import parse_form
from python_multipart.exceptions import FormParserError

from speciate.core.errors import InvalidRequest

MAX_PARTS = 64


class FormFile(Struct, frozen=True):
    """One uploaded file."""

    name: str
    """Of the field, without `[]`."""
    data: bytes


class Form(Struct, frozen=True):
    """A form as it came; of a repeated field the last counts."""

    fields: dict[str, str]
    files: tuple[FormFile, ...]

    def file(self, name: str) -> bytes | None:
        return next((file.data for file in self.files if file.name == name), None)


def is_form(content_type: bytes | None) -> bool:
    return content_type is not None and content_type.lower().startswith(b"multipart/form-data")


def read_form(body: bytes, content_type: bytes) -> Form:
    """Raises InvalidRequest for what is no whole form."""
    fields: dict[str, str] = {}
    files: list[FormFile] = []

    def take_field(field: Any) -> None:
        _check_count(len(fields) + len(files))
        fields[_name(field.field_name)] = (field.value or b"").decode("utf-8", "replace")

    def take_file(file: Any) -> None:
        _check_count(len(fields) + len(files))
        file.file_object.seek(0)
        files.append(FormFile(_name(file.field_name), file.file_object.read()))
        file.close()

    headers = {"Content-Type": content_type, "Content-Length": str(len(body)).encode()}
    try:
        parse_form(headers, io.BytesIO(body), take_field, take_file)
    except (FormParserError, ValueError) as error:
        raise InvalidRequest(f"The body is no multipart form: {error}.") from error
    return Form(fields, tuple(files))


def _name(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace").removesuffix("[]")


def _check_count(num_parts: int) -> None:
    if num_parts >= MAX_PARTS:
        raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
