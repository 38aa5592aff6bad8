"""Files with the official client, and what only a hostile or broken one sends."""

import http.client
import random
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from speciate.api.options import ApiKey, ApiOptions
from speciate.batch.options import BatchOptions


@pytest.fixture
def client(server: Any) -> OpenAI:
    return server.openai()  # type: ignore[no-any-return]


def test_a_file_comes_back_as_it_was_sent(client: OpenAI) -> None:
    data = random.Random(1).randbytes(5_000_000)
    made = client.files.create(file=("in.bin", data), purpose="user_data")
    assert (made.bytes, made.filename, made.purpose, made.object) == (5_000_000, "in.bin", "user_data", "file")
    assert client.files.content(made.id).content == data
    assert client.files.retrieve(made.id) == made
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(made.id)
    with pytest.raises(openai.NotFoundError):
        client.files.delete(made.id)


@pytest.mark.parametrize(
    ("asked", "status", "body", "told"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=0-9", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=10-", 416, None, None),
        ("bytes=4-2", 416, None, None),
    ],
)
def test_content_has_ranges(server: Any, asked: str, status: int, body: bytes | None, told: str | None) -> None:
    made = server.openai().files.create(file=("a.txt", b"0123456789"), purpose="user_data")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", f"/v1/files/{made.id}/content", headers={"Range": asked})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert (answer.status, answer.headers["content-range"]) == (status, told)
    assert body is None or data == body


def test_an_empty_file_is_a_file(client: OpenAI) -> None:
    made = client.files.create(file=("empty", b""), purpose="batch")
    assert made.bytes == 0
    assert client.files.content(made.id).content == b""


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system32", "system32"),
        ("/abs/olute", "olute"),
        ("..", "upload"),
        ("", "upload"),
        ("x" * 300, "x" * 255),
        ("ü漢.jsonl", "ü漢.jsonl"),
    ],
)
def test_names_are_for_people_and_never_paths(server: Any, name: str, kept: str) -> None:
    disposition = f'form-data; name="file"; filename="{name}"'.replace("\\", "\\\\")
    status, answer = _post(server, _form(("purpose", b"batch")) + _part(disposition, b"x") + b"--b--\r\n")
    assert status == 200, answer
    assert f'"filename":"{kept}"'.encode() in answer


@pytest.mark.parametrize("file_id", ["..%2F..%2Fbatch.db", "batch.db", "file-..", "file-00000000000000000000000g"])
def test_ids_lead_nowhere_else(server: Any, file_id: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", f"/v1/files/{file_id}/content")
    assert connection.getresponse().status == 404
    connection.close()


def _part(disposition: str, data: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (disposition.encode(), data)


def _form(*fields: tuple[str, bytes]) -> bytes:
    return b"".join(_part(f'form-data; name="{name}"', value) for name, value in fields)


def _post(server: Any, body: bytes, content_type: str = "multipart/form-data; boundary=b") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/v1/files", body, {"content-type": content_type})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


FILE = _part('form-data; name="file"; filename="a"', b"data")
BROKEN_FORMS = {
    "not multipart": (b"{}", "application/json", b"multipart/form-data"),
    "no boundary": (b"x", "multipart/form-data", b"boundary"),
    "garbage": (b"garbage", None, b"no multipart form"),
    "cut off": (_form(("purpose", b"batch")) + FILE, None, b"cut off"),
    "no file": (_form(("purpose", b"batch")) + b"--b--\r\n", None, b"no file"),
    "no purpose": (FILE + b"--b--\r\n", None, b"purpose"),
    "unknown purpose": (_form(("purpose", b"fun")) + FILE + b"--b--\r\n", None, b"purpose"),
    "two files": (_form(("purpose", b"batch")) + FILE + FILE + b"--b--\r\n", None, b"two files"),
    "a long field": (_form(("purpose", b"b" * 5000)) + FILE + b"--b--\r\n", None, b"more than 4096"),
    "many parts": (_form(*[("a", b"1")] * 20) + FILE + b"--b--\r\n", None, b"more than 16 parts"),
    "bad expiry": (
        _form(("purpose", b"batch"), ("expires_after[anchor]", b"created_at"), ("expires_after[seconds]", b"5"))
        + FILE
        + b"--b--\r\n",
        None,
        b"3600",
    ),
}


@pytest.mark.parametrize("name", BROKEN_FORMS)
def test_broken_forms_are_refused_and_leave_nothing(server: Any, name: str) -> None:
    body, content_type, said = BROKEN_FORMS[name]
    before = len(server.openai().files.list().data)
    status, answer = _post(server, body, content_type or "multipart/form-data; boundary=b")
    assert status == 400
    assert said in answer
    assert len(server.openai().files.list().data) == before


def _status_of_endless_upload(port: int) -> bytes:
    """The status line that comes while the body still goes out."""
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    head = (
        b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head + b"%x\r\n%b\r\n" % (len(part), part))
        for _ in range(1000):
            if select.select([connection], [], [], 0.01)[0]:
                return connection.recv(100).split(b"\r\n")[0]
            connection.sendall(b"2710\r\n" + b"y" * 10_000 + b"\r\n")
    return b""


def test_limits_hold_while_the_bytes_arrive(start_server: Callable[..., Any]) -> None:
    server = start_server(batch=BatchOptions(max_file_bytes=100_000, tenant_bytes=150_000))
    client = server.openai()
    made = client.files.create(file=("a", b"x" * 100_000), purpose="user_data")
    assert b" 413 " in _status_of_endless_upload(server.port)
    with pytest.raises(openai.APIStatusError) as second:
        client.files.create(file=("b", b"x" * 60_000), purpose="user_data")
    assert second.value.status_code == 413
    client.files.create(file=("c", b"x" * 50_000), purpose="user_data")
    with pytest.raises(openai.PermissionDeniedError, match="150000 bytes"):
        client.files.create(file=("d", b"x"), purpose="user_data")
    client.files.delete(made.id)
    client.files.create(file=("e", b"x"), purpose="user_data")


class _Wall:
    shift_s = 0.0

    def now_s(self) -> float:
        return time.time() + self.shift_s


def test_files_expire(start_server: Callable[..., Any], eventually: Any) -> None:
    wall = _Wall()
    server = start_server(wall=wall)
    client = server.openai()
    kept = client.files.create(file=("a", b"x"), purpose="user_data")
    made = client.files.create(
        file=("b", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    default = client.files.create(file=("c", b"x"), purpose="batch")
    assert made.expires_at == made.created_at + 3600
    assert default.expires_at == default.created_at + 30 * 86_400
    wall.shift_s = 3601.0
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    assert {file.id for file in client.files.list()} == {kept.id, default.id}


def test_tenants_see_their_own(start_server: Callable[..., Any]) -> None:
    keys = (ApiKey("ka", "a"), ApiKey("kb", "b"))
    server = start_server(ApiOptions(api_keys=keys))
    ours, theirs = server.openai(api_key="ka"), server.openai(api_key="kb")
    made = ours.files.create(file=("a", b"x"), purpose="batch")
    with pytest.raises(openai.NotFoundError):
        theirs.files.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        theirs.batches.create(input_file_id=made.id, endpoint="/v1/responses", completion_window="24h")
    batch = ours.batches.create(input_file_id=made.id, endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        theirs.batches.retrieve(batch.id)
    with pytest.raises(openai.NotFoundError):
        theirs.batches.cancel(batch.id)
    assert theirs.batches.list().data == []
    assert theirs.files.list().data == []


def test_a_file_that_a_batch_reads_stays(start_server: Callable[..., Any], slow_steps: Any) -> None:
    client = start_server(cost=slow_steps).openai()
    line = (
        b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"fake","max_tokens":900,'
        b'"messages":[{"role":"user","content":"count 400"}]}}\n'
    )
    made = client.files.create(file=("a", line), purpose="batch")
    client.batches.create(input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="is read by batch_"):
        client.files.delete(made.id)


def test_lists_go_both_ways_and_refuse_another_order(client: OpenAI) -> None:
    made = [client.files.create(file=(f"{i}.txt", b"x"), purpose="evals").id for i in range(3)]
    listed = [file.id for file in client.files.list(purpose="evals", order="asc", limit=2)]
    assert [file_id for file_id in listed if file_id in made] == made
    with pytest.raises(openai.BadRequestError, match="asc or desc"):
        client.files.list(order="up")  # type: ignore[arg-type]
