import json
import logging
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_run, point
from served import client_of, made_service
from stand_in_engine import StandInEngine
from starlette.testclient import TestClient

from moalign.errors import DataError
from moalign.models import BaseModel, load_base
from moalign.serving.api.replies import ChatReply, ErrorReply, ModelList, TextReply
from moalign.serving.api.service import Service
from moalign.serving.limits import Limits

Post = Callable[..., Any]
HI = [{"role": "user", "content": "hi there"}]


@pytest.fixture
def base(served_base: BaseModel) -> BaseModel:
    return served_base


@pytest.fixture
def service(tmp_path: Path, base: BaseModel) -> Service:
    return made_service(tmp_path / "run", base)


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as client:
        yield client


def chat(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/chat/completions", json={"model": "moalign", "messages": HI, **fields})


def complete(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/completions", json={"model": "moalign", "prompt": "one two", **fields})


def events(response: Any) -> list[dict[str, Any]]:
    """The events of a stream, which ends with [DONE]."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    parts = response.text.split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def refusal(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return ErrorReply.model_validate(response.json()).model_dump()["error"]


def test_a_conversation_is_answered_with_its_plan(client: TestClient) -> None:
    reply = chat(client, weights={"warm": 0.85, "brief": 0.15}, seed=5).json()
    ChatReply.model_validate(reply)
    assert reply["id"].startswith("chatcmpl-")
    assert reply["model"] == "moalign"
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "#5 <|user|>hi there <|assistant|>", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    prompt = len("<|user|>hi there\n<|assistant|>")  # a token per byte
    assert reply["usage"] == {"prompt_tokens": prompt, "completion_tokens": 5, "total_tokens": prompt + 5}
    plan = reply["moalign"]
    assert plan["lanes"] == [{"row": {"w": pytest.approx(0.7), "m": pytest.approx(0.3)}, "share": 1.0}]
    assert (plan["policy"], plan["seed"], plan["source"]) == ("interpolate", 5, "interpolated")


def test_several_prompts_have_their_choices_one_after_the_other(client: TestClient, service: Service) -> None:
    reply = complete(client, prompt=["a b", "c"], n=2, seed=7, logprobs=1).json()
    TextReply.model_validate(reply)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in reply["choices"]] == ["#7 a b", "#8 a b", "#7 c", "#8 c"]
    assert reply["usage"] == {"prompt_tokens": 4, "completion_tokens": 14, "total_tokens": 18}
    assert reply["choices"][0]["logprobs"] == {
        "tokens": ["#7", " a", " b"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{"#7": -0.5}, {" a": -0.5}, {" b": -0.5}],
        "text_offset": [0, 2, 4],
    }


def test_prompts_may_be_token_ids(client: TestClient, base: BaseModel) -> None:
    ids = base.tokenizer("one two")["input_ids"]
    for prompt in (ids, [ids]):
        assert complete(client, prompt=prompt, seed=1).json()["choices"][0]["text"] == "#1 one two"
    error = refusal(complete(client, prompt=[[3], [len(base.tokenizer)]]), 400)
    assert error["message"] == f"a token id is out of range; expected 0 to {len(base.tokenizer) - 1}"


def test_a_streamed_conversation_says_what_a_whole_one_does(client: TestClient) -> None:
    whole = chat(client, seed=3, n=2).json()
    found = events(chat(client, seed=3, n=2, stream=True, stream_options={"include_usage": True}))
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in found}) == 1
    opening = [chunk["choices"][0] for chunk in found[:2]]
    assert [choice["delta"] for choice in opening] == [{"role": "assistant", "content": ""}] * 2
    assert [choice["index"] for choice in opening] == [0, 1]
    for index in (0, 1):
        own = [c for chunk in found[2:-1] for c in chunk["choices"] if c["index"] == index]
        text = "".join(choice["delta"].get("content", "") for choice in own)
        assert text == whole["choices"][index]["message"]["content"]
        assert [choice["finish_reason"] for choice in own] == [None] * (len(own) - 1) + ["stop"]
    assert [chunk.get("moalign") for chunk in found] == [whole["moalign"]] + [None] * (len(found) - 1)
    assert [chunk["usage"] for chunk in found] == [None] * (len(found) - 1) + [whole["usage"]]
    assert found[-1]["choices"] == []


def test_a_streamed_text_says_what_a_whole_one_does(client: TestClient) -> None:
    fields = {"prompt": ["a b", "c"], "seed": 3, "logprobs": 2}
    whole = complete(client, **fields).json()
    found = events(complete(client, **fields, stream=True))
    assert {chunk["object"] for chunk in found} == {"text_completion"}
    assert all("usage" not in chunk for chunk in found)
    assert found[0]["moalign"] == whole["moalign"]
    for choice in whole["choices"]:
        own = [c for chunk in found for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(each["text"] for each in own) == choice["text"]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            parts = [each["logprobs"][name] for each in own if each["logprobs"]]
            assert list(chain.from_iterable(parts)) == choice["logprobs"][name]


def test_log_probabilities_of_a_conversation(client: TestClient) -> None:
    """Minus infinity, which JSON does not have, is -9999 as OpenAI's is."""
    content = chat(client, seed=1, max_tokens=1, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]
    one = {"token": "#1", "logprob": -0.5, "bytes": [35, 49]}
    none = {"token": " no", "logprob": -9999.0, "bytes": [32, 110, 111]}
    assert content == {"content": [{**one, "top_logprobs": [one, none]}], "refusal": None}
    chosen = chat(client, max_tokens=1, logprobs=True).json()["choices"][0]["logprobs"]["content"]
    assert [each["top_logprobs"] for each in chosen] == [[]]


def test_the_engine_is_asked_for_what_the_request_says(client: TestClient, service: Service) -> None:
    chat(client, temperature=0, top_p=0.5, stop=["x", "y"], max_completion_tokens=9, seed=(1 << 63) - 1, n=2)
    first, second = service.engine.seen[-1].samplings
    assert (first.temperature, first.top_p, first.stop, first.max_tokens) == (0.0, 0.5, ("x", "y"), 9)
    assert (first.seed, second.seed) == ((1 << 63) - 1, 0)
    complete(client, stop="two")
    sampling = service.engine.seen[-1].samplings[0]
    assert (sampling.temperature, sampling.top_p, sampling.stop) == (1.0, 1.0, ("two",))
    assert sampling.max_tokens == 512 - len("one two")  # the room that the context leaves


def test_a_seed_that_is_not_given_is_drawn_and_told(client: TestClient, service: Service) -> None:
    seeds = [chat(client).json()["moalign"]["seed"] for _ in range(3)]
    assert [ticket.samplings[0].seed for ticket in service.engine.seen] == seeds
    assert len(set(seeds)) == 3


def test_what_the_context_leaves_is_what_there_is(client: TestClient, service: Service) -> None:
    """The base reads 512 tokens; a prompt of 510 leaves two."""
    prompt = "a " * 255
    assert complete(client, prompt=prompt, max_tokens=2).status_code == 200
    complete(client, prompt=prompt)
    assert service.engine.seen[-1].samplings[0].max_tokens == 2
    error = refusal(complete(client, prompt=prompt, max_tokens=3), 400)
    assert error["code"] == "context_length_exceeded"
    assert error["message"] == (
        "the prompt has 510 tokens and the base reads 512, prompt and answer together: no room for max_tokens = 3"
    )
    assert "no room for an answer" in refusal(complete(client, prompt="a " * 256), 400)["message"]
    long = [{"role": "user", "content": "a " * 300}]
    assert refusal(chat(client, messages=long), 400)["param"] == "messages"


@pytest.mark.parametrize(
    ("fields", "param", "line"),
    [
        ({"n": 17}, "n", "n is 17; this server gives at most 16 choices"),
        ({"stop": ["x"] * 10_000}, "stop", "10000 stop strings; this server takes at most 16"),
        ({"stop": "x" * 257}, "stop", "a stop string has 257 characters; expected 1 to 256"),
        ({"stop": [""]}, "stop", "a stop string has 0 characters"),
        ({"max_tokens": 1025}, "max_tokens", "max_tokens is 1025; this server writes at most 1024 a choice"),
        ({"prompt": ["x"] * 129}, "prompt", "129 prompts; this server takes at most 128 a request"),
        ({"prompt": []}, "prompt", "prompt is an empty list"),
        ({"prompt": ""}, "prompt", "the prompt has no tokens"),
        ({"prompt": [[1], []]}, "prompt", "the prompt has no tokens"),
        ({"prompt": [""]}, "prompt", "the prompt has no tokens"),
        ({"n": 0}, "n", "n should be greater than or equal to 1; it is 0"),
        ({"weights": {"wram": 1}}, "weights.wram", "did you mean 'warm'? (known: warm, brief)"),
        ({"weigths": {"warm": 1}}, "weigths", "did you mean 'weights'?"),
        ({"policy": "calibrated"}, "policy", "needs a map"),
        ({"echo": True}, "echo", "echo is not supported: the prompt is not repeated"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(
    client: TestClient, fields: dict[str, Any], param: str, line: str
) -> None:
    error = refusal(complete(client, **fields), 400)
    assert line in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"model": "moalign", "weights": {"warm": NaN}, "messages": []}', "the body holds NaN"),
        (b'{"model": "moalign", "weights": {"warm": 1e999}, "messages": []}', "should be a finite number"),
        (b'{"model": "moalign", "mess', "the body is not JSON"),
        (b'{"model": "\xff"}', "the body is not UTF-8"),
        (b'{"model": "\\ud800"}', "half of a surrogate pair"),
        (b"[" * 50_000, "nested too deeply"),
        (b"[]", "the body is not a JSON object"),
    ],
)
def test_a_broken_body_is_refused(client: TestClient, body: bytes, line: str) -> None:
    response = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert line in refusal(response, 400)["message"]


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("headers", [{}, {"Content-Type": FORM}])
def test_curl_need_not_say_that_it_sends_json(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/v1/completions", content=b'{"model":"base","prompt":"a"}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": FORM, "Origin": "https://elsewhere.example"},
        {"Content-Type": FORM, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
    ],
)
def test_a_browser_must_say_that_it_sends_json(client: TestClient, headers: dict[str, str]) -> None:
    """It asks before it sends JSON elsewhere, but not before a form: no page is to use somebody's server."""
    response = client.post("/v1/completions", content=b'{"model": "base", "prompt": "a"}', headers=headers)
    assert "expected application/json (curl: add -H" in refusal(response, 415)["message"]


def test_the_charset_may_stand_beside_the_type(client: TestClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/v1/completions", content='{"model":"base","prompt":"é"}', headers=headers).status_code == 200


def test_unknown_models_paths_and_methods(client: TestClient) -> None:
    error = refusal(chat(client, model="mualign"), 404)
    assert error["code"] == "model_not_found"
    assert "did you mean 'moalign'?" in error["message"]
    assert "/v1/chat/completions" in refusal(client.get("/v1/chat"), 404)["message"]
    assert refusal(client.get("/v1/models/"), 404)["code"] == "no_such_path"
    response = client.get("/v1/completions")
    assert refusal(response, 405)["message"] == "this path is not for 'GET'; expected POST"
    assert response.headers["allow"] == "POST"
    for path in ("/docs", "/redoc"):  # their pages would load scripts from elsewhere
        assert client.get(path).status_code == 404


def test_the_models_are_listed_with_what_was_measured(client: TestClient) -> None:
    reply = client.get("/v1/models").json()
    ModelList.model_validate(reply)
    cards = {card["id"]: card for card in reply["data"]}
    assert list(cards) == ["moalign", "base", "brief100", "brief50-warm50", "warm100", "moalign@warm=0.5,brief=0.5"]
    assert cards["moalign"]["objectives"] == ["warm", "brief"]
    assert cards["moalign"]["syntax"] == "moalign@NAME=WEIGHT,NAME=WEIGHT"
    assert cards["moalign"]["policies"] == ["nearest", "interpolate", "soup", "decode"]  # those that this run can do
    assert cards["moalign"]["default_policy"] == "interpolate"
    assert cards["base"]["values"] == {"warm": 0.25, "brief": 0.25}
    assert cards["warm100"]["preference"] == {"brief": 0.0, "warm": 1.0}
    assert cards["warm100"]["values"] == {"warm": 1.0, "brief": 0.25}
    assert cards["warm100"]["intervals"]["warm"] == [0.8, 1.2]
    for name, card in cards.items():
        assert client.get(f"/v1/models/{name}").json() == card
        assert chat(client, model=name).status_code == 200


def test_a_mixture_is_a_model_with_a_plan(client: TestClient) -> None:
    card = client.get("/v1/models/moalign@warm=0.85,brief=0.15").json()
    assert card["plan"]["lanes"][0]["row"] == {"w": pytest.approx(0.7), "m": pytest.approx(0.3)}
    assert refusal(client.get("/v1/models/moalign@warm=-1"), 400)["param"] == "model"
    assert refusal(client.get("/v1/models/warm99"), 404)["code"] == "model_not_found"
    assert refusal(client.get("/v1/models/..%2F..%2Fetc"), 404)


def test_a_base_without_a_chat_template_reads_no_messages(tmp_path: Path, tiny_base: Path) -> None:
    """The line names no path: it is read by strangers."""
    base = load_base(str(tiny_base))
    base.tokenizer.chat_template = None
    with client_of(made_service(tmp_path / "run", base)) as client:
        error = refusal(chat(client), 400)
        assert error["code"] == "no_chat_template"
        assert "send a prompt to /v1/completions" in error["message"]
        assert complete(client).status_code == 200


def test_a_conversation_that_the_template_refuses_is_the_callers(tmp_path: Path, tiny_base: Path) -> None:
    base = load_base(str(tiny_base))
    base.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with client_of(made_service(tmp_path / "run", base)) as client:
        error = refusal(chat(client), 400)
    assert error["message"] == "the base's chat template does not take this conversation as it is: roles must alternate"
    assert str(tiny_base) not in error["message"]


def test_a_developer_is_a_system(client: TestClient, service: Service, base: BaseModel) -> None:
    chat(client, messages=[{"role": "developer", "content": [{"type": "text", "text": "be kind"}]}, *HI])
    assert service.engine.seen[-1].words == ["<|system|>be", "kind", "<|user|>hi", "there", "<|assistant|>"]


def test_a_direction_is_stated_in_the_prompt(tmp_path: Path, base: BaseModel) -> None:
    settings = {"template": "[{terms}]", "scale": 10, "separator": " "}
    run = made_run(tmp_path / "run", points={}, method="dpa", settings=settings)
    run.add_point(point("a", (0.5, 0.5), (1.0, 1.0), row={"k": 1.0}, direction={"warm": 0.6, "brief": 0.8}))
    service = made_service(tmp_path, base, run=run)
    with client_of(service) as client:
        weights = {"warm": 3, "brief": -4}
        reply = complete(client, weights=weights).json()
        assert reply["moalign"]["direction"] == {"warm": 0.6, "brief": -0.8}
        assert service.engine.seen[-1].words == ["[warm*6", "+", "brief*-8]", "one", "two"]
        chat(client, weights=weights)
        assert service.engine.seen[-1].words[:4] == ["<|system|>[warm*6", "+", "brief*-8]", "<|user|>hi"]
        error = refusal(complete(client, weights=weights, prompt=[3, 4]), 400)
        assert "expected the prompt as a string" in error["message"]


def test_a_failure_of_the_engine_is_a_500_or_the_end_of_the_stream(client: TestClient) -> None:
    error = refusal(complete(client, prompt="fail"), 500)
    assert (error["code"], error["message"]) == ("engine_failed", "the server could not go on with this text")
    response = complete(client, prompt="a fail", stream=True)
    assert response.status_code == 200
    assert events(response)[-1] == {"error": error}
    assert complete(client).status_code == 200


def test_a_mistake_of_the_servers_says_nothing_of_its_insides(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a secret of the prompt")

    monkeypatch.setattr(StandInEngine, "submit", broken)
    response = chat(client)
    error = refusal(response, 500)
    name = response.headers["x-request-id"]
    assert error["message"] == f"the server made a mistake; its log names this request {name}"
    line = next(each.getMessage() for each in caplog.records if each.levelno == logging.ERROR)
    assert line.startswith(f"request {name} failed: KeyError at ")
    assert "test_app.py" in line
    assert "secret" not in caplog.text


def test_the_log_has_a_line_per_request_and_nothing_that_it_said(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "moalign"):
        chat(client, messages=[{"role": "user", "content": "my secret"}], user="secret")
        client.get("/v1/models/secret%0Aforged?secret=1")
        client.get("/secret%1b[31m")
    lines = [each.getMessage() for each in caplog.records if each.name == "moalign.serving.api.journal"]
    said = [line.split()[1:4] for line in lines]
    assert said == [
        ["POST", "/v1/chat/completions", "200"],
        ["GET", "/v1/models/{model}", "404"],
        ["GET", "other", "404"],
    ]
    assert "secret" not in "".join(lines)


def test_the_metrics_count_by_pattern(client: TestClient) -> None:
    chat(client)
    client.get("/v1/models/x")
    text = client.get("/metrics").text
    assert 'moalign_responses_total{path="/v1/models/{model}",status="404"} 1.0' in text
    assert 'moalign_responses_total{path="/v1/chat/completions",status="200"} 1.0' in text
    assert 'moalign_plans_total{policy="interpolate"} 1.0' in text


def test_a_server_that_stops_sends_new_requests_away(client: TestClient, service: Service) -> None:
    assert client.get("/health").json() == client.get("/ready").json() == {"status": "ok"}
    service.stopping = True
    for response in (client.get("/ready"), chat(client), complete(client)):
        assert refusal(response, 503)["message"] == "the server is stopping"
        assert int(response.headers["retry-after"]) > 0
    assert client.get("/health").status_code == client.get("/v1/models").status_code == 200


def test_a_server_that_has_not_begun_is_not_ready(service: Service) -> None:
    with client_of(service) as client:
        service.engine.stop(0.0)
        assert refusal(client.get("/ready"), 503)["code"] == "not_ready"


def test_a_plan_of_more_lanes_than_slots_is_refused(tmp_path: Path, base: BaseModel) -> None:
    with client_of(made_service(tmp_path / "run", base, limits=Limits(slots=2))) as client:
        assert chat(client, policy="decode").status_code == 200
        error = refusal(chat(client, policy="decode", divergence="jsd"), 400)
        assert error["message"].startswith("this plan takes 3 slots for each choice, and the server has 2")


def test_the_document_says_what_the_routes_take_and_give(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert set(found["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/models/{model}",
        "/health",
        "/ready",
        "/metrics",
    }
    post = found["paths"]["/v1/chat/completions"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["$ref"] == "#/components/schemas/ChatRequest"
    assert set(post["responses"]) == {"200", "400", "401", "404", "408", "413", "415", "421", "429", "500", "503"}
    named = set(json.dumps(found).split('"#/components/schemas/')[1:])
    assert {each.partition('"')[0] for each in named} <= set(found["components"]["schemas"])
    assert "422" not in json.dumps(found)
    assert "security" not in found


def test_what_counts_is_what_the_engine_reads(tmp_path: Path, served_base: BaseModel) -> None:
    """It may be less than the model's own context: the width of an attention window."""
    service = made_service(tmp_path / "run", served_base)
    service.engine.context = 8
    with client_of(service) as client:
        error = refusal(client.post("/v1/completions", json={"model": "base", "prompt": "a" * 20}), 400)
    assert error["code"] == "context_length_exceeded"
    assert "reads 8" in error["message"]


def test_a_prompt_that_the_engine_cannot_read_is_the_askers_mistake(
    tmp_path: Path, served_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as token ids that the tokenizer has and the model has not."""

    def refuse(*_: object) -> None:
        raise DataError("a prompt has tokens from 3 to 999; expected 0 to 258")

    service = made_service(tmp_path / "run", served_base)
    monkeypatch.setattr(service.engine, "submit", refuse)
    with client_of(service) as client:
        error = refusal(client.post("/v1/completions", json={"model": "base", "prompt": "a"}), 400)
    assert "tokens from 3 to 999" in error["message"]
