"""The explorer as a process of its own: who may see it, what it says when it cannot start, and how it ends."""

import base64
import json
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import workers
from command import moalign
from made_runs import made_run
from served import until
from serving import Running, chunks, run_to_serve, serving

from moalign.adapters import Adapter
from moalign.runs import Run

KEY = "sk-a-key-of-this-test"
PASSWORD = {"Authorization": "Basic " + base64.b64encode(f"anybody:{KEY}".encode()).decode()}
LONG = {"model": "base", "prompt": "Once upon a time", "max_tokens": 60, "seed": 1, "stream": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, random_adapter: Callable[..., Adapter]) -> Run:
    return run_to_serve(tmp_path_factory.mktemp("explored") / "mine", tiny_base, random_adapter)


@contextmanager
def exploring(run: Path, log: Path, *options: object) -> Iterator[Running]:
    """`moalign explore run options...` on a free port, answering; killed at the end unless it has ended by then."""
    process = workers.start(["explore", str(run), "--port", "0", *map(str, options)], log)
    try:
        assert until(lambda: _address(log) or not process.is_alive(), 60), "no address in time"
        assert process.is_alive(), log.read_text()
        with httpx.Client(base_url=_address(log), timeout=60) as http:
            yield Running(process, _address(log), log, http)
    finally:
        process.kill()
        process.join()


def _address(log: Path) -> str:
    found = re.search(r"open (http://\S+)/explore/", log.read_text(encoding="utf-8")) if log.exists() else None
    return found[1] if found else ""


def beat(http: httpx.Client) -> httpx.Response:
    """What an open page asks every few seconds."""
    known = http.get("/explore/_dash-dependencies").json()
    asked = next(each for each in known if each["inputs"][0]["id"] == "beat")
    body = {"output": asked["output"], "inputs": asked["inputs"], "state": asked["state"]}
    return http.post("/explore/_dash-update-component", json={**body, "changedPropIds": ["beat.n_intervals"]})


# Inside the server of a run.


def test_pages_that_are_open_hold_up_neither_texts_nor_the_end(run: Run, tmp_path: Path) -> None:
    """Four pages ask ten times a second while a text is written and the server is told to end: the text comes whole."""
    with serving(run.folder, tmp_path / "log", "--drain", 60) as server:
        ended = threading.Event()
        asked: list[int] = []

        def ask() -> None:
            with httpx.Client(base_url=server.address, timeout=60) as http:
                while not ended.wait(0.1):
                    try:
                        asked.append(beat(http).status_code)
                    except httpx.TransportError:
                        return

        pages = [threading.Thread(target=ask) for _ in range(4)]
        for page in pages:
            page.start()
        with httpx.stream("POST", server.address + "/v1/completions", json=LONG, timeout=60) as response:
            stream = chunks(response)
            next(stream)
            server.send(signal.SIGTERM)
            assert list(stream)[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        assert server.ended(20) == 0
        ended.set()
        for page in pages:
            page.join()
        assert set(asked) == {200}
        assert "Traceback" not in server.said
        assert " /explore " not in server.said  # what pages ask every few seconds is no news


def test_a_browser_is_asked_for_the_key_and_may_use_it_for_texts(run: Run, tmp_path: Path) -> None:
    """A browser gives the password where it was asked for it: under /explore, and to /v1 if its own page asks there."""
    with serving(run.folder, tmp_path / "log", env={"MOALIGN_API_KEY": KEY}) as server:
        for path in ("/explore", "/explore/", "/explore/_dash-layout", "/explore/points.csv"):
            refused = server.http.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic realm=")
        body = {**LONG, "stream": False, "max_tokens": 2}
        asked = server.http.post("/v1/completions", json=body, headers={"Origin": server.address})
        assert asked.headers["www-authenticate"] == refused.headers["www-authenticate"]
        assert server.http.post("/v1/completions", json=body).headers["www-authenticate"] == "Bearer"
        assert server.http.post("/v1/completions", json=body, headers=PASSWORD).status_code == 200
        assert "<!DOCTYPE html>" in server.http.get("/explore/", headers=PASSWORD).text
        assert server.http.get("/explore/", headers={"Host": "elsewhere.example"}).status_code == 401


def test_the_page_can_be_left_out(run: Run, tmp_path: Path) -> None:
    with serving(run.folder, tmp_path / "log", "--no-explorer") as server:
        assert server.http.get("/explore/").status_code == 404
        assert server.http.get("/v1/models").status_code == 200


# Alone.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_shown_until_a_signal_also_while_pages_ask(tmp_path: Path, number: signal.Signals) -> None:
    """A run without an adapter, which `serve` refuses, is shown; the page tells browsers of other machines nothing."""
    run = made_run(tmp_path / "run", points={})
    with exploring(run.folder, tmp_path / "log") as page:
        assert page.http.get("/").headers["location"] == "explore/"
        assert beat(page.http).status_code == 200
        assert page.http.get("/explore/", headers={"Host": "elsewhere.example"}).status_code == 421
        large = page.http.post("/explore/_dash-update-component", content=b" " * ((1 << 20) + 1))
        assert large.status_code == 413
        page.send(number)
        assert page.ended(20) == 0
        assert "Traceback" not in page.said
        lines = page.said.splitlines()
        assert [line.split()[-4:-2] for line in lines[1:]] == [["/", "307"], ["other", "421"], ["other", "413"]]


def test_with_a_key_it_is_asked_for(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    with exploring(run.folder, tmp_path / "log", "--host", "0.0.0.0", "--api-key", "short") as page:
        assert "an API key of 5 characters can be guessed" in page.said
        own = httpx.Client(base_url=page.address.replace("0.0.0.0", "127.0.0.1"))
        with own:
            assert own.get("/explore/").status_code == own.get("/nowhere").status_code == 401
            given = {"Authorization": "Bearer short"}
            assert own.get("/explore/", headers=given).status_code == 200


def test_others_are_warned_of_and_the_folder_may_go(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    with exploring(run.folder, tmp_path / "log", "--host", "0.0.0.0") as page:
        assert "warning: 0.0.0.0 can be reached from other machines, and there is no API key" in page.said
        with httpx.Client(base_url=page.address.replace("0.0.0.0", "127.0.0.1")) as own:
            run.folder.rename(tmp_path / "moved")
            told = json.dumps(beat(own).json())
            assert "is gone: it was deleted or moved" in told
            assert str(tmp_path) not in told
            assert str(tmp_path) not in own.get("/explore/_dash-layout").text
            (tmp_path / "moved").rename(run.folder)
            assert "is gone" not in json.dumps(beat(own).json())
            shutil.rmtree(run.folder)
            assert own.get("/explore/report.html").status_code == 409


def test_a_port_is_not_shared(run: Run, tmp_path: Path) -> None:
    with exploring(run.folder, tmp_path / "log") as page:
        ended = moalign("explore", run.folder, "--port", page.port)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert f"port {page.port} of 127.0.0.1 is in use" in ended.err


@pytest.mark.parametrize("made", ["nowhere", "empty", "broken"])
def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, made: str) -> None:
    folder = tmp_path / made
    if made != "nowhere":
        folder.mkdir()
    if made == "broken":
        (folder / "config.yaml").write_text("base: [")
    ended = moalign("explore", folder, "--port", 0)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("moalign: ")
