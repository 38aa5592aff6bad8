"""The floor: plain Starlette on uvicorn that reads the same body and answers with a reply of the same shape."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

STEP_S = 0.002
"""Pause between two chunks: the step of the fake engine that we are measured with."""


async def chat(request: Request) -> Response:
    body = json.loads(await request.body())
    if body.get("stream"):
        return StreamingResponse(_chunks(int(body["max_tokens"])), media_type="text/event-stream")
    message = {"role": "assistant", "content": "token " * int(body["max_tokens"])}
    return JSONResponse(
        {"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    )


async def _chunks(num_tokens: int) -> AsyncIterator[bytes]:
    for _ in range(num_tokens):
        await asyncio.sleep(STEP_S)
        delta = {"index": 0, "delta": {"content": "token "}}
        yield b"data: " + json.dumps({"id": "chatcmpl-1", "choices": [delta]}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
