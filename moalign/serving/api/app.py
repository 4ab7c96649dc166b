"""The routes: OpenAI's, and those of whoever runs the server."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Lifespan

from moalign import __version__
from moalign.serving.api.answering import Answer
from moalign.serving.api.asking import ask_for
from moalign.serving.api.catalog import card, cards
from moalign.serving.api.document import document, errors, posted
from moalign.serving.api.guards import BodyGuard, HostGuard, KeyGuard
from moalign.serving.api.journal import GONE, Journal
from moalign.serving.api.reading import read
from moalign.serving.api.refusals import RefusedError, encoded, on_http, on_refused
from moalign.serving.api.replies import ChatChunk, ChatReply, ModelCard, ModelList, State, TextChunk, TextReply
from moalign.serving.api.schema import ChatRequest, CompletionRequest
from moalign.serving.api.service import Service
from moalign.serving.api.shapes import CHAT, TEXT, Shape, plan_of, usage
from moalign.serving.api.streaming import HEADERS, events
from moalign.serving.meter import Meter

BODY_SECONDS = 30.0  # for a whole body to arrive
_RETRY = {"Retry-After": "5"}
_DESCRIPTION = (
    "OpenAI's interface to one run: every request may name its own trade-off, in `weights` or in the name of the model."
)


def create_app(service: Service, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The application of a service, whose engine is started and stopped by whoever made it.

    Docs pages are off, since FastAPI's load scripts from elsewhere; /openapi.json says it all.
    """
    app = FastAPI(
        title="moalign",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=guards(service.meter, service.local, service.api_key, service.limits.body_bytes),
        exception_handlers={RefusedError: on_refused, HTTPException: on_http},
    )
    _add_models(app, service)
    _add_completions(app, service)
    _add_state(app, service)
    app.openapi = lambda: document(app, service)
    return app


def guards(meter: Meter, local: bool, key: str | None, body_bytes: int) -> list[Middleware]:
    """What every request passes before a route sees it, the outermost first."""
    return [
        Middleware(Journal, meter=meter),
        Middleware(HostGuard, local=local),
        Middleware(KeyGuard, key=key),
        Middleware(BodyGuard, most=body_bytes, seconds=BODY_SECONDS),
    ]


def _add_completions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", **posted(ChatRequest, ChatReply, ChatChunk))
    async def chat(request: Request) -> Response:
        """Answer a conversation."""
        return await _answered(service, request, await read(_open(request, service), ChatRequest), CHAT)

    @app.post("/v1/completions", **posted(CompletionRequest, TextReply, TextChunk))
    async def complete(request: Request) -> Response:
        """Continue a text."""
        return await _answered(service, request, await read(_open(request, service), CompletionRequest), TEXT)


def _open(request: Request, service: Service) -> Request:
    """The request, if it may come in. Raises RefusedError (503) while the server is stopping or not ready."""
    if not service.ready:
        why = "is stopping" if service.stopping else "is not ready"
        raise RefusedError(
            503, f"the server {why}", code="stopping" if service.stopping else "not_ready", headers=_RETRY
        )
    return request


async def _answered(
    service: Service, request: Request, asked: ChatRequest | CompletionRequest, shape: Shape
) -> Response:
    ask = await service.prepare(lambda: ask_for(service, asked))
    streamed = bool(asked.stream)
    head = shape.head(asked.model, f"base-{service.base.digest[:12]}", streamed)
    plan = plan_of(ask.plan.as_dict(), ask.seed)
    answer = Answer.to(ask, service, request.receive)
    if streamed:
        stream = events(answer, shape, head, plan, ask.prompt_tokens, asked.usage_chunk)
        return StreamingResponse(stream, headers=HEADERS, media_type="text/event-stream")
    written = await answer.whole()
    if answer.gone:
        return Response(status_code=GONE)
    choices = [shape.whole(index, each) for index, each in enumerate(written)]
    return _json({**head, "choices": choices, "usage": usage(ask.prompt_tokens, written), "moalign": plan})


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=ModelList, responses=errors(401, 500))
    async def models() -> Response:
        """Every model, and how to write a preference into its name."""
        return _json({"object": "list", "data": await service.prepare(lambda: cards(service))})

    @app.get("/v1/models/{model}", response_model=ModelCard, responses=errors(400, 401, 404, 500))
    async def one_model(model: str) -> Response:
        """One model; a mixture, moalign@NAME=WEIGHT,NAME=WEIGHT, comes with its plan."""
        return _json(await service.prepare(lambda: card(service, model)))


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=State, responses=errors(500))
    async def health() -> Response:
        """Whether the process lives; asked without a key."""
        return _json({"status": "ok"})

    @app.get("/ready", response_model=State, responses=errors(500, 503))
    async def ready(request: Request) -> Response:
        """Whether requests are taken now; asked without a key."""
        _open(request, service)
        return _json({"status": "ok"})

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"}

    @app.get("/metrics", response_model=None, responses={200: text, **errors(401, 500)})
    async def metrics() -> Response:
        """Queue, batch, speed, times and counts."""
        return Response(service.meter.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _json(body: Mapping[str, Any]) -> Response:
    return Response(encoded(body), media_type="application/json")
