"""One line per request in the log: its id, method, pattern, status and time; nothing that it said.

Paths, queries, prompts and answers never reach the log: they may hold what is private, and line breaks or escapes that
forge what a log says. A mistake of the server's is logged by its kind and its place, without its message, which could
repeat a prompt. What the explorer's pages ask for is logged at DEBUG unless it is refused.
"""

import logging
import time
import traceback
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moalign.serving.api.guards import PAGES
from moalign.serving.api.refusals import RefusedError
from moalign.serving.meter import Meter

log = logging.getLogger(__name__)

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
GONE = 499  # what logs say of a client that did not wait for its answer


class Journal:
    """The outermost layer: gives each request an id, turns mistakes into 500, writes the line and counts."""

    def __init__(self, app: ASGIApp, meter: Meter):
        self.app, self._meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, whatever comes of it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        name, begun, status = uuid4().hex, time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", name.encode())]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            pass  # while its body was read
        except Exception as error:
            log.error("request %s failed: %s at %s", name, type(error).__name__, places(error))
            if not status:  # of a stream that has begun, the rest is missing, which its reader notices
                message = f"the server made a mistake; its log names this request {name}"
                await RefusedError(500, message, code="internal_error").response()(scope, receive, noted)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            self._meter.responded(path, status or GONE)
            # A page asks every few seconds, and for two dozen files when it is opened.
            level = logging.DEBUG if path == PAGES and status < 400 else logging.INFO
            log.log(level, "%s %s %s %s %.3f s", name, method, path, status or GONE, time.monotonic() - begun)


def places(error: BaseException) -> str:
    """Where it was raised, from the inside out, without what it says."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
