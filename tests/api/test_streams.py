"""Streams under bad conditions: clients that leave, clients that do not read, long silences, lost steps."""

import asyncio
import contextlib
import json
import socket

import openai
import pytest

from speciate.api.options import ApiOptions
from speciate.engines.fake import StepCost


def _body(text, **more):
    return json.dumps({"model": "fake", "messages": [{"role": "user", "content": text}], **more}).encode()


async def _post(server, body, path="/v1/chat/completions", receive_bytes=None):
    """A connection on which the request has been sent; nothing is read but what the caller reads."""
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**16 if receive_bytes is None else receive_bytes)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


async def _leave(writer):
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_five_hundred_clients_that_leave_leak_nothing(start_server, eventually):
    server = start_server(cost=StepCost(fixed_s=0.002))

    async def come_and_go(number):
        path, text = "/v1/chat/completions", f"count {900 + number % 7}"
        reader, writer = await _post(server, _body(text, stream=True, n=1 + number % 3), path)
        if number % 5:
            assert b"200 OK" in await reader.readuntil(b"\n\n")
        if number % 2:
            await asyncio.sleep(0.01 * (number % 11))
        await _leave(writer)

    await asyncio.gather(*(come_and_go(number) for number in range(500)))
    await eventually(server.is_idle, 30)
    server.on_loop(server.gateway.check)
    assert server.openai().chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "say still here"}]
    ).choices[0].message.content == "still here"  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
async def test_work_stops_within_steps_when_its_client_leaves(start_server, eventually, stream):
    server = start_server(cost=StepCost(fixed_s=0.005))
    _, writer = await _post(server, _body("count 900", stream=stream))
    await eventually(lambda: server.engine.num_steps > 10)
    await _leave(writer)
    await eventually(server.is_idle, 2)
    assert server.engine.num_steps < 500
    num_steps = server.engine.num_steps
    await asyncio.sleep(0.1)
    assert server.engine.num_steps == num_steps


async def test_other_dialects_stop_too(start_server, eventually):
    server = start_server(cost=StepCost(fixed_s=0.005))
    prompt = {"model": "fake", "stream": True}
    bodies = {
        "/v1/completions": {**prompt, "prompt": ["count 900"] * 3},
        "/v1/responses": {**prompt, "input": "count 900"},
        "/v1/messages": {**prompt, "max_tokens": 3000, "messages": [{"role": "user", "content": "count 900"}]},
    }
    for path, body in bodies.items():
        reader, writer = await _post(server, json.dumps(body).encode(), path)
        assert b"200 OK" in await reader.readuntil(b"\n\n")
        await _leave(writer)
        await eventually(server.is_idle, 5)


async def test_silence_is_filled_with_heartbeats(start_server):
    server = start_server(ApiOptions(heartbeat_s=0.05), StepCost(fixed_s=0.3))
    reader, writer = await _post(server, _body("say a", stream=True))
    data = b""
    while b"[DONE]" not in data:
        data += await asyncio.wait_for(reader.read(4096), 10)
    head, _, rest = data.partition(b"data: ")
    assert b"200 OK" in head
    assert head.count(b": keep-alive") >= 2
    assert b'"content":"a"' in rest
    await _leave(writer)


async def test_messages_streams_ping(start_server):
    server = start_server(ApiOptions(heartbeat_s=0.05), StepCost(fixed_s=0.3))
    body = _body("say a", stream=True, max_tokens=5)
    reader, writer = await _post(server, body, "/v1/messages")
    data = b""
    while b"message_stop" not in data:
        data += await asyncio.wait_for(reader.read(4096), 10)
    assert data.partition(b"message_start")[0].count(b"event: ping") >= 2
    await _leave(writer)


async def test_clients_understand_heartbeats(start_server):
    server = start_server(ApiOptions(heartbeat_s=0.05), StepCost(fixed_s=0.2))
    async with server.async_openai() as client:
        asked = [{"role": "user", "content": "say ab"}]
        stream = await client.chat.completions.create(model="fake", messages=asked, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "ab"


async def test_an_error_before_the_first_token_has_its_status(start_server):
    server = start_server(cost=StepCost(fixed_s=0.01))
    server.engine.fail_next_step = True
    async with server.async_openai() as client:
        with pytest.raises(openai.InternalServerError) as lost:
            await client.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "count 900"}], stream=True
            )
    assert lost.value.code == "engine_failed"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
async def test_a_stream_that_breaks_says_so_and_does_not_finish(start_server, path):
    server = start_server(cost=StepCost(fixed_s=0.01))
    field = {"/v1/completions": "prompt", "/v1/responses": "input"}.get(path, "messages")
    prompt = [{"role": "user", "content": "count 900"}] if field == "messages" else "count 900"
    asked = {"model": "fake", "stream": True, "max_tokens": 3000, field: prompt}
    reader, writer = await _post(server, json.dumps(asked).encode(), path)
    data = await reader.readuntil(b"\n\n")
    data += await reader.read(4096)
    server.engine.fail_next_step = True
    while not data.endswith(b"0\r\n\r\n"):
        data += await asyncio.wait_for(reader.read(65536), 10)
    for clean_end in (b"[DONE]", b'"finish_reason":"', b"message_stop", b"response.completed"):
        assert clean_end not in data
    assert b"error" in data.rpartition(b"data: ")[2]
    assert b"fake engine was told to fail" in data
    await _leave(writer)


async def test_the_official_client_raises_when_a_stream_breaks(start_server):
    server = start_server(cost=StepCost(fixed_s=0.01))
    async with server.async_openai() as client:
        asked = [{"role": "user", "content": "count 900"}]
        stream = await client.chat.completions.create(model="fake", messages=asked, stream=True)
        await anext(aiter(stream))
        server.engine.fail_next_step = True
        with pytest.raises(openai.APIError, match="told to fail"):
            async for _ in stream:
                pass


async def test_a_client_that_never_reads_is_given_up_and_slows_nobody(start_server, eventually, caplog):
    server = start_server(ApiOptions(write_stall_s=0.5), send_buffer_bytes=4096)
    stuck = [await _post(server, _body("count 900", stream=True, logprobs=True), receive_bytes=2048) for _ in range(3)]
    async with server.async_openai() as client:
        asked = [{"role": "user", "content": "count 30"}]
        async with asyncio.timeout(10):
            stream = await client.chat.completions.create(model="fake", messages=asked, stream=True)
            text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert text.endswith("28 29")
    await eventually(lambda: caplog.text.count("took nothing for") == 3, 10)
    await eventually(server.is_idle, 10)
    server.on_loop(server.gateway.check)
    for _, writer in stuck:
        await _leave(writer)


async def test_slow_readers_get_merged_deltas_and_all_of_the_text(start_server):
    server = start_server()
    reader, writer = await _post(server, _body("count 900", stream=True), receive_bytes=2048)
    await asyncio.sleep(0.5)
    data = b""
    while b"[DONE]" not in data:
        more = await asyncio.wait_for(reader.read(2048), 10)
        assert more, f"the stream ended early: {data[-500:]!r}"
        data += more
    lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: {")]
    text = "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)
    assert text == " ".join(map(str, range(900)))
    await _leave(writer)
