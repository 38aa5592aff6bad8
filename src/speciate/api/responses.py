"""/v1/responses: create, retrieve, delete, cancel, list input items; in front or in the background."""

import asyncio
import time
from urllib.parse import parse_qs

import msgspec

from speciate.api.call import BytesReply, Call, Reply, Services, new_id
from speciate.api.promise import Promise, promise_of
from speciate.api.responses_body import WINDOW_S, ResponsesBody, decode_responses, responses_wish
from speciate.api.responses_items import Item, input_items
from speciate.api.responses_object import new_response
from speciate.api.responses_run import ResponseRun
from speciate.api.responses_store import ResponseStore
from speciate.api.sse import EventStream
from speciate.api.turn import open_turn
from speciate.api.whole_number import whole_number
from speciate.core.errors import InvalidRequest, Overloaded, SpeciateError
from speciate.core.segment import Slo, Tier

MAX_STORED_BYTES = 256 * 1024 * 1024
"""Of input bodies; answers are bounded by the models' context."""

_encode = msgspec.json.Encoder().encode


class ResponsesApi:
    """The endpoints and the store behind them. `close` ends what runs in the background."""

    def __init__(self, services: Services) -> None:
        self._options = services.options
        self._store = ResponseStore(services.options.max_stored_responses, MAX_STORED_BYTES)

    async def close(self) -> None:
        await asyncio.gather(*(run.cancel() for run in self._store.runs()))

    async def create(self, services: Services, call: Call) -> Reply:
        body = decode_responses(call.body)
        if body.background:
            self._check_background_room()
        run = await self._open(services, call, body)
        if body.background:
            return self._start(run, body)
        if body.stream:
            return self._stream(run)
        response = await run.whole()
        self._keep(run)
        return BytesReply(_encode(response), headers=run.turn.headers)

    async def retrieve(self, services: Services, call: Call) -> Reply:
        run = self._find(call)
        query = parse_qs(call.query.decode("latin-1"))
        if query.get("stream", ["false"])[-1] != "true":
            return BytesReply(_encode(run.response))
        if not run.response.background:
            raise InvalidRequest("Only a background response can be streamed again.", param="stream")
        return self._replay(run, _starting_after(query))

    async def delete(self, services: Services, call: Call) -> Reply:
        run = self._find(call)
        await run.cancel()
        self._store.remove(run)
        return BytesReply(_encode({"id": run.response.id, "object": "response", "deleted": True}))

    async def cancel(self, services: Services, call: Call) -> Reply:
        run = self._find(call)
        if not run.response.background:
            raise InvalidRequest("Only a background response can be cancelled.", param="response_id")
        await run.cancel()
        return BytesReply(_encode(run.response))

    async def input_items(self, services: Services, call: Call) -> Reply:
        run = self._find(call)
        return BytesReply(_encode(_page(run.items, parse_qs(call.query.decode("latin-1")))))

    def _find(self, call: Call) -> ResponseRun:
        return self._store.find(call.tenant or "", call.path_params["response_id"])

    async def _open(self, services: Services, call: Call, body: ResponsesBody) -> ResponseRun:
        earlier = self._earlier_items(call, body)
        items = [*earlier, *input_items(body.input, {item["id"]: item for item in earlier})]
        is_awaited = not body.stream and not body.background
        promise = promise_of(services, call, body.model, body, may_use_read_timeout=is_awaited)
        response_id = new_id("resp_")
        turn = await open_turn(services, response_id, responses_wish(body, items), _in_window(services, promise, body))
        response = new_response(response_id, int(time.time()), body, turn.sampling, turn.tier)
        return ResponseRun(turn, response, items, call.tenant or "", len(call.body))

    def _earlier_items(self, call: Call, body: ResponsesBody) -> list[Item]:
        if body.previous_response_id is None:
            return []
        previous = self._store.find(call.tenant or "", body.previous_response_id)
        if not previous.is_over:
            raise InvalidRequest(
                f"Response {body.previous_response_id!r} is still {previous.response.status}; wait for it.",
                param="previous_response_id",
            )
        return previous.conversation()

    def _keep(self, run: ResponseRun) -> None:
        if run.response.store:
            self._store.add(run)

    def _check_background_room(self) -> None:
        num_running = sum(not run.is_over for run in self._store.runs())
        if num_running >= self._options.max_background_responses:
            raise Overloaded(
                f"{num_running} responses run in the background; at most {self._options.max_background_responses} may. "
                "Wait for some of them.",
                retry_after_s=5.0,
            )

    def _start(self, run: ResponseRun, body: ResponsesBody) -> Reply:
        self._store.add(run)
        queued = _encode(run.response)
        run.start_in_background()
        return self._replay(run, -1) if body.stream else BytesReply(queued, headers=run.turn.headers)

    def _stream(self, run: ResponseRun) -> EventStream:
        return EventStream(
            run.frames(on_end=lambda: self._keep(run)),
            run.fail,
            heartbeat_s=self._options.heartbeat_s,
            write_stall_s=self._options.write_stall_s,
            headers=run.turn.headers(),
        )

    def _replay(self, run: ResponseRun, starting_after: int) -> EventStream:
        return EventStream(
            run.replay(starting_after),
            _unexpected,
            heartbeat_s=self._options.heartbeat_s,
            write_stall_s=self._options.write_stall_s,
            headers=run.turn.headers(),
        )


def _unexpected(error: SpeciateError) -> bytes:
    """A replay has no errors of its own: those of the run are among its events."""
    return b"event: error\ndata: %b\n\n" % _encode({"type": "error", "code": error.code, "message": error.message})


def _in_window(services: Services, promise: Promise, body: ResponsesBody) -> Promise:
    """`background_options` asks for OpenAI's discounted background execution: batch work, with a window if one is
    named."""
    if body.background_options is None:
        return promise
    segment = services.gateway.find(body.model).segments[Tier.BATCH]
    window_s = WINDOW_S.get(body.background_options.completion_window)
    if window_s is not None:
        segment = msgspec.structs.replace(segment, slo=Slo(e2e_s=window_s, share=segment.slo.share))
    return msgspec.structs.replace(promise, segment=segment)


def _starting_after(query: dict[str, list[str]]) -> int:
    given = query.get("starting_after", ["-1"])[-1]
    try:
        return max(int(given), -1)
    except ValueError:
        raise InvalidRequest(
            f"starting_after is {given!r}; it takes a sequence number.", param="starting_after"
        ) from None


def _page(items: list[Item], query: dict[str, list[str]]) -> dict[str, object]:
    """Newest first unless asked otherwise, after the item named by `after`."""
    ordered = list(items) if query.get("order", ["desc"])[-1] == "asc" else items[::-1]
    after = query.get("after", [None])[-1]
    ids = [item["id"] for item in ordered]
    if after is not None:
        if after not in ids:
            raise InvalidRequest(f"after is {after!r}, which is no item of this response.", param="after")
        ordered = ordered[ids.index(after) + 1 :]
    page = ordered[: _limit(query)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(page) < len(ordered),
    }


def _limit(query: dict[str, list[str]]) -> int:
    given = query.get("limit", ["20"])[-1]
    limit = whole_number(given)
    if limit is None or not 1 <= limit <= 100:
        raise InvalidRequest(f"limit is {given!r}; it takes 1 to 100.", param="limit")
    return limit
