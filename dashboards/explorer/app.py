"""The explorer as an application: alone for one run, or inside the server of that run."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State, html
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from moalign.dashboards.explorer import comparing, examples, exporting, front, reading, tradeoff, training
from moalign.dashboards.explorer.gate import Gate, Mishaps
from moalign.dashboards.explorer.live import Live
from moalign.dashboards.explorer.page import page
from moalign.dashboards.explorer.parts import in_thread
from moalign.dashboards.theme import css_variables
from moalign.errors import RunError, UserError
from moalign.exploring import Scorers, Watch, pathless
from moalign.runs import Run
from moalign.serving.api.app import guards
from moalign.serving.api.guards import is_loopback
from moalign.serving.api.journal import places
from moalign.serving.api.refusals import RefusedError, on_http, on_refused
from moalign.serving.api.service import Service
from moalign.serving.limits import Limits
from moalign.serving.meter import Meter
from moalign.serving.server import address, answer_until_told, check_key, listen, log_to_stderr, warn

PREFIX = "/explore"
log = logging.getLogger(__name__)

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>moalign explorer</title>
<link rel="icon" href="data:,">
<style>VARIABLES</style>
{%css%}
</head>
<body>
{%app_entry%}
<noscript>The explorer needs JavaScript; the report of a run (moalign report RUN) does with less.</noscript>
{%config%}
{%scripts%}
{%renderer%}
</body>
</html>"""


def explorer_app(folder: Path, live: Live | None = None) -> ASGIApp:
    """The page of a run as an application of its own, for whoever mounts it at /explore.

    `live` says how texts are asked for; without it the page says how to get them.
    """
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, middleware=[Middleware(Mishaps)])
    watch, scorers = Watch(folder), Scorers()
    exporting.add_routes(server, watch)  # before Dash's own
    app = dash.Dash(
        "moalign.dashboards.explorer",
        server=server,  # type: ignore[arg-type]  # Dash declares Flask's alone
        backend="fastapi",
        requests_pathname_prefix=f"{PREFIX}/",
        routes_pathname_prefix="/",
        assets_folder=str(files("moalign.dashboards.explorer") / "assets"),
        index_string=_INDEX.replace("VARIABLES", css_variables()),
        serve_locally=True,
        enable_mcp=False,
        add_log_handler=False,
        update_title="",
        on_error=lambda error: _told(error, watch),
    )
    app.backend.websocket_capability = False  # callbacks are plain requests
    app.layout = lambda: _page(watch, live)
    _add_common(app, watch)
    front.register(app, watch)
    tradeoff.register(app, watch)
    reading.register(app, watch, scorers, live)
    examples.register(app, watch, scorers, live)
    training.register(app, watch)
    comparing.register(app, watch)
    return _at_root(Gate(server, app.callback_map, _policy(app, len(watch.now().run.objectives))))


def _at_root(gate: Gate) -> ASGIApp:
    """The application with the path below its mount, which is all that Dash knows how to compare."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = SimpleNamespace(path=PREFIX)  # what the server's log and its counts call it
        below = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        await gate({**scope, "path": below, "root_path": ""}, receive, send)

    return called


def _policy(app: dash.Dash, m: int) -> str:
    """What browsers let the page do (its CSP): run our scripts, and talk to us.

    Dash begins with one script in the page, which is named by its hash. Plotly writes its own styles, and what it draws
    with regl, the brushed coordinates and the matrix of more than three objectives, is compiled from strings.
    """
    scripts = ["'self'", *app.csp_hashes(), *(["'unsafe-eval'"] if m > 3 else [])]
    rules = {
        "default-src": "'self'",
        "script-src": " ".join(scripts),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def mount_explorer(app: FastAPI, service: Service) -> None:
    """Let a server answer at /explore too, with texts of its own."""
    chat = service.base.tokenizer.chat_template is not None
    live = Live.within(chat, service.limits.max_tokens, service.engine.context)
    _add_to(app, explorer_app(service.run.folder, live))


def _add_to(app: FastAPI, explorer: ASGIApp) -> None:
    """Mount the explorer; who leaves out the last slash is led to it, relatively, since a proxy may stand before us."""
    app.add_api_route(PREFIX, lambda: RedirectResponse(f"{PREFIX.lstrip('/')}/"), include_in_schema=False)
    app.mount(PREFIX, explorer)


def explore_run(
    run: Run,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Show a run in the browser until SIGTERM or Ctrl-C, without its base model: all but texts written live.

    Raises ConfigError if the port cannot be had or the key is none, and what reading the run raises.
    """
    check_key(api_key)
    with closing(listen(host, port)) as listening:
        warn(host, api_key, say)
        local = is_loopback(host) and api_key is None
        explorer = explorer_app(run.folder)
        say(f"{run.folder}: open {address(listening)}{PREFIX}/ (Ctrl-C ends it)")
        log_to_stderr()

        def made(lifespan: Lifespan[FastAPI]) -> FastAPI:
            app = FastAPI(
                docs_url=None,
                redoc_url=None,
                openapi_url=None,
                lifespan=lifespan,
                middleware=guards(Meter(), local, api_key, Limits().body_bytes),
                exception_handlers={RefusedError: on_refused, HTTPException: on_http},
            )
            app.add_api_route("/", lambda: RedirectResponse(PREFIX.lstrip("/") + "/"), include_in_schema=False)
            _add_to(app, explorer)
            return app

        asyncio.run(answer_until_told(made, listening, _at_once))


async def _at_once() -> None:
    """Nothing that a page asks for is worth waiting for."""


def _page(watch: Watch, live: Live | None) -> Any:
    """The page of the run as it is; a sentence where it cannot be read."""
    try:
        return page(watch.now(), watch.siblings(), live)
    except UserError as error:
        told = html.P(pathless(error, watch.folder), role="alert")
        return html.Main([html.H1("moalign explorer"), told], id="page")


def _told(error: Exception, watch: Watch) -> None:
    """What a callback raised, as a sentence in the page; all else stays as it was."""
    if isinstance(error, UserError):
        known = pathless(error, watch.folder)
        if watch.gone:  # which `look` tells, and takes back when the folder is there again
            dash.set_props("gone", {"children": known, "hidden": False})
            return
    else:
        # Without its message, which could repeat what somebody wrote.
        log.error("a part of the page failed: %s at %s", type(error).__name__, places(error))
        known = f"this part could not be made ({type(error).__name__}); the log of the server says where"
    dash.set_props("problem", {"children": known})
    dash.set_props("trouble", {"hidden": False})


def _add_common(app: dash.Dash, watch: Watch) -> None:
    app.clientside_callback(
        ClientsideFunction("explorer", "draw"),
        Output({"part": "graph", "name": dash.MATCH}, "figure"),
        Input({"part": "data", "name": dash.MATCH}, "data"),
        Input("plan", "data"),
        Input("scheme", "data"),
        State("schemes", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("explorer", "place"), Output("live", "data"), Input("schemes", "data"), State("live", "data")
    )

    @app.callback(
        Output("state", "data"),
        Output("gone", "children"),
        Output("gone", "hidden"),
        Input("beat", "n_intervals"),
        State("state", "data"),
        prevent_initial_call=True,
    )
    @in_thread
    def look(_beat: int, token: str) -> tuple[Any, str, bool]:
        """Whether the folder has changed, or gone."""
        try:
            found = watch.now().token
        except RunError as error:
            return dash.no_update, pathless(error, watch.folder), False
        return dash.no_update if found == token else found, "", True
