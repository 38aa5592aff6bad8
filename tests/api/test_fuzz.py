"""Whatever is sent is answered, and never with a 5xx: bodies drawn from the endpoints' own structs with parts of them
broken, broken bytes, and connections that break off."""

import json
import math
import socket
from typing import Any
from urllib.parse import quote_from_bytes

import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from speciate.api.chat_body import ChatBody
from speciate.api.completions_body import CompletionBody
from speciate.api.embeddings import EmbeddingsBody
from speciate.api.messages_body import CountBody, MessagesBody
from speciate.api.responses_body import ResponsesBody

USER = [{"role": "user", "content": "hi"}]
BODIES: dict[str, tuple[type[msgspec.Struct], dict[str, Any]]] = {
    "/v1/chat/completions": (ChatBody, {"model": "fake", "messages": USER, "max_tokens": 4}),
    "/v1/completions": (CompletionBody, {"model": "fake", "prompt": "hi", "max_tokens": 4}),
    "/v1/responses": (ResponsesBody, {"model": "fake", "input": "hi", "max_output_tokens": 4}),
    "/v1/embeddings": (EmbeddingsBody, {"model": "fake-embed", "input": "hi"}),
    "/v1/messages": (MessagesBody, {"model": "fake", "messages": USER, "max_tokens": 4}),
    "/v1/messages/count_tokens": (CountBody, {"model": "fake", "messages": USER}),
}
NEVER = {"background", "store"}
"""Left out: what they start outlives its request, and the next example would meet it."""

NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 1e308, -1e308, 5e-324, 0.5, 1.5, math.pi]),
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "\0", "\ud800", "é\u202e", "<|im_end|>", "<tool_call>", "{{", "a" * 5000, "🦜" * 20, "</think>"]
    ),
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
SCHEMAS = st.sampled_from([
    {"type": "object"}, {"type": "string", "pattern": "(a|b)*c{2,300}"}, {"$ref": "#"}, {"enum": []}, {"type": "zebra"},
    {"type": "array", "items": {"$ref": "#/x"}}, {"multipleOf": 0}, {"minimum": 3, "maximum": 1}, {"const": "\ud800"},
    {"properties": {"a": 3}}, {"anyOf": []}, {"type": "integer", "minimum": 10**30}, {},
])  # fmt: skip


def of_type(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values that a decoder of this type takes, now and then with junk in their place."""
    match kind:
        case inspect.StructType(fields=fields, tag_field=tag_field, tag=tag):
            return struct(fields, tag_field, tag)
        case inspect.UnionType(types=types):
            return st.one_of(*map(of_type, types))
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return st.lists(of_type(item), max_size=3)
        case inspect.DictType():
            return st.one_of(SCHEMAS, st.dictionaries(TEXTS, JUNK, max_size=3))
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.IntType() | inspect.FloatType():
            return NUMBERS
        case inspect.StrType():
            return TEXTS
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
    return JUNK


def struct(fields: tuple[inspect.Field, ...], tag_field: str | None, tag: Any) -> st.SearchStrategy[dict[str, Any]]:
    required = {f.encode_name: or_junk(f.type) for f in fields if f.required}
    optional = {f.encode_name: or_junk(f.type) for f in fields if not f.required}
    drawn = st.fixed_dictionaries(required, optional=optional)
    return drawn if tag_field is None else drawn.map(lambda value: {tag_field: tag, **value})


def or_junk(kind: inspect.Type) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda roll: JUNK if roll == 0 else of_type(kind))


def broken_body(path: str) -> st.SearchStrategy[dict[str, Any]]:
    """A good body, with up to three of its fields drawn anew."""
    kind, good = BODIES[path]
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    fields = {f.encode_name: f.type for f in info.fields if f.encode_name not in NEVER}
    changed = st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=3)
    return changed.flatmap(
        lambda names: st.fixed_dictionaries({n: st.one_of(of_type(fields[n]), JUNK) for n in names})
    ).map(lambda change: {**good, **change})


@pytest.fixture
def http(server):
    with httpx2.Client(base_url=server.base_url, timeout=30) as client:
        yield client


def post(http: httpx2.Client, path: str, body: bytes) -> httpx2.Response:
    """Sends, reads to the end, and holds the answer to what every answer promises."""
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    told = answer.content.decode()
    assert answer.status_code in (200, 400, 404, 413, 429), told
    assert "bug" not in told
    if answer.status_code != 200:
        error = json.loads(told)["error"]
        assert error["message"]
        assert error["type"]
    return answer


MANY = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("path", BODIES)
@MANY
@given(data=st.data())
def test_bodies_with_broken_parts(server, http, path, data):
    body = data.draw(broken_body(path))
    post(http, path, json.dumps(body).encode())


@pytest.mark.parametrize("path", BODIES)
@settings(parent=MANY, max_examples=25)
@given(data=st.data())
def test_bodies_with_broken_bytes(server, http, path, data):
    body = bytearray(json.dumps(BODIES[path][1]).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(
            st.one_of(
                st.binary(max_size=3), st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\\ud800", b"NaN", b"{", b"["])
            )
        )
        body[at : at + data.draw(st.integers(0, 4))] = piece
        body = body or bytearray(b" ")
    post(http, path, bytes(body))


@pytest.mark.parametrize("path", BODIES)
def test_anything_nested_deeply_anywhere(http, path):
    """In a field that is read, in one that is not, and in one that may hold anything."""
    deep = b"[" * 5000 + b"]" * 5000
    objects = b'{"a":' * 5000 + b"1" + b"}" * 5000
    good = json.dumps(BODIES[path][1]).encode()[:-1]
    for name in (b"model", b"zzz", b"metadata", b"chat_template_kwargs", b"tools", b"input", b"response_format"):
        for value in (deep, objects):
            post(http, path, good + b', "' + name + b'": ' + value + b"}")
    for depth in (50, 200, 900):
        schema = b'{"type":"array","items":' * depth + b"{}" + b"}" * depth
        tool = b'[{"type":"function","name":"f","function":{"name":"f","parameters":%b},"parameters":%b}]'
        post(http, path, good + b', "tools": ' + tool % (schema, schema) + b', "tool_choice": "required"}')
        post(http, path, good + b', "structured_outputs": {"json": ' + schema + b"}}")


VALUES = st.one_of(
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([b"", b"nan", b"-1", b"1e999", b"1_0", "²".encode(), "٣".encode(), b"9" * 5000, b"true", b"\xff"]),
)


@MANY
@given(
    place=st.sampled_from(["", "/input_items", "/nothing", "/%00", "/..%2f.."]),
    query=st.dictionaries(
        st.sampled_from(["limit", "after", "order", "stream", "starting_after", "include", "zzz"]), VALUES, max_size=3
    ),
)
@example(place="/input_items", query={"limit": "²".encode()})
@example(place="/input_items", query={"limit": b"9" * 5000})
@example(place="", query={"stream": b"true", "starting_after": b"9" * 5000})
def test_queries(server, http, place, query):
    made = http.post("/v1/responses", json={"model": "fake", "input": "hi", "max_output_tokens": 2}).json()
    url = f"/v1/responses/{made['id']}{place}?" + "&".join(f"{k}={quote_from_bytes(v)}" for k, v in query.items())
    answer = http.get(url)
    assert answer.status_code in (200, 400, 404), answer.text
    http.delete(f"/v1/responses/{made['id']}")


HEADERS = (
    "x-speciate-deadline-ms", "x-speciate-allow-downgrade", "x-stainless-read-timeout", "x-gateway-inference-objective",
    "x-client-request-id", "x-request-id", "traceparent", "authorization", "x-api-key", "accept", "content-type",
)  # fmt: skip
FIELD = VALUES.map(lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F).strip())


@MANY
@given(sent=st.dictionaries(st.sampled_from(HEADERS), FIELD, max_size=3))
def test_headers(server, http, sent):
    body = json.dumps(BODIES["/v1/chat/completions"][1]).encode()
    answer = http.post("/v1/chat/completions", content=body, headers=[(k.encode(), v) for k, v in sent.items()])
    assert answer.status_code in (200, 400, 429, 504), answer.text
    assert answer.headers["x-request-id"].isascii()


BREAKS = [
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n{}",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 7\r\n\r\n{}",
    b"POST /v1/chat/completions HTTP/9.9\r\n\r\n",
    b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /v1/models/%ff%00%f0 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/responses/..%2f..%2fetc HTTP/1.1\r\nhost: x\r\nauthorization: \xff\xfe\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"",
]


@pytest.mark.parametrize("sent", BREAKS, ids=range(len(BREAKS)))
async def test_connections_that_break_off(server, http, sent, eventually):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while block := client.recv(65536):
            answer += block
    assert not answer.startswith(b"HTTP/1.1 5")
    assert post(http, "/v1/chat/completions", json.dumps(BODIES["/v1/chat/completions"][1]).encode()).status_code == 200
    await eventually(server.is_idle)


def test_a_body_in_single_bytes(server):
    body = json.dumps(BODIES["/v1/chat/completions"][1]).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for byte in body:
            client.sendall(b"1\r\n%c\r\n" % byte)
        client.sendall(b"0\r\n\r\n")
        answer = b""
        while block := client.recv(65536):
            answer += block
    assert answer.startswith(b"HTTP/1.1 200")


async def test_nothing_is_left_of_all_that(server, eventually):
    await eventually(server.is_idle)
    server.on_loop(server.gateway.check)
