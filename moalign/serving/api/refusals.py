"""How a request is refused: one error, in OpenAI's shape, with a status and a line that helps."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from moalign.errors import BusyError

_SHOWN = 60  # characters of what came that a message repeats

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
MEANINGS = {
    400: "The request cannot be answered as it is; the message says why.",
    401: "The API key is missing or wrong.",
    404: "There is no such model or path.",
    405: "The path knows no such method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    421: "The server answers for its own machine alone, and the request names another host.",
    429: "Too many requests wait already; Retry-After says when to come again.",
    500: "The server made a mistake; its log names the request by its id.",
    503: "The server is stopping, or not ready yet.",
}


class RefusedError(Exception):
    """A request that is not answered: HTTP `status`, one line, and the field (`param`) that it is about.

    >>> RefusedError(400, "n is 0; expected at least 1", param="n").body["error"]["type"]
    'invalid_request_error'
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """What OpenAI's clients read."""
        return {
            "error": {
                "message": self.message,
                "type": _KINDS.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """The answer over HTTP."""
        return Response(encoded(self.body), self.status, self.headers, media_type="application/json")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))  # once: a chunk per token


def encoded(body: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8. Raises ValueError for NaN and infinity, which JSON does not have."""
    # Half of a surrogate pair, should a tokenizer write one, becomes "?".
    return _ENCODER.encode(body).encode("utf-8", "replace")


def shown(text: object) -> str:
    """What came, cut to what a message can hold.

    >>> shown("x" * 100).endswith("x...'")
    True
    """
    cut = str(text)
    return repr(cut if len(cut) <= _SHOWN else cut[:_SHOWN] + "...")


def busy(error: BusyError, stopping: bool) -> RefusedError:
    """Too many requests, or a server that is about to end; both say when to come again."""
    status, code = (503, "stopping") if stopping else (429, "queue_full")
    wait = str(max(1, round(error.retry_after)))
    return RefusedError(status, f"{error}; try again in {wait} s", code=code, headers={"Retry-After": wait})


async def on_refused(_request: Request, error: Exception) -> Response:
    """For FastAPI: what a route refused."""
    assert isinstance(error, RefusedError)
    return error.response()


async def on_http(request: Request, error: Exception) -> Response:
    """For FastAPI: paths and methods that there are not."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        paths = sorted({str(getattr(route, "path", "")) for route in request.app.routes} - {""})
        return RefusedError(404, f"there is no such path; there are {', '.join(paths)}", code="no_such_path").response()
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"this path is not for {shown(request.method)}; expected {allowed or 'another method'}"
        return RefusedError(405, message, code="no_such_method", headers=error.headers).response()
    return RefusedError(error.status_code, str(error.detail), headers=error.headers).response()
