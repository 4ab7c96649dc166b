"""`moalign serve` as its users have it: a process of its own, a port, a log, and an end by signal."""

import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import workers
from made_runs import THREE, made_run
from openai import OpenAI
from served import until

from moalign.adapters import Adapter
from moalign.models import load_base
from moalign.runs import Run

_CONTEXT = multiprocessing.get_context("forkserver")
_STARTING = 60.0  # seconds, on a busy machine


@dataclass(frozen=True)
class Running:
    """A server that takes requests."""

    process: BaseProcess
    address: str
    log: Path
    http: httpx.Client  # for what the tests ask beside

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    @property
    def said(self) -> str:
        """What it has written to standard error, and out."""
        return self.log.read_text(encoding="utf-8")

    def openai(self, key: str = "none") -> OpenAI:
        """The official client, to be closed by whoever asks; it tries nothing twice."""
        return OpenAI(base_url=self.address + "/v1", api_key=key, max_retries=0, timeout=60)

    def metric(self, name: str, key: str = "none") -> float:
        """The sum of a metric over its labels."""
        text = self.http.get("/metrics", headers={"Authorization": f"Bearer {key}"}).text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        try:
            return self.http.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def ended(self, seconds: float = 30.0) -> int | None:
        """Its exit code, once it has ended; None if it has not in time."""
        self.process.join(seconds)
        return self.process.exitcode


def run_to_serve(folder: Path, base: Path, random_adapter: Callable[..., Adapter]) -> Run:
    """Three points over warm and brief, whose adapters are random: their texts are noise, and differ."""
    model = load_base(str(base)).model
    return made_run(folder, base, adapters={key: random_adapter(model, seed) for seed, key in enumerate(THREE)})


def chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream but for the last, [DONE]."""
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


@contextmanager
def serving(run: Path, log: Path, *options: object, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """`moalign serve run options...` on a free port, ready; killed at the end unless it has ended by then."""
    arguments = ["serve", str(run), *map(str, options)]
    if "--port" not in arguments:
        arguments += ["--port", "0"]
    process = _CONTEXT.Process(target=_serve, args=(arguments, str(log), dict(env or {})))
    process.start()
    try:
        assert until(lambda: _address(log) or not process.is_alive(), _STARTING), "no address in time"
        assert process.is_alive(), log.read_text()
        with httpx.Client(base_url=_address(log), timeout=60) as http:
            running = Running(process, _address(log), log, http)
            assert until(lambda: running.ready or not process.is_alive(), _STARTING), "not ready in time"
            assert process.is_alive(), log.read_text()
            yield running
    finally:
        process.kill()
        process.join()


def _address(log: Path) -> str:
    found = re.search(r"^listening on (http://\S+)/v1", log.read_text(encoding="utf-8"), re.M) if log.exists() else None
    return found[1] if found else ""


def _serve(arguments: list[str], log: str, env: Mapping[str, str]) -> None:
    os.environ.update(env)
    workers._run(arguments, log)
