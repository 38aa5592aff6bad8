"""A small client of a server's files and batches, in the standard library: bodies are streamed from and to disk."""

import json
import secrets
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from speciate.core.errors import ConfigError, InvalidRequest

BLOCK_BYTES = 1 << 18
TIMEOUT_S = 60.0


class BatchClient:
    """Raises InvalidRequest with the server's words when it refuses, ConfigError where no server answers."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._root = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    def upload(self, path: Path) -> str:
        """The file's id."""
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
            f'Content-Disposition: form-data; name="file"; filename="{_quoted(path.name)}"\r\n\r\n'
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        with path.open("rb") as file:
            body = _Joined(head, file, tail)
            headers = {
                "content-type": f"multipart/form-data; boundary={boundary}",
                "content-length": str(len(head) + path.stat().st_size + len(tail)),
            }
            return str(self._json("POST", "/files", body, headers)["id"])

    def create(self, **fields: Any) -> dict[str, Any]:
        return self._post("/batches", fields)

    def estimate(self, **fields: Any) -> dict[str, Any]:
        return self._post("/batches/estimate", fields)

    def retrieve(self, batch_id: str) -> dict[str, Any]:
        return self._json("GET", f"/batches/{urllib.parse.quote(batch_id, safe='')}")

    def cancel(self, batch_id: str) -> dict[str, Any]:
        return self._post(f"/batches/{urllib.parse.quote(batch_id, safe='')}/cancel", {})

    def list_batches(self, limit: int) -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = self._json("GET", f"/batches?limit={limit}")["data"]
        return data

    def delete_file(self, file_id: str) -> None:
        self._json("DELETE", f"/files/{file_id}")

    def save(self, file_id: str, target: Path) -> None:
        """Whole or not at all: by a file beside it that is renamed."""
        part = target.with_name(target.name + ".part")
        with self._open("GET", f"/files/{file_id}/content") as answer, part.open("wb") as file:
            for block in _blocks(answer):
                file.write(block)
        part.rename(target)

    def blocks(self, file_id: str) -> Iterator[bytes]:
        with self._open("GET", f"/files/{file_id}/content") as answer:
            yield from _blocks(answer)

    def _post(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        return self._json("POST", path, json.dumps(fields).encode(), {"content-type": "application/json"})

    def _json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        with self._open(method, path, body, headers) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def _open(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(
            self._root + path, data=body, headers={**self._headers, **(headers or {})}, method=method
        )
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise InvalidRequest(_said(error)) from error
        except (urllib.error.URLError, OSError) as error:
            raise ConfigError(f"{self._root} does not answer: {error}. Is the server running? See --url.") from error


class _Joined:
    """Bytes, a file and bytes, read as one; what `http.client` needs of a body."""

    def __init__(self, head: bytes, file: BinaryIO, tail: bytes) -> None:
        self._head = head
        self._file = file
        self._tail = tail

    def read(self, _: int = -1) -> bytes:
        """Some of it; nothing at the end."""
        if self._head:
            head, self._head = self._head, b""
            return head
        block = self._file.read(BLOCK_BYTES)
        if not block:
            block, self._tail = self._tail, b""
        return block


def _blocks(answer: Any) -> Iterator[bytes]:
    while block := answer.read(BLOCK_BYTES):
        yield block


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {error.code}."
