"""Runs a line of a batch as if it had come over HTTP: the same bodies, the same checks, the same answers."""

import msgspec

from speciate.api.call import Answer, BytesReply, Call, ErrorBody, Services
from speciate.api.chat import create_chat
from speciate.api.completions import create_completion
from speciate.api.embeddings import create_embeddings
from speciate.api.errors import anthropic_error, openai_error
from speciate.api.images import ImagesApi
from speciate.api.messages import create_message
from speciate.api.picture_store import PictureStore
from speciate.api.responses import ResponsesApi
from speciate.batch.line_job import LineJob
from speciate.batch.lines import LineAnswer
from speciate.core.errors import CapacityError, EngineFailed, InvalidRequest, InvariantError, Overloaded, SpeciateError


class LineRunner:
    """Implements `RunLine` over the dialects. Whatever tier a body asks for, its lines are batch work. `replica` and
    `market` are told in the provenance."""

    def __init__(self, services: Services, *, replica: str = "local", market: str = "dedicated") -> None:
        self._place = (replica, market)
        options = msgspec.structs.replace(services.options, max_stored_responses=1)
        self._services = Services(services.gateway, options, services.keys)
        self._answers: dict[str, tuple[Answer, ErrorBody]] = {
            "/v1/chat/completions": (create_chat, openai_error),
            "/v1/completions": (create_completion, openai_error),
            "/v1/embeddings": (create_embeddings, openai_error),
            "/v1/responses": (ResponsesApi(self._services).create, openai_error),
            "/v1/messages": (create_message, anthropic_error),
            "/v1/images/generations": (ImagesApi(PictureStore()).generate, openai_error),
        }

    async def run(self, job: LineJob) -> LineAnswer:
        """Never raises what a request may raise: an error is an answer, or says that the line may run again."""
        call = Call(
            headers={b"x-speciate-deadline-ms": b"%d" % max(1, int(job.left_s * 1000))},
            path_params={},
            query=b"",
            send=_nowhere,
            request_id=job.request_id,
            received_s=0.0,
            tenant=job.tenant or None,
            body=job.body,
            batch_window_s=job.window_s,
        )
        answer, error_body = self._answers[job.url]
        try:
            reply = await answer(self._services, call)
            if not isinstance(reply, BytesReply):
                raise InvalidRequest("stream cannot be used in a batch.", param="stream")
        except SpeciateError as error:
            return _error_answer(error, error_body, job.request_id)
        replica, market = self._place
        return LineAnswer(reply.status, reply.body, job.request_id, replica=replica, market=market)


async def _nowhere(message: object) -> None:
    """Replies of lines are read, not sent."""


def _error_answer(error: SpeciateError, error_body: ErrorBody, request_id: str) -> LineAnswer:
    """What passes by itself waits; what an engine lost runs again; the rest is the line's own answer."""
    return LineAnswer(
        status=error.status,
        body=error_body(error, request_id),
        request_id=request_id,
        is_refusal=isinstance(error, CapacityError),
        is_retryable=isinstance(error, EngineFailed | InvariantError),
        retry_after_s=error.retry_after_s if isinstance(error, Overloaded) else 0.0,
    )
