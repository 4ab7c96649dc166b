"""The OpenAPI document: what the routes take and give, told so that a machine can hold them to it."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from moalign.serving.api.refusals import MEANINGS
from moalign.serving.api.replies import ChatChunk, ErrorReply, TextChunk
from moalign.serving.api.schema import ChatRequest, CompletionRequest
from moalign.serving.api.service import Service
from moalign.serving.api.wishes import BASE, MIXED, example
from moalign.serving.plan import POLICIES

_PLACE = "#/components/schemas/"


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of these statuses, and of a wrong host, for a route's `responses`."""
    return {status: {"model": ErrorReply, "description": MEANINGS[status]} for status in (*statuses, 421)}


def posted(request: type[BaseModel], reply: type[BaseModel], chunk: type[BaseModel]) -> dict[str, Any]:
    """How a route that reads its own body, and answers it whole or as a stream, is documented."""
    chunks = {"anyOf": [_named(chunk), _named(ErrorReply)]}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": chunks}
    event = {"type": "object", "required": ["data"], "properties": {"data": {"anyOf": [{"const": "[DONE]"}, data]}}}
    return {
        "response_model": reply,
        "responses": {
            200: {
                "content": {"text/event-stream": {"itemSchema": event}},
                "description": "Whole, or with stream: true as server-sent events, of which the last is [DONE]",
            },
            **errors(400, 401, 404, 408, 413, 415, 429, 500, 503),
        },
        "openapi_extra": {
            "requestBody": {"required": True, "content": {"application/json": {"schema": _named(request)}}}
        },
    }


def document(app: FastAPI, service: Service) -> dict[str, Any]:
    """FastAPI's document, with the bodies that the routes read themselves, and the key if there is one.

    Models, objectives and policies are given as examples: what there is depends on the run.
    """
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = found["components"]["schemas"]
        schemas |= _bodies(service)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for methods in found["paths"].values():
            for route in methods.values():
                route["responses"].pop("422", None)  # FastAPI's own, which is never given here
        if service.api_key is not None:
            found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"key": []}]
        app.openapi_schema = found
    return app.openapi_schema


def _bodies(service: Service) -> dict[str, Any]:
    requests, chunks = (ChatRequest, CompletionRequest), (ChatChunk, TextChunk)
    wanted = [(model, "validation") for model in requests] + [(model, "serialization") for model in chunks]
    _, found = models_json_schema(wanted, ref_template=_PLACE + "{model}")  # pyright: ignore[reportArgumentType]
    objectives = service.planner.objectives
    for request in requests:
        fields = found["$defs"][request.__name__]["properties"]
        fields["model"]["examples"] = [MIXED, example(objectives), BASE, *service.planner.names]
        fields["weights"]["examples"] = [dict.fromkeys(objectives, 1.0)]
        fields["policy"]["examples"] = list(POLICIES)
    return found["$defs"]


def _named(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _PLACE + model.__name__}
