"""`moalign serve` from outside: a real process and sockets, the official client, curl, and what goes wrong."""

import asyncio
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from made_runs import THREE, made_run
from openai import AsyncOpenAI, OpenAI
from serving import Running, run_to_serve, serving

from moalign.adapters import Adapter
from moalign.models import load_base
from moalign.runs import Run

HI = [{"role": "user", "content": "Hi, who are you?"}]
ASK = {"model": "moalign", "messages": HI, "temperature": 0, "max_tokens": 12}
PAGE = Path(__file__).parents[2] / "SERVING.md"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, random_adapter: Callable[..., Adapter]) -> Run:
    return run_to_serve(tmp_path_factory.mktemp("served") / "mine", tiny_base, random_adapter)


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Running]:
    """Eight slots; others may wait."""
    with serving(run.folder, run.folder.parent / "server.log", "--slots", 8) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[OpenAI]:
    with server.openai() as client:
        yield client


def said(reply: Any) -> str:
    return str(reply.choices[0].message.content)


# The official client, as it is.


def test_weights_in_a_field_and_in_the_name_are_the_same(client: OpenAI) -> None:
    """Other weights say something else, and so does the base."""
    field = client.chat.completions.create(**ASK, extra_body={"weights": {"warm": 0.7, "brief": 0.3}})
    name = client.chat.completions.create(**{**ASK, "model": "moalign@warm=0.7,brief=0.3"})
    assert said(field) == said(name) != ""
    assert field.moalign == {**name.moalign, "seed": field.moalign["seed"]}
    assert field.moalign["lanes"] == [{"row": {"w": pytest.approx(0.4), "m": pytest.approx(0.6)}, "share": 1.0}]
    assert set(field.moalign["predicted"]) == {"warm", "brief"}
    assert field.usage.total_tokens == field.usage.prompt_tokens + field.usage.completion_tokens
    others = [client.chat.completions.create(**{**ASK, "model": other}) for other in ("moalign@brief=1", "base")]
    assert len({said(reply) for reply in [field, *others]}) == 3


def test_a_stream_says_what_a_whole_answer_does(client: OpenAI) -> None:
    ask = {**ASK, "temperature": 1, "seed": 4, "max_tokens": 40}
    whole = client.chat.completions.create(**ask)
    stream = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    found = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in found[:-1]) == said(whole)
    assert found[0].choices[0].delta.role == "assistant"
    assert found[0].moalign == whole.moalign
    assert found[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (found[-1].choices, found[-1].usage) == ([], whole.usage)


def test_completions_seeds_stops_choices_and_logprobs(client: OpenAI) -> None:
    ask = {"model": "moalign@warm=1,brief=1", "prompt": "Once", "max_tokens": 24, "seed": 7}
    first, again = (client.completions.create(**ask, n=2, logprobs=2) for _ in range(2))
    assert [choice.text for choice in first.choices] == [choice.text for choice in again.choices]
    assert first.choices[0].text != first.choices[1].text
    logprobs = first.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) > 0
    assert max(logprobs.token_logprobs) <= 0
    text = first.choices[0].text
    stop = next(text[place : place + 2] for place in range(4, len(text)) if text[place : place + 2].isascii())
    cut = client.completions.create(**ask, stop=stop)
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == (text[: text.index(stop)], "stop")


def test_log_probabilities_of_a_conversation(client: OpenAI) -> None:
    """At temperature 0 the token that is taken is the likeliest."""
    reply = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=3)
    content = reply.choices[0].logprobs.content
    assert len(content) == reply.usage.completion_tokens - (reply.choices[0].finish_reason == "stop")
    for each in content:
        assert len(each.top_logprobs) == 3
        assert each.logprob == max(other.logprob for other in each.top_logprobs)
        assert bytes(each.bytes).decode("utf-8", "replace") == each.token


def test_models_are_listed_and_answer(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["moalign", "base", "brief100", "brief50-warm50", "warm100", "moalign@warm=0.5,brief=0.5"]
    assert client.models.retrieve("moalign@warm=0.7,brief=0.3").plan["policy"] == "interpolate"
    for name in names:
        assert client.chat.completions.create(**{**ASK, "model": name}).model == name


def test_mistakes_are_the_clients_own_exceptions(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="unknown objective 'wram'; did you mean 'warm'"):
        client.chat.completions.create(**ASK, extra_body={"weights": {"wram": 1}})
    with pytest.raises(openai.NotFoundError, match="unknown model 'gpt-4o'"):
        client.chat.completions.create(**{**ASK, "model": "gpt-4o"})


def test_sixteen_streams_at_once_say_what_each_says_alone(server: Running, client: OpenAI) -> None:
    """Different weights and lengths, twice as many as there are slots, greedy."""
    asks = [
        {
            **ASK,
            "model": f"moalign@warm={number},brief={15 - number}",
            "messages": [{"role": "user", "content": "Tell me more. " * (1 + number % 5)}],
            "max_tokens": 20 + 3 * number,
        }
        for number in range(16)
    ]

    async def one(asking: AsyncOpenAI, ask: dict[str, Any]) -> str:
        stream = await asking.chat.completions.create(**ask, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def together() -> list[str]:
        async with AsyncOpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0) as asking:
            return await asyncio.gather(*(one(asking, ask) for ask in asks))

    assert asyncio.run(together()) == [said(client.chat.completions.create(**ask)) for ask in asks]


# curl, as the page for users has it: without a content type it says that the body is a form.


def from_the_page(language: str, server: Running) -> str:
    """The code of SERVING.md, for this server and its objectives."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return code.replace("http://127.0.0.1:8000", server.address).replace("helpful", "warm")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_commands_of_the_page(server: Running) -> None:
    def curl(line: str) -> str:
        words = shlex.split(line)
        return subprocess.run([*words, "-s"], capture_output=True, text=True, timeout=60, check=True).stdout

    lines = re.findall(r"^curl .*?(?=^curl|\Z)", from_the_page("sh", server), re.S | re.M)
    whole, streamed, text, models = map(curl, lines)
    assert json.loads(whole)["moalign"]["preference"] == {"warm": 0.7, "brief": 0.3}
    events = streamed.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[0].removeprefix("data: "))["moalign"]["preference"] == {"warm": 0.7, "brief": 0.3}
    assert json.loads(text)["usage"]["completion_tokens"] <= 8
    assert json.loads(models)["data"][0]["id"] == "moalign"
    said_to_be_json = curl(lines[0] + " -H 'Content-Type: application/json'")
    assert json.loads(said_to_be_json)["object"] == "chat.completion"


def test_the_python_of_the_page(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(from_the_page("python", server), str(PAGE), "exec"), names)
    names["client"].close()
    assert "'standard_error'" in capsys.readouterr().out


def test_a_page_in_a_browser_is_no_curl(server: Running) -> None:
    """It says where it comes from, whether it sends a form to us or has its own name point here."""
    body = json.dumps(ASK).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://example.org"}
    assert server.http.post("/v1/chat/completions", content=body, headers=form).status_code == 415
    assert (
        server.http.post("/v1/chat/completions", content=body, headers={**JSON, "Host": "example.org"}).status_code
        == 421
    )


# From a trade-off to a row.


@pytest.mark.parametrize(
    ("policy", "lanes", "source"),
    [
        ("nearest", [({"w": 1.0}, 1.0)], "measured"),
        ("interpolate", [({"w": 0.6, "m": 0.4}, 1.0)], "interpolated"),
        ("soup", [({"w": 0.8, "b": 0.2}, 1.0)], "interpolated"),
        ("decode", [({"b": 1.0}, 0.2), ({"w": 1.0}, 0.8)], "unknown"),
    ],
)
def test_a_policy_plans_its_rows(client: OpenAI, policy: str, lanes: Any, source: str) -> None:
    more = {"weights": {"warm": 0.8, "brief": 0.2}, "policy": policy}
    whole = client.chat.completions.create(**ASK, extra_body=more)
    first = next(iter(client.chat.completions.create(**ASK, extra_body={**more, "seed": 3}, stream=True)))
    assert whole.moalign["lanes"] == [
        {"row": pytest.approx(row), "share": pytest.approx(share)} for row, share in lanes
    ]
    assert (whole.moalign["policy"], whole.moalign["source"]) == (policy, source)
    assert first.moalign == {**whole.moalign, "seed": 3}


def test_a_row_is_what_is_planned(client: OpenAI) -> None:
    """Nearest to almost all warmth is the adapter of warmth alone; so is decoding with all the weight on it."""
    alone = said(client.chat.completions.create(**{**ASK, "model": "warm100"}))
    for policy, brief in (("nearest", 0.1), ("soup", 0), ("decode", 0)):
        more = {"weights": {"warm": 1, "brief": brief}, "policy": policy}
        assert said(client.chat.completions.create(**ASK, extra_body=more)) == alone, policy


@pytest.mark.parametrize(
    ("fields", "status", "line"),
    [
        ({"weights": {"kind": 1}}, 400, "unknown objective 'kind' (known: warm, brief)"),
        ({"weights": {"warm": -1, "brief": 2}}, 400, "only policy 'direction' takes negative ones"),
        ({"weights": {"warm": 0, "brief": 0}}, 400, "all weights are 0"),
        (b'{"model": "moalign", "messages": [], "weights": {"warm": NaN}}', 400, "the body holds NaN"),
        (b'{"model": "moalign", "messages": [], "weights": {"warm": 1e999}}', 400, "should be a finite number"),
        ({"model": "moalign@warm=nan"}, 400, "nan"),
        ({"model": "moalign@warm=inf,brief=1"}, 400, "inf"),
        ({"weights": {f"o{number}": 1 for number in range(1000)}}, 400, "1000 weights for the 2 objectives"),
        ({"model": "moalign@" + "warm=1," * 1000}, 400, "model 'moalign@warm=1,warm=1"),
        ({"model": "moalign@warm=1", "weights": {"brief": 1}}, 400, "give one, or the same twice"),
        ({"messages": [{"role": "user", "content": "x" * 600}]}, 400, "and the base reads 512"),
        ({"n": 0}, 400, "n should be greater than or equal to 1; it is 0"),
        ({"stop": ["x"] * 10_000}, 400, "10000 stop strings; this server takes at most 16"),
        ({"policy": "direction"}, 400, "adapters read no direction"),
        ({"policy": "calibrated"}, 400, "needs a map"),
        ({"policy": "sup"}, 400, "did you mean 'soup'"),
        ({"model": "warm99"}, 404, "did you mean 'warm100'"),
        ({"model": "../../etc/passwd"}, 404, "unknown model"),
        (b'{"model": "moalign", "messages": [{"role": "user", "content": "\xff"}]}', 400, "the body is not UTF-8"),
        (b'{"model": "moalign", "mess', 400, "the body is not JSON: "),
        (b"x" * (1 << 20) + b"x", 413, "the body is larger than the 1048576 bytes"),
    ],
)
def test_bad_input_is_told_in_one_line(server: Running, fields: Any, status: int, line: str) -> None:
    body = fields if isinstance(fields, bytes) else json.dumps({**ASK, **fields}).encode()
    response = server.http.post("/v1/chat/completions", content=body, headers=JSON)
    assert response.status_code == status
    error = response.json()["error"]
    assert line in error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 400


def test_a_base_without_a_template_reads_prompts_only(
    tmp_path: Path, tiny_base: Path, random_adapter: Callable[..., Adapter]
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    adapters = {"w": random_adapter(load_base(str(base)).model, 1)}
    run = made_run(tmp_path / "run", base, points={"w": THREE["w"]}, adapters=adapters)
    with serving(run.folder, tmp_path / "log") as running, running.openai() as client:
        with pytest.raises(openai.BadRequestError, match=r"has no chat template.* send a prompt to /v1/completions"):
            client.chat.completions.create(**ASK)
        assert client.completions.create(model="moalign", prompt="Once", max_tokens=3, seed=0).choices[0].text
