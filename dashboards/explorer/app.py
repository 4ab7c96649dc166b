"""The explorer as an application: alone for one run, or inside the server of that run."""

import logging
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dash
import uvicorn
from dash import ClientsideFunction, Input, Output, State
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from moalign.dashboards.explorer import comparing, examples, exporting, front, reading, tradeoff, training
from moalign.dashboards.explorer.page import page
from moalign.dashboards.explorer.parts import in_thread
from moalign.dashboards.theme import css_variables
from moalign.errors import RunError, UserError
from moalign.exploring import Scorers, Watch
from moalign.runs import Run
from moalign.serving.api.guards import HostGuard, is_loopback
from moalign.serving.api.service import Service
from moalign.serving.server import address, listen

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


def explorer_app(folder: Path, live: reading.Live | None = None) -> ASGIApp:
    """The page of a run as an application of its own, for whoever mounts it at /explore.

    `live` says how texts are asked for; without it the page says how to get them.
    """
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
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
        on_error=_told,
    )
    app.backend.websocket_capability = False  # callbacks are plain requests
    app.layout = lambda: _page(watch, live)
    _add_common(app, watch)
    front.register(app, watch)
    tradeoff.register(app, watch)
    reading.register(app, watch, scorers, live)
    examples.register(app, watch)
    training.register(app, watch)
    comparing.register(app, watch)
    return _at_root(server)


def _at_root(server: FastAPI) -> ASGIApp:
    """The application with the path below its mount, which is all that Dash knows how to compare."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = SimpleNamespace(path=PREFIX)  # what the server's log and its counts call it
        below = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        await server({**scope, "path": below, "root_path": ""}, receive, send)

    return called


def mount_explorer(app: FastAPI, service: Service) -> None:
    """Let a server answer at /explore too, with texts of its own."""
    chat = service.base.tokenizer.chat_template is not None
    _add_to(app, explorer_app(service.run.folder, reading.Live(chat, service.limits.max_tokens)))


def _add_to(app: FastAPI, explorer: ASGIApp) -> None:
    """Mount the explorer; who leaves out the last slash is led to it, relatively, since a proxy may stand before us."""
    app.add_api_route(PREFIX, lambda: RedirectResponse(f"{PREFIX.lstrip('/')}/"), include_in_schema=False)
    app.mount(PREFIX, explorer)


def explore_run(run: Run, *, host: str = "127.0.0.1", port: int = 8000, say: Callable[[str], None] = print) -> None:
    """Show a run in the browser until Ctrl-C, without its base model: all but texts written live.

    Raises ConfigError if the port cannot be had.
    """
    with closing(listen(host, port)) as listening:
        local = is_loopback(host)
        if not local:
            say(f"warning: {host} can be reached from other machines, and anybody there may read this run")
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, middleware=[Middleware(HostGuard, local=local)])
        app.add_api_route("/", lambda: RedirectResponse(f"{PREFIX}/"), include_in_schema=False)
        _add_to(app, explorer_app(run.folder))
        say(f"{run.folder}: open {address(listening)}{PREFIX}/ (Ctrl-C ends it)")
        config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, ws="none")
        uvicorn.Server(config).run(sockets=[listening])


def _page(watch: Watch, live: reading.Live | None) -> Any:
    """The page of the run as it is; a sentence where it cannot be read."""
    try:
        return page(watch.now(), watch.siblings(), live)
    except UserError as error:
        return dash.html.Main([dash.html.H1("moalign explorer"), dash.html.P(str(error), role="alert")], id="page")


def _told(error: Exception) -> None:
    """What a callback raised, as a sentence in the page; all else stays as it was."""
    known = str(error)
    if not isinstance(error, UserError):
        log.error("a part of the page failed", exc_info=error)
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
            return dash.no_update, str(error), False
        return dash.no_update if found == token else found, "", True
