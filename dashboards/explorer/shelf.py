"""The files of the page, kept compressed: scripts of some megabytes, which a browser may ask for on a slow line."""

import asyncio
import gzip

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moalign.files import digest

_LEAST = 1000  # bytes
_MOST = 40  # files that are kept; the page has two dozen


class Shelf:
    """Passes files through from `app`, of which one copy is kept, compressed in a thread, as long as the process lives.

    Compressing them anew for each page would hold up the texts of everybody else. A browser that has this very copy is
    told so, and reads nothing.
    """

    def __init__(self, app: ASGIApp):
        self._app = app
        self._kept: dict[str, tuple[Headers, bytes, str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the file, as it is or compressed, whichever the browser can read."""
        asked = Headers(scope=scope)
        if "gzip" not in asked.get("accept-encoding", ""):
            return await self._app(scope, receive, send)
        name = scope["path"]  # without the query, which anybody may make up
        if name not in self._kept:
            status, headers, body = await _whole(self._app, scope, receive)
            if status != 200 or len(body) < _LEAST or len(self._kept) >= _MOST:
                return await _answer(status, headers, body)(scope, receive, send)
            packed = await asyncio.to_thread(gzip.compress, body, 6, mtime=0)
            self._kept[name] = headers, packed, f'"{digest(packed)}"'
        headers, packed, tag = self._kept[name]
        response = _answer(200, headers, packed)
        if asked.get("if-none-match") == tag:
            response = Response(status_code=304, headers={"cache-control": headers.get("cache-control", "no-cache")})
        response.headers["content-encoding"] = "gzip"
        response.headers["vary"] = "accept-encoding"
        response.headers["etag"] = tag
        await response(scope, receive, send)


async def _whole(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[int, Headers, bytes]:
    status, headers, parts = 500, Headers(), []

    async def kept(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], Headers(raw=message["headers"])
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, kept)
    return status, headers, b"".join(parts)


def _answer(status: int, headers: Headers, body: bytes) -> Response:
    response = Response(body, status)
    response.raw_headers = [pair for pair in headers.raw if pair[0] != b"content-length"]
    length = MutableHeaders(raw=response.raw_headers)
    length["content-length"] = str(len(body))
    return response
