"""The app: which path is answered by which dialect. Nothing is decided here."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from speciate.api.auth import KeyRing
from speciate.api.batches import BatchesApi
from speciate.api.call import UNREAD, Answer, Endpoint, ErrorBody, Services
from speciate.api.chat import create_chat
from speciate.api.completions import create_completion
from speciate.api.embeddings import create_embeddings
from speciate.api.errors import anthropic_error, openai_error, openai_type
from speciate.api.files import FilesApi
from speciate.api.health import MetricsPage, health, ready
from speciate.api.images import ImagesApi
from speciate.api.messages import count_tokens, create_message
from speciate.api.messages_batches import MessageBatchesApi
from speciate.api.models import list_models, retrieve_model
from speciate.api.options import ApiOptions
from speciate.api.picture_store import PATH, PictureStore
from speciate.api.ports import Gateway
from speciate.api.rate_limits import RATE_LIMIT_NAMES
from speciate.api.responses import ResponsesApi
from speciate.batch.jobs import BatchJobs

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


def create_app(
    gateway: Gateway,
    options: ApiOptions,
    render_metrics: Callable[[], bytes] | None = None,
    jobs: BatchJobs | None = None,
) -> Asgi:
    """The ASGI app; files and batches only where there are jobs. The caller starts and stops the gateway and the jobs;
    the app ends its own background responses on shutdown."""
    services = Services(gateway, options, KeyRing(options.api_keys))
    responses = ResponsesApi(services)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        yield
        await responses.close()

    batches = [] if jobs is None else _batch_routes(services, jobs)
    store = PictureStore()
    inference = _inference_routes(services, responses, store)
    app = Starlette(
        routes=[*batches, *inference, *_open_routes(services, render_metrics, store)],
        exception_handlers={HTTPException: _http_error},
        middleware=_middleware(options),
        lifespan=lifespan,
    )
    return app if options.cors_origins else _Direct(app, inference)


class _Direct:
    """Takes requests for a route without parameters straight to its endpoint: it needs no routing, and no middleware
    around every frame. All else goes through Starlette."""

    def __init__(self, app: Starlette, routes: list[Route]) -> None:
        self._app = app
        self._endpoints = {
            (method, route.path): route.app
            for route in routes
            if "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = None
        if scope["type"] == "http" and not scope.get("root_path"):
            endpoint = self._endpoints.get((scope["method"], scope["path"]))
        await (endpoint or self._app)(scope, receive, send)


def _inference_routes(services: Services, responses: ResponsesApi, store: PictureStore) -> list[Route]:
    """Under /v1, and at the root too: some clients and conformance suites leave the prefix out."""
    images = ImagesApi(store)
    openai: list[tuple[str, str, Answer]] = [
        ("POST", "/chat/completions", create_chat),
        ("POST", "/completions", create_completion),
        ("POST", "/embeddings", create_embeddings),
        ("POST", "/images/generations", images.generate),
        ("POST", "/images/edits", images.edit),
        ("POST", "/images/variations", images.vary),
        ("POST", "/responses", responses.create),
        ("GET", "/responses/{response_id}", responses.retrieve),
        ("DELETE", "/responses/{response_id}", responses.delete),
        ("POST", "/responses/{response_id}/cancel", responses.cancel),
        ("GET", "/responses/{response_id}/input_items", responses.input_items),
        ("GET", "/models", list_models),
        ("GET", "/models/{model:path}", retrieve_model),
    ]
    anthropic: list[tuple[str, str, Answer]] = [
        ("POST", "/messages", create_message),
        ("POST", "/messages/count_tokens", count_tokens),
    ]
    return [
        _route(prefix, method, path, answer, services, error_body)
        for prefix in ("/v1", "")
        for table, error_body in ((openai, openai_error), (anthropic, anthropic_error))
        for method, path, answer in table
    ]


def _batch_routes(services: Services, jobs: BatchJobs) -> list[Route]:
    """Files and batches in OpenAI's dialect, message batches in Anthropic's: the same jobs behind both."""
    files, batches, messages = FilesApi(jobs), BatchesApi(jobs), MessageBatchesApi(jobs)
    table: list[tuple[str, str, Answer, ErrorBody, int | None]] = [
        ("POST", "/files", files.upload, openai_error, UNREAD),
        ("GET", "/files", files.list_files, openai_error, None),
        ("GET", "/files/{file_id}", files.retrieve, openai_error, None),
        ("DELETE", "/files/{file_id}", files.delete, openai_error, None),
        ("GET", "/files/{file_id}/content", files.content, openai_error, None),
        ("POST", "/batches", batches.create, openai_error, None),
        ("POST", "/batches/estimate", batches.estimate, openai_error, None),
        ("GET", "/batches", batches.list_batches, openai_error, None),
        ("GET", "/batches/{batch_id}", batches.retrieve, openai_error, None),
        ("POST", "/batches/{batch_id}/cancel", batches.cancel, openai_error, None),
        ("POST", "/messages/batches", messages.create, anthropic_error, jobs.options.max_file_bytes),
        ("GET", "/messages/batches", messages.list_batches, anthropic_error, None),
        ("GET", "/messages/batches/{batch_id}", messages.retrieve, anthropic_error, None),
        ("DELETE", "/messages/batches/{batch_id}", messages.delete, anthropic_error, None),
        ("POST", "/messages/batches/{batch_id}/cancel", messages.cancel, anthropic_error, None),
        ("GET", "/messages/batches/{batch_id}/results", messages.results, anthropic_error, None),
    ]
    return [
        Route(prefix + path, Endpoint(services, answer, error_body, max_body_bytes=most), methods=[method])
        for prefix in ("/v1", "")
        for method, path, answer, error_body, most in table
    ]


def _route(prefix: str, method: str, path: str, answer: Answer, services: Services, error_body: ErrorBody) -> Route:
    return Route(prefix + path, Endpoint(services, answer, error_body), methods=[method])


def _open_routes(services: Services, render_metrics: Callable[[], bytes] | None, store: PictureStore) -> list[Route]:
    """Without a key: for probes, and for pictures whose names cannot be guessed."""
    pages: list[tuple[str, Answer]] = [("/health", health), ("/ready", ready), (f"{PATH}/{{name}}", store.answer)]
    if render_metrics is not None:
        pages.append(("/metrics", MetricsPage(render_metrics).answer))
    return [
        Route(path, Endpoint(services, answer, openai_error, is_open=True), methods=["GET"]) for path, answer in pages
    ]


def _middleware(options: ApiOptions) -> list[Middleware]:
    if not options.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-speciate-tier", "retry-after", *RATE_LIMIT_NAMES],
        )
    ]


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown routes and methods, in OpenAI's shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    what = f"{request.method} {request.url.path}"
    message = f"{what} is not served here." if status == 404 else f"{what} is not allowed; see the Allow header."
    detail = {
        "message": message,
        "type": openai_type(status),
        "param": None,
        "code": {404: "unknown_url", 405: "method_not_allowed"}.get(status),
    }
    return Response(json.dumps({"error": detail}), status, headers, media_type="application/json")
