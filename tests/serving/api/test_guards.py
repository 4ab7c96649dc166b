import base64
import hmac
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import client_of, made_service, served
from starlette.testclient import TestClient

from moalign.dashboards.explorer.app import mount_explorer
from moalign.models import BaseModel
from moalign.serving.api import app as routes
from moalign.serving.limits import Limits

HI = {"model": "base", "prompt": "hi"}
KEY = "sk-a-key"


@pytest.fixture
def base(served_base: BaseModel) -> BaseModel:
    return served_base


def spoken(address: str, request: bytes, seconds: float = 5.0) -> bytes:
    """What a server answers to these very bytes, until it closes or has said nothing for so long."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            pass
    return answer


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("elsewhere.example:8000", 421),
        ("127.0.0.1.elsewhere.example", 421),
        ("192.168.0.7", 421),
        ("[", 421),
        ("", 200),
    ],
)
def test_a_server_for_this_machine_answers_to_its_own_names_alone(
    tmp_path: Path, base: BaseModel, host: str, status: int
) -> None:
    """A page whose name was pointed at 127.0.0.1 sends that name as its host."""
    with client_of(made_service(tmp_path / "run", base, local=True), Host=host) as client:
        for path in ("/v1/models", "/ready", "/metrics"):
            assert client.get(path).status_code == status
    with client_of(made_service(tmp_path / "open", base), Host=host) as client:
        assert client.get("/ready").status_code == 200


@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer wrong", KEY, f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xff"]
)
def test_without_the_key_there_is_no_answer(tmp_path: Path, base: BaseModel, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    with client_of(made_service(tmp_path / "run", base, api_key=KEY)) as client:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
            response = client.get(path, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"
        assert client.post("/v1/completions", json=HI, headers=headers).status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200


@pytest.mark.parametrize(
    ("path", "said", "asked"),
    [
        ("/explore", {}, "Basic"),
        ("/explore/_dash-layout", {}, "Basic"),
        ("/explorer", {}, "Bearer"),
        ("/v1/models", {}, "Bearer"),
        ("/v1/models", {"Origin": "http://testserver"}, "Basic"),
        ("/v1/models", {"Origin": "https://outside.example", "Sec-Fetch-Site": "same-origin"}, "Basic"),  # a proxy
        ("/v1/models", {"Origin": "http://other.example", "Sec-Fetch-Site": "cross-site"}, "Bearer"),
        ("/v1/models", {"Origin": "null"}, "Bearer"),
        ("/v1/models", {"Sec-Fetch-Site": "none"}, "Bearer"),
    ],
)
def test_a_browser_is_asked_as_it_can_answer(
    tmp_path: Path, base: BaseModel, path: str, said: dict[str, str], asked: str
) -> None:
    """A browser that has the password for /explore gives it for /v1 when its own page is asked for it there."""
    with client_of(made_service(tmp_path / "run", base, api_key=KEY)) as client:
        refused = client.get(path, headers=said)
        assert (refused.status_code, refused.headers["www-authenticate"].split()[0]) == (401, asked)
        password = base64.b64encode(f"anybody:{KEY}".encode()).decode()
        assert client.get(path, headers={**said, "Authorization": f"Basic {password}"}).status_code in (200, 404)


@pytest.mark.parametrize("given", [f"Bearer {KEY}", f"bearer {KEY}", f"Bearer  {KEY} "])
def test_with_the_key_there_is_one(tmp_path: Path, base: BaseModel, given: str) -> None:
    with client_of(made_service(tmp_path / "run", base, api_key=KEY), Authorization=given) as client:
        assert client.post("/v1/completions", json=HI).status_code == 200
        document = client.get("/openapi.json").json()
        assert document["security"] == [{"key": []}]


def test_keys_are_compared_in_constant_time(tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda given, expected: compared.append((given, expected)) or True)
    with client_of(made_service(tmp_path / "run", base, api_key=KEY)) as client:
        assert client.get("/v1/models", headers={"Authorization": "Bearer x"}).status_code == 200
    assert compared == [(b"x", KEY.encode())]


def chunks(size: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b" " * size


def test_a_body_that_is_too_large_is_refused_however_it_comes(tmp_path: Path, base: BaseModel) -> None:
    json = {"Content-Type": "application/json"}
    with client_of(made_service(tmp_path / "run", base, limits=Limits(body_bytes=1000))) as client:
        assert client.post("/v1/completions", json=HI).status_code == 200
        for response in (
            client.post("/v1/completions", content=b" " * 1001, headers=json),
            client.post("/v1/completions", content=b"x", headers={**json, "Content-Length": "9" * 30}),
            client.post("/v1/completions", content=b"x", headers={**json, "Content-Length": "-1"}),
            client.post("/v1/completions", content=chunks(100, 11), headers=json),
        ):
            assert response.status_code == 413
            assert (
                response.json()["error"]["message"] == "the body is larger than the 1000 bytes that this server takes"
            )
        assert client.post("/v1/completions", content=chunks(100, 10), headers=json).status_code == 400


def test_a_large_body_in_chunks_is_not_read_to_its_end(tmp_path: Path, base: BaseModel) -> None:
    """The answer is there while the sender still has more to say."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    with served(made_service(tmp_path / "run", base, limits=Limits(body_bytes=1000))) as address:
        answer = spoken(address, head + b"800\r\n" + b" " * 0x800 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BODY_SECONDS", 0.2)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with served(made_service(tmp_path / "run", base)) as address:
        begun = time.monotonic()
        answer = spoken(address, head)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the body did not arrive within 0.2 s" in answer
    assert time.monotonic() - begun < 3


def test_an_answer_may_take_longer_than_a_body(
    tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BODY_SECONDS", 0.2)
    with client_of(made_service(tmp_path / "run", base, pause=0.15)) as client:
        assert client.post("/v1/completions", json={**HI, "prompt": "a b c d"}).status_code == 200


@pytest.mark.parametrize(("asked", "level"), [("/explore/", "DEBUG"), ("/explore/no", "INFO"), ("/health", "INFO")])
def test_what_open_pages_ask_is_no_news(
    tmp_path: Path, base: BaseModel, caplog: pytest.LogCaptureFixture, asked: str, level: str
) -> None:
    """A page asks every few seconds; what is refused is told all the same, and all of it is counted under one path."""
    caplog.set_level(logging.DEBUG, "moalign.serving.api.journal")
    service = made_service(tmp_path / "run", base)
    app = routes.create_app(service)
    mount_explorer(app, service)
    answer = TestClient(app).get(asked)
    (record,) = [each for each in caplog.records if each.name == "moalign.serving.api.journal"]
    path = "/explore" if "explore" in asked else asked
    assert (record.levelname, f" {path} {answer.status_code} " in record.getMessage()) == (level, True)
    assert f'path="{path}",status="{answer.status_code}"'.encode() in service.meter.exposition()
