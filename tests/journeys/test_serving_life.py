"""How a server starts, ends and keeps to itself: what it refuses, signals, a key, and a log that says nothing."""

import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from command import moalign
from made_runs import made_run
from served import until
from serving import Running, chunks, run_to_serve, serving

from moalign.adapters import Adapter
from moalign.runs import Run

LONG = {"model": "base", "prompt": "Once upon a time", "max_tokens": 400, "seed": 1, "stream": True}
ENDLESS = {**LONG, "n": 16}  # on one slot, one after the other
KEY = "sk-a-key-of-this-test"
AUTH = {"Authorization": f"Bearer {KEY}"}
JOURNAL = r"\d{4}-\d\d-\d\d [\d:,]+ INFO [0-9a-f]{32} (GET|POST) [a-z0-9/{}]+ \d{3} \d+\.\d{3} s"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, random_adapter: Callable[..., Adapter]) -> Run:
    return run_to_serve(tmp_path_factory.mktemp("served") / "mine", tiny_base, random_adapter)


@pytest.fixture(scope="module")
def locked(run: Run) -> Iterator[Running]:
    """A server that asks for a key, which the environment gives; one slot, and one request may wait."""
    log = run.folder.parent / "locked.log"
    with serving(run.folder, log, "--slots", 1, "--queue", 1, env={"MOALIGN_API_KEY": KEY}) as running:
        yield running


def streams(server: Running, count: int, stack: ExitStack, body: Any) -> list[Iterator[dict[str, Any]]]:
    """So many streams, each begun."""
    found = []
    for _ in range(count):
        response = stack.enter_context(httpx.stream("POST", server.address + "/v1/completions", json=body, timeout=60))
        assert response.status_code == 200
        found.append(chunks(response))
        next(found[-1])
    return found


# Ends.


def test_sigterm_lets_streams_finish(run: Run, tmp_path: Path) -> None:
    """Two texts go on to their ends, which a server that is not told to stop would have written too."""
    with serving(run.folder, tmp_path / "log") as server, ExitStack() as stack:
        whole = httpx.post(server.address + "/v1/completions", json={**LONG, "stream": False}).json()["choices"][0]
        begun = streams(server, 2, stack, {**LONG, "n": 4})
        server.send(signal.SIGTERM)
        assert until(lambda: not server.ready)
        try:
            refused = httpx.post(server.address + "/v1/completions", json=LONG)
        except httpx.TransportError:
            pass  # it has ended already
        else:
            assert refused.status_code == 503
            assert "stopping" in refused.json()["error"]["message"]
        for stream in begun:
            rest = [choice for chunk in stream for choice in chunk["choices"]]
            ends = {choice["index"]: choice for choice in rest if choice["finish_reason"]}
            assert set(ends) == {0, 1, 2, 3}
            assert all("ended" not in choice for choice in ends.values())
            text = "".join(choice["text"] for choice in rest if choice["index"] == 0)
            assert text
            assert whole["text"].endswith(text)
        assert server.ended() == 0
        assert "Traceback" not in server.said


def test_a_second_sigterm_hurries(run: Run, tmp_path: Path) -> None:
    """Texts of many seconds are cut, and say so; without it the server would wait for them."""
    with serving(run.folder, tmp_path / "log", "--slots", 1, "--drain", 300) as server, ExitStack() as stack:
        (stream,) = streams(server, 1, stack, ENDLESS)
        server.send(signal.SIGTERM)
        assert until(lambda: not server.ready)
        assert server.ended(0.3) is None
        server.send(signal.SIGTERM)
        assert list(stream)[-1]["choices"][0]["ended"] == "time"
        assert server.ended() == 0


def test_what_is_killed_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    """The next server takes the same port at once, and the folder is as it was."""
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    with serving(run.folder, tmp_path / "first") as server, ExitStack() as stack:
        streams(server, 1, stack, LONG)
        server.send(signal.SIGKILL)
        assert server.ended() == -signal.SIGKILL
        with serving(run.folder, tmp_path / "second", "--port", server.port) as second:
            assert second.port == server.port
            second.send(signal.SIGINT)
            assert second.ended() == 0
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


# Starts that fail: one line, and exit code 2.


def refused(*arguments: object) -> str:
    """The line of a server that does not start."""
    ended = moalign("serve", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    return ended.err


def test_two_servers_do_not_share_a_port(run: Run, locked: Running) -> None:
    line = refused(run.folder, "--port", locked.port)
    assert f"port {locked.port} of 127.0.0.1 is in use, perhaps by another server; stop that one or choose" in line
    assert locked.ready


def test_a_run_without_adapters_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    run = made_run(tmp_path / "run", tiny_base, points={})
    assert "has no trained adapters yet; run its sweep first" in refused(run.folder, "--port", 0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--policy", "sup"), "unknown policy 'sup'; did you mean 'soup'"),
        (("--policy", "direction"), "adapters read no direction"),
        (("--host", "no such host"), "host 'no such host' is no address of this machine"),
        (("--host", "192.0.2.1"), "this machine has no such address"),
        (("--port", 70_000), "port 70000; expected 0 to 65535"),
        (("--api-key", "sk-two words\n"), "the API key is empty, or holds spaces around it or characters"),
    ],
)
def test_a_server_that_cannot_start_says_why(run: Run, options: tuple[object, ...], line: str) -> None:
    assert line in refused(run.folder, "--port", 0, *options)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "is not a run folder: it has no config.yaml" in refused(tmp_path)
    assert "is not a run folder: it has no config.yaml" in refused(tmp_path / "nowhere")


# A key, and a log.


@pytest.mark.parametrize("given", [None, "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, f"Basic {KEY}"])
def test_without_the_key_there_is_nothing(locked: Running, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    with httpx.Client(base_url=locked.address, headers=headers) as http:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
            assert http.get(path).status_code == 401, path
        response = http.post("/v1/completions", json={**LONG, "stream": False})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert http.get("/health").status_code == http.get("/ready").status_code == 200


def test_with_the_key_all_is_there(locked: Running) -> None:
    with locked.openai("sk-wrong") as client, pytest.raises(openai.AuthenticationError, match="asks for its API key"):
        client.models.list()
    with locked.openai(KEY) as client:
        assert client.completions.create(model="base", prompt="a", max_tokens=2, seed=0).usage.completion_tokens > 0


def test_the_log_says_nothing_that_a_request_said(locked: Running) -> None:
    """One line for each, whatever is asked for, in whatever words: nobody's text, key, path or agent stands in it."""
    nasty = "secret\n2026-01-01 00:00:00,000 INFO forged\r\x1b[31m\u2028\0"
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": "secret \x1b[31m"}
    before = len(locked.said)
    with httpx.Client(base_url=locked.address, headers=headers) as http:
        chat = {"model": "moalign", "messages": [{"role": "user", "content": nasty}], "max_tokens": 2, "user": nasty}
        assert http.post("/v1/chat/completions", json=chat).status_code == 200
        for fields in ({"model": nasty}, {"model": f"moalign@{nasty}=1"}, {"weights": {nasty: 1}}, {"policy": nasty}):
            response = http.post("/v1/chat/completions", json={**chat, **fields})
            assert response.status_code in (400, 404), fields
            assert "\n" not in response.json()["error"]["message"]
            assert "\x1b" not in response.json()["error"]["message"]
        assert http.get("/v1/models/secret%0Aforged%1b[31m").status_code == 404
        assert http.get("/secret%0Aforged?secret=%1b").status_code == 404
        assert http.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 401
        response = http.post("/v1/completions", content=nasty.encode(), headers={"Content-Type": "application/json"})
        assert response.status_code == 400
    for start in (
        b"secret \x1b[31m\r\n\r\n",
        b"GET /secret HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nsecret\r\n\r\n",
        b"\0\1\xff",
    ):
        with socket.create_connection(("127.0.0.1", locked.port)) as sending:
            sending.sendall(start)
            sending.shutdown(socket.SHUT_WR)
            sending.settimeout(5)
            assert b"secret" not in sending.recv(4096)
    lines = locked.said[before:].splitlines()
    strangers = {re.sub(r"^[\d\- :,]+", "", line) for line in lines if not re.fullmatch(JOURNAL, line)}
    assert strangers <= {"WARNING Invalid HTTP request received."}
    assert KEY not in locked.said
    assert "secret" not in locked.said


def test_a_slow_body_holds_nobody_up(locked: Running) -> None:
    """Requests that stop in the middle keep neither slots nor others waiting, and are let go with the connection."""
    lines = (
        "POST /v1/completions HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
    )
    with ExitStack() as stack:
        for _ in range(20):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", locked.port)))
            slow.sendall("\r\n".join(lines).encode())
        with locked.openai(KEY) as client:
            assert client.completions.create(model="base", prompt="a", max_tokens=2, seed=0).choices
        assert locked.metric("moalign_running_sequences", KEY) == 0
    assert locked.ready


def test_many_connections_that_say_nothing_change_nothing(locked: Running) -> None:
    """The server spends no thread of its own on any of them."""
    server = psutil.Process(locked.process.pid)
    before = server.num_threads()
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", locked.port)))
        assert locked.ready
        assert server.num_threads() < before + 50  # a pool for callbacks may grow meanwhile


# Clients that go, and those who are too many.


def test_a_client_that_hangs_up_frees_its_slot(locked: Running) -> None:
    """A text of thousands of tokens would hold its slots for long; cancelled, it is gone within a step or two."""
    before = locked.metric("moalign_finished_total", KEY)
    with httpx.stream("POST", locked.address + "/v1/completions", json=ENDLESS, headers=AUTH) as response:
        written = chunks(response)  # kept, since a generator that is thrown away hangs up
        next(written)
        assert locked.metric("moalign_running_sequences", KEY) > 0
    assert until(lambda: locked.metric("moalign_running_sequences", KEY) == 0, 5)
    assert locked.metric("moalign_finished_total", KEY) - before == ENDLESS["n"]
    text = locked.http.get("/metrics", headers=AUTH).text
    assert re.search(r'moalign_finished_total\{policy="base",reason="cancelled"\} [1-9]', text)


def test_the_queue_is_bounded_and_forgets_who_has_gone(locked: Running) -> None:
    """One writes, one waits, the third is told to come again; who hangs up while waiting makes room for another."""
    with httpx.Client(base_url=locked.address + "/v1", headers=AUTH, timeout=60) as http:
        with http.stream("POST", "/completions", json=ENDLESS) as writing:
            writes = chunks(writing)
            next(writes)
            with socket.create_connection(("127.0.0.1", locked.port)) as waiting:
                waiting.sendall(_raw("/v1/completions", json.dumps(ENDLESS).encode(), **AUTH))
                assert until(lambda: locked.metric("moalign_waiting_requests", KEY) == 1)
                with locked.openai(KEY) as client, pytest.raises(openai.RateLimitError, match="try again in") as busy:
                    client.completions.create(**ENDLESS)
                assert int(busy.value.response.headers["retry-after"]) >= 1
            assert until(lambda: locked.metric("moalign_waiting_requests", KEY) == 0)
            assert locked.metric("moalign_running_sequences", KEY) == 1
        assert until(lambda: locked.metric("moalign_running_sequences", KEY) == 0)
        answer = http.post("/completions", json={"model": "base", "prompt": "a", "max_tokens": 2})
        assert answer.status_code == 200


def _raw(path: str, body: bytes, **headers: str) -> bytes:
    given = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode() + body
