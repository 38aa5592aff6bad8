"""One HTTP exchange: the facts that every dialect needs of it, and the frame that turns errors into replies."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from speciate.api.auth import KeyRing
from speciate.api.body import read_body
from speciate.api.errors import Headers, error_headers
from speciate.api.options import ApiOptions
from speciate.api.ports import Gateway
from speciate.core.errors import InvariantError, SpeciateError

log = logging.getLogger(__name__)

UNREAD = 0
"""As `max_body_bytes` of an endpoint: it reads its body itself, as it arrives, and notices by that who leaves."""

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
ErrorBody = Callable[[SpeciateError, str], bytes]

_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


@dataclass(slots=True)
class Call:
    """A request that was read and whose caller is known."""

    headers: Mapping[bytes, bytes]
    """Lower-case names; of a repeated header the last."""
    path_params: Mapping[str, Any]
    query: bytes
    send: Send
    request_id: str
    received_s: float
    """On the process's performance counter."""
    tenant: str | None = None
    """Whose key was sent; None where the server is open."""
    body: bytes = b""
    batch_window_s: float | None = None
    """Of a line of a batch: it is batch work, whatever it asks for, and due so long after its batch was made."""
    receive: Receive | None = None
    """Where a route reads its body itself."""
    extra_headers: Headers = field(default_factory=list)

    async def start(self, status: int, headers: Headers) -> None:
        """Status line and headers, with those that every answer carries."""
        elapsed_ms = (time.perf_counter() - self.received_s) * 1000
        common = [(b"x-request-id", self.request_id.encode()), (b"openai-processing-ms", b"%d" % elapsed_ms)]
        await self.send(
            {"type": "http.response.start", "status": status, "headers": [*headers, *common, *self.extra_headers]}
        )


class Reply(Protocol):
    """Something that can be sent once. Raises SpeciateError only while nothing has been sent."""

    async def send(self, call: Call) -> None: ...


def no_headers() -> Headers:
    return []


class BytesReply:
    """A whole body. Its own headers are made when it is sent: a line of a batch has no use for them."""

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes = b"application/json",
        headers: Callable[[], Headers] = no_headers,
    ) -> None:
        self.body = body
        self.status = status
        self._content_type = content_type
        self._headers = headers

    async def send(self, call: Call) -> None:
        common = [(b"content-type", self._content_type), (b"content-length", b"%d" % len(self.body))]
        await call.start(self.status, [*common, *self._headers()])
        await call.send({"type": "http.response.body", "body": self.body})


class ClientWatch:
    """While entered, cancels the task that entered it when the client leaves, and swallows that cancellation."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise InvariantError("A call ran outside of a task; serve the app with an ASGI server.")
        self._task = task
        self._watcher = asyncio.create_task(self._cancel_when_gone())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._watcher.cancel()
        if self._is_gone and kind is asyncio.CancelledError:
            self._task.uncancel()
            return True
        return False

    async def _cancel_when_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._task.cancel()


@dataclass(frozen=True, slots=True)
class Services:
    """What every endpoint is given."""

    gateway: Gateway
    options: ApiOptions
    keys: KeyRing


Answer = Callable[[Services, Call], Awaitable[Reply]]


class Endpoint:
    """An ASGI app for one route: reads, authenticates, answers; every error becomes a reply in the route's dialect."""

    def __init__(
        self,
        services: Services,
        answer: Answer,
        error_body: ErrorBody,
        *,
        is_open: bool = False,
        max_body_bytes: int | None = None,
    ) -> None:
        self._services = services
        self._answer = answer
        self._error_body = error_body
        self._is_open = is_open
        self._max_body_bytes = services.options.max_body_bytes if max_body_bytes is None else max_body_bytes

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        call = Call(
            headers=headers,
            path_params=scope.get("path_params", {}),
            query=scope.get("query_string", b""),
            send=send,
            request_id=request_id(headers),
            received_s=time.perf_counter(),
        )
        try:
            await self._admit_caller(call, receive, scope["method"])
            async with ClientWatch(receive) if call.receive is None else nullcontext():
                reply = await self._answer(self._services, call)
                await reply.send(call)
        except SpeciateError as error:
            await self._refuse(call, error)
        except Exception:  # the boundary of a request: a bug of ours must still be answered in the client's dialect
            log.exception("request %s failed", call.request_id)
            await self._refuse(call, InvariantError(f"The server has a bug; its log has it under {call.request_id}."))

    async def _admit_caller(self, call: Call, receive: Receive, method: str) -> None:
        if not self._is_open:
            call.tenant = self._services.keys.tenant(call.headers)
        if self._max_body_bytes == UNREAD:
            call.receive = receive
        elif method == "POST":
            declared = call.headers.get(b"content-length")
            call.body = await read_body(receive, declared, self._max_body_bytes)

    async def _refuse(self, call: Call, error: SpeciateError) -> None:
        body = self._error_body(error, call.request_id)
        await BytesReply(body, status=error.status, headers=lambda: error_headers(error)).send(call)


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's own id where it sent a usable one, else a new one."""
    sent = headers.get(b"x-client-request-id") or headers.get(b"x-request-id")
    if sent is not None and _SANE_ID.fullmatch(sent):
        return sent.decode()
    return new_id("req_")


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(16)
