"""Clients over a real port: those who wait, those who go, and those who come when there is no room."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import client_of, made_service, served, until

from moalign.models import BaseModel
from moalign.serving.api.answering import Answer
from moalign.serving.api.asking import Ask
from moalign.serving.api.service import Service
from moalign.serving.sampling import Sampling

LONG = {"model": "moalign", "prompt": "on and on forever"}


@pytest.fixture
def base(served_base: BaseModel) -> BaseModel:
    return served_base


@contextmanager
def busy(service: Service, client: Any, requests: int) -> Iterator[list[Any]]:
    """While so many requests are in the engine; their responses are in the list afterwards."""
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(client.post("/v1/completions", json=LONG)))
        for _ in range(requests)
    ]
    for thread in threads:
        thread.start()
    assert until(lambda: sum(max(ticket.said) > 0 for ticket in service.engine.tickets) == requests)
    yield found
    service.engine.stop(0.0)
    for thread in threads:
        thread.join(10)


def test_when_there_is_no_room_clients_are_told_when_to_come_again(tmp_path: Path, base: BaseModel) -> None:
    service = made_service(tmp_path / "run", base, room=1, pause=0.01)
    with client_of(service) as client, busy(service, client, 1):
        for stream in (False, True):
            response = client.post("/v1/completions", json={**LONG, "stream": stream})
            assert response.status_code == 429
            assert response.headers["retry-after"] == "2"
            assert response.json()["error"]["type"] == "rate_limit_error"
            assert response.json()["error"]["message"] == "1 requests are waiting already; try again in 2 s"


def test_a_request_of_which_a_part_finds_no_room_leaves_none_behind(tmp_path: Path, base: BaseModel) -> None:
    service = made_service(tmp_path / "run", base, room=2, pause=0.01)
    with client_of(service) as client:
        response = client.post("/v1/completions", json={**LONG, "prompt": ["forever"] * 3})
        assert response.status_code == 429
        assert until(lambda: not service.engine.tickets)
        assert [ticket.cancelled for ticket in service.engine.seen] == [True, True]


def test_what_ends_for_lack_of_time_says_so(tmp_path: Path, base: BaseModel) -> None:
    """OpenAI has no word for it but length; `ended` tells it from a text that used up its tokens."""
    service = made_service(tmp_path / "run", base, pause=0.01)
    with client_of(service) as client, busy(service, client, 2) as found:
        pass
    for response in found:
        choice = response.json()["choices"][0]
        assert (choice["finish_reason"], choice["ended"]) == ("length", "time")
        assert choice["text"].startswith("#")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_reader_who_goes_frees_the_slot(
    tmp_path: Path, base: BaseModel, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = made_service(tmp_path / "run", base, pause=0.01)
    body = {**LONG, "stream": True, "n": 2}
    if "chat" in path:
        # The stand-in goes on only after "forever", which the template must leave as the last word.
        monkeypatch.setattr(base.tokenizer, "chat_template", "{{ messages[0]['content'] }}")
        body = {"model": "moalign", "messages": [{"role": "user", "content": "forever"}], "stream": True}
    with served(service) as address, httpx.Client(base_url=address) as client:
        with client.stream("POST", path, json=body) as response:
            lines = response.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["moalign"]["policy"] == "interpolate"
            assert len(service.engine.tickets) == 1
        assert until(lambda: not service.engine.tickets)
        assert service.engine.seen[0].cancelled


def test_who_waits_for_a_whole_answer_and_goes_frees_the_slot_too(tmp_path: Path, base: BaseModel) -> None:
    service = made_service(tmp_path / "run", base, pause=0.01)
    body = json.dumps({**LONG, "prompt": ["forever", "and forever"]}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with served(service) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            assert until(lambda: len(service.engine.tickets) == 2)
        assert until(lambda: not service.engine.tickets)
        assert [ticket.cancelled for ticket in service.engine.seen] == [True, True]
        gone = {"path": "/v1/completions", "status": "499"}
        assert until(lambda: service.meter.registry.get_sample_value("moalign_responses_total", gone) == 1)


def test_who_goes_before_the_answer_is_read_frees_the_slot(tmp_path: Path, base: BaseModel) -> None:
    """A stream whose first byte cannot be sent is never read; only the watcher then knows that its client has gone."""

    async def submitted() -> Answer:
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        plan = service.planner.named("base")
        answer = Answer.to(Ask(plan, 0, [([3], [Sampling(100)])]), service, receive)
        await asyncio.sleep(0.01)
        assert not service.engine.seen[0].cancelled
        gone.set()
        await asyncio.sleep(0.01)
        return answer

    service = made_service(tmp_path / "run", base)
    assert asyncio.run(submitted()).gone
    assert service.engine.seen[0].cancelled


def test_many_clients_get_each_their_own_answer(tmp_path: Path, base: BaseModel) -> None:
    service = made_service(tmp_path / "run", base, room=64, pause=0.001)

    def ask(number: int) -> str:
        body = {"model": f"moalign@warm={number},brief=1", "prompt": f"number {number}", "seed": number, "stream": True}
        text = ""
        with client.stream("POST", "/v1/completions", json=body) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
        return text

    with served(service) as address, httpx.Client(base_url=address) as client, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(48))) == [f"#{number} number {number}" for number in range(48)]
    assert not service.engine.tickets


def test_the_openai_client_works_unchanged(tmp_path: Path, base: BaseModel) -> None:
    openai = pytest.importorskip("openai")
    service = made_service(tmp_path / "run", base, api_key="sk-key")
    hi = [{"role": "user", "content": "hi"}]
    with served(service) as address, openai.OpenAI(base_url=address + "/v1", api_key="sk-key", max_retries=0) as client:
        assert "moalign" in [model.id for model in client.models.list()]
        assert client.models.retrieve("base").id == "base"
        weights = {"weights": {"warm": 0.7, "brief": 0.3}}
        whole = client.chat.completions.create(
            model="moalign", messages=hi, seed=1, logprobs=True, top_logprobs=1, extra_body=weights
        )
        assert whole.choices[0].message.content == "#1 <|user|>hi <|assistant|>"
        assert whole.choices[0].logprobs.content[0].token == "#1"
        assert whole.moalign["preference"] == {"brief": 0.3, "warm": 0.7}
        again = [*hi, whole.choices[0].message, {"role": "user", "content": "so"}]  # as its users send it back
        stream = client.chat.completions.create(
            model="moalign@warm=0.7,brief=0.3", messages=again, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].usage.completion_tokens > 3
        text = client.completions.create(model="base", prompt=["a", "b"], n=2, seed=4)
        assert [choice.text for choice in text.choices] == ["#4 a", "#5 a", "#4 b", "#5 b"]
        with pytest.raises(openai.BadRequestError, match="did you mean 'warm'") as caught:
            client.chat.completions.create(model="moalign", messages=hi, extra_body={"weights": {"wram": 1}})
        assert caught.value.param == "weights.wram"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-5", messages=hi)
        with pytest.raises(openai.APIError, match="could not go on"):
            list(client.completions.create(model="base", prompt="fail", stream=True))
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="no").models.list()
