"""`moalign serve`: one run on one port, from the first line printed to a clean end."""

import asyncio
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing

import uvicorn
from fastapi import FastAPI
from starlette.types import Lifespan

from moalign.bank import AdapterBank
from moalign.errors import ConfigError, unknown
from moalign.models import load_base
from moalign.preference import Preference
from moalign.runs import Run
from moalign.serving.api.app import create_app
from moalign.serving.api.guards import PAGES, is_loopback
from moalign.serving.api.service import Service
from moalign.serving.api.wishes import example
from moalign.serving.engine import Engine
from moalign.serving.limits import Limits
from moalign.serving.meter import Meter
from moalign.serving.plan import POLICIES, Planner

_LONG_KEY = 16  # characters; nobody counts wrong keys here
# How often a thread that computes for a page gives way: with Python's own 5 ms, each token that is sent waits so long.
_SWITCH_SECONDS = 0.0005
_FLUSH_SECONDS = 5  # for the last bytes of finished answers, once the engine has stopped


def serve_run(
    run: Run,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    limits: Limits | None = None,
    policy: str | None = None,
    drain_seconds: float = 30.0,
    say: Callable[[str], None] = print,
    extend: Callable[[FastAPI, Service], None] | None = None,
) -> None:
    """Serve a run until SIGTERM or SIGINT: then new requests get 503, and those in flight `drain_seconds` to finish.

    A second signal ends them at once. `policy` is what weights mean in requests that name none. Port 0 takes any free
    one. `say` is given the few lines for whoever started it; requests are logged to standard error. `extend` may add to
    the application, as `moalign.dashboards.explorer` adds its page.

    The port is taken before the model is loaded. Raises ConfigError if it cannot be had or the policy is not one for
    this run, RunError for a run without adapters, and what loading the base and the adapters raises.
    """
    check_key(api_key)
    with closing(listen(host, port)) as listening:
        warn(host, api_key, say)
        service = load_service(run, limits or Limits(), policy, api_key)
        service.local = is_loopback(host) and api_key is None
        models = len(service.planner.names)
        say(f"{run.folder}: {models} adapters over {', '.join(run.objectives)}; policy {service.default_policy}")
        say(f"listening on {address(listening)}/v1, for example with model {example(service.planner.objectives)}")
        if extend is not None:
            say(f"to look at it in a browser: {address(listening)}{PAGES}/")
        log_to_stderr()
        asyncio.run(_serve(service, listening, drain_seconds, extend))


def check_key(key: str | None) -> None:
    """Raise ConfigError for a key that no client could send."""
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise ConfigError("the API key is empty, or holds spaces around it or characters that a header cannot carry")


def warn(host: str, key: str | None, say: Callable[[str], None]) -> None:
    """Say what is risky about who may come in."""
    if not is_loopback(host) and key is None:
        say(f"warning: {host} can be reached from other machines, and there is no API key; set MOALIGN_API_KEY")
    if key is not None and len(key) < _LONG_KEY:
        say(f"warning: an API key of {len(key)} characters can be guessed; use {_LONG_KEY} random ones or more")


def load_service(run: Run, limits: Limits, policy: str | None = None, api_key: str | None = None) -> Service:
    """Load everything that answers for a run; what needs no model is checked first."""
    planner = Planner.of(run)
    if policy is not None and policy not in POLICIES:
        raise ConfigError(unknown("policy", policy, POLICIES))
    planner.plan(Preference.of(dict.fromkeys(run.objectives, 1.0)), policy)  # a policy that this run lacks fails now
    base = load_base(run.config.base, device=run.config.device, dtype=run.config.dtype)
    adapters = {key: run.store.load(key) for key in planner.adapters}
    meter = Meter()
    engine = Engine(base, AdapterBank(base.model, adapters) if adapters else None, limits, meter)
    return Service(run, base, planner, engine, limits, meter, api_key, policy)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound and listening, so that a second server on the port fails at once.

    Who connects while the model is loaded is answered when it is. Raises ConfigError, with the fix.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"port {port}; expected 0 to 65535")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"host {host!r} is no address of this machine; expected one such as 127.0.0.1") from error
    found = socket.socket(family, kind, protocol)
    try:
        # A port that an ended server has left a moment ago may be taken; one that is listened on may not.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, sys.platform != "win32")
        found.bind(where)
        found.listen(2048)
    except OSError as error:
        found.close()
        reasons = {
            errno.EADDRINUSE: f"is in use, perhaps by another server; stop that one or choose another, such as --port "
            f"{port + 1 if port < 65535 else 8000}",
            errno.EACCES: "may not be opened by this user; choose one above 1023 with --port",
            errno.EADDRNOTAVAIL: "cannot be opened: this machine has no such address; choose another --host",
        }
        reason = reasons.get(error.errno or 0, f"cannot be opened ({error.strerror})")
        raise ConfigError(f"port {port} of {host} {reason}") from error
    return found


def address(listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve(
    service: Service,
    listening: socket.socket,
    drain_seconds: float,
    extend: Callable[[FastAPI, Service], None] | None = None,
) -> None:
    """Run the application until it is told to end and has finished."""

    def made(lifespan: Lifespan[FastAPI]) -> FastAPI:
        app = create_app(service, lifespan)
        if extend is not None:
            extend(app, service)
        return app

    async def finish() -> None:
        hurry, service.stopping = service.stopping, True
        await asyncio.to_thread(service.engine.stop, 0.0 if hurry else drain_seconds)

    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    service.engine.start()
    try:
        await answer_until_told(made, listening, finish)
    finally:
        await asyncio.to_thread(service.engine.stop, 0.0)
        sys.setswitchinterval(before)


async def answer_until_told(
    made: Callable[[Lifespan[FastAPI]], FastAPI], listening: socket.socket, finish: Callable[[], Awaitable[None]]
) -> None:
    """Answer until SIGTERM or SIGINT; then `finish` is awaited, at each signal anew, before the port is closed.

    `made` gives the application for a lifespan.
    """
    ending: set[asyncio.Task[None]] = set()

    async def end() -> None:
        await finish()
        server.should_exit = True

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        # uvicorn's own handlers, set a moment ago, would close the port first and let the signal end the process.
        for number in (signal.SIGTERM, signal.SIGINT) if _is_main_thread() else ():
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(lambda: ending.add(loop.create_task(end()))))
        yield

    config = uvicorn.Config(
        made(lifespan),
        lifespan="on",
        log_config=None,
        access_log=False,  # it would write raw paths
        server_header=False,
        ws="none",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_FLUSH_SECONDS,
    )
    server = uvicorn.Server(config)
    await server.serve(sockets=[listening])


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def log_to_stderr() -> None:
    """Requests of this server, and what uvicorn warns of."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("moalign", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
