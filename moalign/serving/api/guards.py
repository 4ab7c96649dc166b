"""What a request must pass before a route sees it: the host, the key, and a body that does come."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moalign.serving.api.refusals import RefusedError

OPEN = ("/health", "/ready")  # what a supervisor asks, who need not hold the key
PAGES = "/explore"  # what people open in a browser
_BASIC = 'Basic realm="moalign: the password is the API key"'


class HostGuard:
    """On a server for this machine alone, only requests that name this machine as their host; 421 for others.

    A page of another site can point its own name here (DNS rebinding), and would then be no stranger to a browser.
    """

    def __init__(self, app: ASGIApp, local: bool):
        self.app, self._local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 421."""
        asked = self._local and scope["type"] == "http"  # the lifespan of a server has no headers
        if asked and not is_loopback(_named(_header(scope, b"host") or b"localhost")):
            message = "this server answers for this machine alone: ask it as localhost, or start it with an API key"
            return await RefusedError(421, message, code="other_host").response()(scope, receive, send)
        await self.app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; other names than localhost count as reachable.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class KeyGuard:
    """Asks every request but /health and /ready for the key, as OpenAI's clients send it: `Authorization: Bearer KEY`.

    A browser is asked for it on the pages under /explore, and gives it as the password of any user (HTTP Basic). For
    what these pages ask of /v1 it waits to be asked in the same way, as no other client is. Keys are compared in
    constant time, so that an answer's delay says nothing about how much of one was right.
    """

    def __init__(self, app: ASGIApp, key: str | None):
        self.app, self._expected = app, None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 401."""
        if scope["type"] == "http" and self._expected is not None and scope["path"] not in OPEN:
            given = _given_key(_header(scope, b"authorization") or b"")
            if not hmac.compare_digest(given, self._expected):
                message = "this server asks for its API key: Authorization: Bearer KEY"
                headers = {"WWW-Authenticate": _BASIC if _of_a_page(scope) else "Bearer"}
                refused = RefusedError(401, message, code="invalid_api_key", headers=headers)
                return await refused.response()(scope, receive, send)
        await self.app(scope, receive, send)


def _of_a_page(scope: Scope) -> bool:
    """Whether it is a page of ours that is asked for, or that asks; only browsers say the latter, for their users."""
    if scope["path"] == PAGES or scope["path"].startswith(f"{PAGES}/"):
        return True
    origin, host = _header(scope, b"origin"), _header(scope, b"host")
    own = origin is not None and host is not None and origin.partition(b"://")[2].lower() == host.lower()
    # A proxy may have given us another host than the browser knows; over https the browser says this too.
    return own or _header(scope, b"sec-fetch-site") == b"same-origin"


def _given_key(header: bytes) -> bytes:
    """The key of an Authorization header; empty, which is no key, if it holds none.

    >>> _given_key(b"Bearer sk-1"), _given_key(b"Basic bWU6c2stMQ=="), _given_key(b"Basic ?")
    (b'sk-1', b'sk-1', b'')
    """
    scheme, _, rest = header.partition(b" ")
    if scheme.title() == b"Bearer":
        return rest.strip()
    try:
        return base64.b64decode(rest.strip(), validate=True).partition(b":")[2] if scheme.title() == b"Basic" else b""
    except binascii.Error:
        return b""


class BodyGuard:
    """Bodies of at most `most` bytes, however they are sent, that arrive within `seconds` of their first being read."""

    def __init__(self, app: ASGIApp, most: int, seconds: float):
        self.app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through; a body that is too large or too slow raises RefusedError where it is read."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        length = _header(scope, b"content-length") or b"0"
        if not length.isdigit() or len(length) > 18 or int(length) > self._most:
            return await self._too_large().response()(scope, receive, send)
        await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        left, whole = self._most, False
        deadline: float | None = None

        async def next_message() -> Message:
            nonlocal left, whole, deadline
            if whole:
                return await receive()  # no longer the body: the news that the client has gone, which may take long
            deadline = deadline or asyncio.get_running_loop().time() + self._seconds
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                text = f"the body did not arrive within {self._seconds:g} s"
                raise RefusedError(408, text, code="slow_body", headers={"Connection": "close"}) from error
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if left < 0:
                    raise self._too_large()
            return message

        return next_message

    def _too_large(self) -> RefusedError:
        message = f"the body is larger than the {self._most} bytes that this server takes"
        return RefusedError(413, message, code="body_too_large", headers={"Connection": "close"})


def _named(host: bytes) -> str:
    """The host of a Host header, without its port."""
    try:
        return (urlsplit(b"//" + host).hostname or b"").decode("latin-1")
    except ValueError:
        return ""


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)
