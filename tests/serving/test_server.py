import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from made_runs import made_run
from served import until

from moalign.errors import ConfigError, RunError
from moalign.serving.api.guards import is_loopback
from moalign.serving.server import address, listen, serve_run

# The whole command but for the model: a stand-in engine takes the place of what `load_service` would load.
SCRIPT = """
import sys
from pathlib import Path
from unittest.mock import patch
from moalign.models import load_base
from moalign.runs import Run
from moalign.serving import server
from served import made_service

folder, base, drain = sys.argv[1:4]

def stand_in(run, limits, policy, api_key):
    return made_service(Path(folder), load_base(base), run=run, limits=limits, api_key=api_key, pause=0.05)

with patch.object(server, "load_service", stand_in):
    server.serve_run(Run.open(folder), port=0, drain_seconds=float(drain), say=lambda line: print(line, flush=True))
print("ended", flush=True)
"""


@contextmanager
def running(folder: Path, base: Path, drain: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    made_run(folder, base)
    paths = [str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parents[2])]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(base), str(drain)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert "3 adapters over warm, brief; policy interpolate" in lines[0], process.stderr and process.stderr.read()
        where = lines[1].split()[2].removesuffix("/v1,")
        assert until(lambda: _ready(where), 20)
        yield process, where
    finally:
        process.kill()
        process.communicate()


def _ready(where: str) -> bool:
    try:
        return httpx.get(where + "/ready").status_code == 200
    except httpx.TransportError:
        return False


def _texts(lines: Iterator[str]) -> Iterator[dict[str, object]]:
    for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def test_sigterm_lets_what_is_streaming_finish(tmp_path: Path, tiny_base: Path) -> None:
    """New requests get 503 meanwhile, from a port that is still open; then the process ends with 0."""
    body = {"model": "base", "prompt": "a b c d e f g h", "stream": True, "seed": 0}
    with running(tmp_path / "run", tiny_base, 30.0) as (process, where), httpx.Client(base_url=where) as client:
        with client.stream("POST", "/v1/completions", json=body) as response:
            chunks = _texts(response.iter_lines())
            said = [next(chunks)]
            process.terminate()
            assert until(lambda: httpx.get(where + "/ready").status_code == 503)
            refused = httpx.post(where + "/v1/completions", json=body)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            said += list(chunks)
        assert "".join(chunk["choices"][0]["text"] for chunk in said) == "#0 a b c d e f g h"
        assert said[-1]["choices"][0]["finish_reason"] == "stop"
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out) == (0, "ended\n")
        assert "Traceback" not in err
        assert "POST /v1/completions 200" in err


def test_a_second_signal_ends_it_at_once(tmp_path: Path, tiny_base: Path) -> None:
    """By Ctrl-C, as by SIGTERM; what is not finished then is cut, and says so."""
    body = {"model": "base", "prompt": "on forever", "stream": True}
    with running(tmp_path / "run", tiny_base, 300.0) as (process, where), httpx.Client(base_url=where) as client:
        with client.stream("POST", "/v1/completions", json=body) as response:
            chunks = _texts(response.iter_lines())
            next(chunks)
            process.send_signal(signal.SIGINT)
            assert until(lambda: httpx.get(where + "/ready").status_code == 503)
            process.send_signal(signal.SIGINT)
            begun = time.monotonic()
            last = list(chunks)[-1]
        assert last["choices"][0]["ended"] == "time"
        process.communicate(timeout=10)
        assert process.returncode == 0
        assert time.monotonic() - begun < 10


def test_two_servers_do_not_share_a_port(tmp_path: Path) -> None:
    """The second one fails before it has looked for a model, which this run does not have."""
    run = made_run(tmp_path / "run", base=str(tmp_path / "nowhere"))
    with closing(listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^port {port} of 127.0.0.1 is in use, perhaps by .* --port {port + 1}$"
        ):
            serve_run(run, port=port)


def test_a_port_that_was_just_left_can_be_taken_again() -> None:
    """A connection that the first server has closed lingers in the kernel for a minute."""
    with closing(listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            taken, _ = first.accept()
            taken.close()
            assert client.recv(1) == b""
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        ("127.0.0.1", 70_000, "port 70000; expected 0 to 65535"),
        ("127.0.0.1", -1, "port -1; expected 0 to 65535"),
        ("no such host", 0, "host 'no such host' is no address of this machine; expected one such as 127.0.0.1"),
        ("192.0.2.1", 0, "port 0 of 192.0.2.1 cannot be opened: this machine has no such address"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_line(host: str, port: int, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        listen(host, port)


def test_an_address_is_written_as_a_url() -> None:
    with closing(listen("127.0.0.1", 0)) as found:
        assert address(found) == f"http://127.0.0.1:{found.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_which_hosts_only_this_machine_reaches(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


def test_a_run_without_adapters_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no trained adapters yet; run its sweep first"):
        serve_run(made_run(tmp_path / "run", points={}), port=0)


def test_a_host_that_others_reach_asks_for_a_key(tmp_path: Path) -> None:
    said: list[str] = []
    run = made_run(tmp_path / "run", points={})
    with pytest.raises(RunError):
        serve_run(run, host="0.0.0.0", port=0, say=said.append)
    assert said == ["warning: 0.0.0.0 can be reached from other machines, and there is no API key; set MOALIGN_API_KEY"]
    with pytest.raises(RunError):
        serve_run(run, host="0.0.0.0", port=0, api_key="sk-key-of-16-chars", say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("key", ["", " sk", "sk\n", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="the API key is empty, or holds spaces"):
        serve_run(made_run(tmp_path / "run"), port=0, api_key=key)


@pytest.mark.parametrize(
    ("policy", "line"), [("sup", "unknown policy 'sup'; did you mean 'soup'"), ("calibrated", "needs a map")]
)
def test_a_policy_that_the_run_lacks_is_told_at_the_start(tmp_path: Path, policy: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        serve_run(made_run(tmp_path / "run"), port=0, policy=policy)
