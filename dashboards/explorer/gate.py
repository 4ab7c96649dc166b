"""What stands before Dash: which requests it sees, how many at once, and the rules under which browsers run the page.

Dash answers a callback that no page of ours would send with 500, and has routes for those who develop. Here only what
the page asks for passes, and a callback is put together anew from what is registered; the page gives no more than the
values. Work for pages is done `_AT_ONCE` at a time, since threads of Python take time from those who write texts.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from dash.exceptions import DependencyException, PreventUpdate
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moalign.dashboards.explorer.shelf import Shelf
from moalign.serving.api.journal import places
from moalign.serving.api.reading import parsed
from moalign.serving.api.refusals import RefusedError, shown

log = logging.getLogger(__name__)

CALLBACK = "/_dash-update-component"
_FILES = ("/assets/", "/_dash-component-suites/")
_READ = ("/", "/_dash-layout", "/_dash-dependencies", "/report.html", "/points.csv", "/steps.csv", "/texts.csv")
_AT_ONCE = 2
_WAITING = 200  # a dozen pages that are opened in the same moment

Known = Mapping[str, Mapping[str, Any]]


class Gate:
    """Passes on what the page asks for. `known` are Dash's callbacks by their output, `policy` the page's CSP."""

    def __init__(self, app: ASGIApp, known: Known, policy: str):
        self._app, self._known = app, known
        self._shelf = Shelf(app)
        self._headers = {
            "content-security-policy": policy,
            "x-frame-options": "DENY",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }
        self._waiting = 0
        self._free: asyncio.Semaphore | None = None  # made in the loop that uses it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever it is."""
        if scope["type"] != "http":
            return  # no lifespan of its own, and no web sockets

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("cache-control", "no-cache" if scope["path"].startswith(_FILES) else "no-store")
            await send(message)

        try:
            await self._pass(scope, receive, guarded)
        except RefusedError as refused:
            await refused.response()(scope, receive, guarded)
        except ClientDisconnect:
            pass

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        _check_site(request)
        path, method = scope["path"], scope["method"]
        if path == CALLBACK:
            _check_method(method, "POST")
            body = await _body(request, self._known)
            async with self._turn(request):
                return await self._app(_with_length(scope, body), _given(body, receive), send)
        if path.startswith(_FILES):
            _check_method(method, "GET")
            return await self._shelf(scope, receive, send)
        if path not in _READ:
            raise RefusedError(404, "the explorer has no such page", code="no_such_path")
        _check_method(method, "GET")
        async with self._turn(request):
            await self._app(scope, _given(b"", receive), send)

    @asynccontextmanager
    async def _turn(self, request: Request) -> AsyncIterator[None]:
        """Wait for a place. Raises RefusedError (503) where too many wait, ClientDisconnect for who has gone."""
        free = self._free = self._free or asyncio.Semaphore(_AT_ONCE)
        if self._waiting >= _WAITING:
            raise RefusedError(
                503, "too many pages are open; try again in 5 s", code="busy", headers={"Retry-After": "5"}
            )
        self._waiting += 1
        try:
            await free.acquire()
        finally:
            self._waiting -= 1
        try:
            if await request.is_disconnected():
                raise ClientDisconnect
            yield
        finally:
            free.release()


class Mishaps:
    """Innermost, within what Dash wraps around its routes and where it would hide a mistake: logged by kind and place.

    What a callback raises comes here only if it could not be told in the page.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 for files that there are not, and 500 without a word of what went wrong for anything else."""
        try:
            await self.app(scope, receive, send)
        except PreventUpdate:
            raise
        except DependencyException:
            await RefusedError(404, "the page has no such file", code="no_such_path").response()(scope, receive, send)
        except Exception as error:
            log.error("the page failed: %s at %s", type(error).__name__, places(error))
            message = "the server made a mistake; its log says where"
            await RefusedError(500, message, code="internal_error").response()(scope, receive, send)


def _check_site(request: Request) -> None:
    """Only a click leads here from another site; nothing of the page is loaded, framed or asked for from there."""
    site, mode = (request.headers.get(f"sec-fetch-{name}", "") for name in ("site", "mode"))
    click = mode == "navigate" and request.headers.get("sec-fetch-dest") == "document"
    if site in ("cross-site", "same-site") and not (click and request.method == "GET"):
        raise RefusedError(403, "this page answers to itself alone, and not to other sites", code="other_site")


def _check_method(method: str, expected: str) -> None:
    if method != expected:
        message = f"this path is not for {shown(method)}; expected {expected}"
        raise RefusedError(405, message, code="no_such_method", headers={"Allow": expected})


async def _body(request: Request, known: Known) -> bytes:
    """A callback as Dash expects it. Raises RefusedError: 415 unless it is said to be JSON, 400 for what is wrong."""
    # Other types may be sent by any site without being asked first.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "a callback is application/json", code="not_json")
    return json.dumps(call(parsed(await request.body()), known)).encode()


def call(given: Any, known: Known) -> dict[str, Any]:
    """A callback with the values that a page gives, and all else as it is registered.

    Raises RefusedError (400) for what no page of this run sends.
    """
    output = given.get("output") if isinstance(given, dict) else None
    callback = known.get(output) if isinstance(output, str) else None
    if callback is None or "callback" not in callback:
        raise _stale("has no such callback")
    assert isinstance(output, str)
    inputs = [_valued(each, found) for each, found in _pairs(given.get("inputs"), callback["inputs"])]
    states = [_valued(each, found) for each, found in _pairs(given.get("state", []), callback["state"])]
    names = {f"{each['id']}.{each['property']}" for each in callback["inputs"]}
    changed = given.get("changedPropIds", [])
    if not isinstance(changed, list) or len(changed) > len(names):
        raise _stale("lists no such changes")
    outputs = [_output(each) for each in output.strip(".").split("...")]
    return {
        "output": output,
        "outputs": outputs if output.startswith("..") else outputs[0],
        "inputs": inputs,
        "state": states,
        "changedPropIds": [name for name in changed if isinstance(name, str) and name in names],
    }


def _pairs(given: Any, expected: list[dict[str, str]]) -> list[tuple[dict[str, Any], dict[str, str]]]:
    if not isinstance(given, list) or len(given) != len(expected) or not all(isinstance(each, dict) for each in given):
        raise _stale(f"gives {len(expected)} values")
    return list(zip(given, expected, strict=True))


def _valued(given: dict[str, Any], expected: dict[str, str]) -> dict[str, Any]:
    found = {"id": _id(expected["id"]), "property": expected["property"]}
    if {name: given.get(name) for name in found} != found:
        raise _stale("names its values otherwise")
    return {**found, "value": given.get("value")}


def _output(written: str) -> dict[str, Any]:
    name, _, attribute = written.rpartition(".")
    return {"id": _id(name), "property": attribute.partition("@")[0]}


def _id(written: str) -> Any:
    return json.loads(written) if written.startswith("{") else written


def _stale(what: str) -> RefusedError:
    return RefusedError(400, f"the explorer of this run {what}; load the page again", code="bad_callback")


def _with_length(scope: Scope, body: bytes) -> Scope:
    rest = [(name, value) for name, value in scope["headers"] if name not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*rest, (b"content-length", str(len(body)).encode())]}


def _given(body: bytes, receive: Receive) -> Receive:
    """`receive` for whoever reads the body a second time."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return left.pop() if left else await receive()

    return received
