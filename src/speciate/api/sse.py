"""Server-sent events as cheaply as ASGI allows. Knows bytes and time, nothing of dialects.

Headers wait for the first frame, so that an error before it gets its true HTTP status; a silent stream gets headers
and a heartbeat after `heartbeat_s`. Waiting for `send` is the backpressure: a slow client holds up only its own frames.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from speciate.api.call import Call
from speciate.api.errors import Headers
from speciate.core.errors import InvariantError, SpeciateError

log = logging.getLogger(__name__)

COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

ErrorFrame = Callable[[SpeciateError], bytes]

_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """A reply made of frames. Owns `frames`: closes it when the stream ends, however it ends."""

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        error_frame: ErrorFrame,
        *,
        heartbeat_s: float,
        write_stall_s: float,
        heartbeat: bytes = COMMENT,
        headers: Headers | None = None,
    ) -> None:
        self._frames = frames
        self._error_frame = error_frame
        self._headers = [*_HEADERS, *(headers or [])]
        self._heartbeat_s = heartbeat_s
        self._heartbeat = heartbeat
        self._write_stall_s = write_stall_s

    async def send(self, call: Call) -> None:
        """Raises the frames' error if it comes before anything was sent; later ones are told in an event."""
        writer = _Writer(call, self._headers)
        pulse = _Pulse(writer, self._heartbeat, self._heartbeat_s, self._write_stall_s)
        try:
            await self._send_frames(writer)
        except asyncio.CancelledError:
            if not pulse.is_stalled:
                raise
            pulse.forgive()
            log.warning(
                "request %s: the client took nothing for %s s; gave it up", call.request_id, self._write_stall_s
            )
            return
        finally:
            pulse.stop()
        await writer.finish()

    async def _send_frames(self, writer: "_Writer") -> None:
        try:
            async with aclosing(self._frames) as frames:
                async for frame in frames:
                    await writer.write(frame)
        except SpeciateError as error:
            if not writer.is_started:
                raise
            await writer.write(self._error_frame(error))
        except Exception:  # the boundary of a stream: after the headers, an event is the only way left to tell
            if not writer.is_started:
                raise
            log.exception("a stream failed")
            await writer.write(self._error_frame(InvariantError("The server has a bug; its log has the details.")))


class _Writer:
    """Headers once, then frames, one at a time: heartbeats come from another task."""

    def __init__(self, call: Call, headers: Headers) -> None:
        self._call = call
        self._headers = headers
        self._lock = asyncio.Lock()
        self._clock = asyncio.get_running_loop().time
        self.is_started = False
        self.moved_s = self._clock()
        """When a frame was last offered to the transport or taken by it."""
        self.num_writing = 0

    async def write(self, frame: bytes) -> None:
        if not self.num_writing:
            self.moved_s = self._clock()
        self.num_writing += 1
        try:
            async with self._lock:
                if not self.is_started:
                    self.is_started = True
                    await self._call.start(200, self._headers)
                await self._call.send({"type": "http.response.body", "body": frame, "more_body": True})
                self.moved_s = self._clock()
        finally:
            self.num_writing -= 1

    async def finish(self) -> None:
        if not self.is_started:
            await self._call.start(200, self._headers)
        await self._call.send({"type": "http.response.body", "body": b""})


class _Pulse:
    """One timer a stream: heartbeats while frames are awaited, giving up while the client takes nothing."""

    def __init__(self, writer: _Writer, heartbeat: bytes, heartbeat_s: float, write_stall_s: float) -> None:
        self._writer = writer
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._write_stall_s = write_stall_s
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._beat_task: asyncio.Task[None] | None = None
        self.is_stalled = False
        self._timer = self._loop.call_later(min(heartbeat_s, write_stall_s), self._tick)

    def _tick(self) -> None:
        silent_s = self._loop.time() - self._writer.moved_s
        if self._writer.num_writing:
            due_s = self._write_stall_s
            if silent_s >= due_s:
                self._give_up()
                return
        else:
            due_s = self._heartbeat_s
            if silent_s >= due_s:
                self._beat_task = self._loop.create_task(self._writer.write(self._heartbeat))
                silent_s = 0.0
        self._timer = self._loop.call_later(max(due_s - silent_s, 0.001), self._tick)

    def _give_up(self) -> None:
        self.is_stalled = True
        if self._task is not None:
            self._task.cancel()

    def forgive(self) -> None:
        """The cancellation was ours and is dealt with."""
        if self._task is not None:
            self._task.uncancel()

    def stop(self) -> None:
        self._timer.cancel()
        if self._beat_task is not None:
            self._beat_task.cancel()
