"""A server of a run made by hand: in this process for one request at a time, or on a port for many."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from made_runs import made_run
from stand_in_engine import StandInEngine
from starlette.testclient import TestClient

from moalign.models import BaseModel
from moalign.runs import Run
from moalign.serving.api.app import create_app
from moalign.serving.api.service import Service
from moalign.serving.limits import Limits
from moalign.serving.meter import Meter
from moalign.serving.plan import Planner
from moalign.serving.server import address, listen


def made_service(
    folder: Path,
    base: BaseModel,
    *,
    room: int = 8,
    pause: float = 0.0,
    limits: Limits | None = None,
    run: Run | None = None,
    **options: Any,
) -> Service:
    """A run, by default of three points over warm and brief, and the stand-in engine, which is not started."""
    made, meter = run or made_run(folder), Meter()
    engine = StandInEngine(base.tokenizer, meter, base.context, room, pause)
    return Service(made, base, Planner.of(made), engine, limits or Limits(), meter, **options)


@contextmanager
def client_of(service: Service, **headers: str) -> Iterator[TestClient]:
    """A client without a network, while the engine runs. A mistake of the server's is its answer and no exception."""
    service.engine.start()
    client = TestClient(create_app(service), raise_server_exceptions=False, headers=headers)
    try:
        yield client
    finally:
        service.engine.stop(0.0)


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The address of the application on a free port of this machine."""
    service.engine.start()
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(create_app(service), log_config=None, access_log=False, ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield address(listening)
    finally:
        service.engine.stop(0.0)
        server.should_exit = True
        thread.join(10)
        listening.close()


def until(true: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether something becomes true in time."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return True
        waiting.wait(0.01)
    return bool(true())
