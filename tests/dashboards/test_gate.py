"""What stands before Dash: a page gets what it asks for, and whoever else asks gets a line and no more."""

import asyncio
import json
import logging
import random
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from explored import Explored, many_run
from made_runs import made_run
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from moalign.dashboards.explorer import gate
from moalign.dashboards.explorer.gate import Gate, call
from moalign.dashboards.explorer.live import Live
from moalign.serving.api.refusals import RefusedError

CALLBACK = "/explore/_dash-update-component"
KNOWN = {
    "out.data": {
        "inputs": [{"id": "a", "property": "value"}, {"id": '{"name":"f","part":"graph"}', "property": "clickData"}],
        "state": [{"id": "s", "property": "data"}],
        "callback": len,
    },
    "client.data": {"inputs": [], "state": []},
}
ASKED = {
    "output": "out.data",
    "outputs": {"id": "out", "property": "data"},
    "inputs": [
        {"id": "a", "property": "value", "value": 1},
        {"id": {"part": "graph", "name": "f"}, "property": "clickData"},
    ],
    "state": [{"id": "s", "property": "data", "value": "x"}],
    "changedPropIds": ["a.value"],
}
ODD: list[Any] = [None, True, -1, 1.5, 1e308, 10**400, "", "../../etc/passwd", "<script>", [], [[]], {}, [None] * 50]
ODD += [
    {"points": 3},
    {"points": [7]},
    {"warm": "a", "brief": None},
    {"weights": {"warm": 10**309, "brief": -1}},
    "9,x",
]
ODD += [{"kind": 3, "prompt": [1], "texts": [1], "heads": 2}, {"run": ["warm", "brief"], "rows": [[1, 2]] * 999}]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    return Explored(made_run(tmp_path_factory.mktemp("gate") / "run").folder, Live(True, 64))


def test_a_callback_is_what_is_registered_with_the_values_of_the_page() -> None:
    found = call({**ASKED, "outputs": {"id": "other", "property": "x"}, "background": {}}, KNOWN)
    assert found["outputs"] == {"id": "out", "property": "data"}
    assert [each["value"] for each in found["inputs"]] == [1, None]
    assert found["state"][0]["value"] == "x"
    assert found["changedPropIds"] == ["a.value"]
    assert "background" not in found
    assert call({**ASKED, "changedPropIds": ["a.value.x", 7]}, KNOWN)["changedPropIds"] == []


@pytest.mark.parametrize(
    "asked",
    [
        None,
        [],
        {},
        {**ASKED, "output": "client.data"},  # done in the browser
        {**ASKED, "output": "none.data"},
        {**ASKED, "output": ["out.data"]},
        {**ASKED, "inputs": None},
        {**ASKED, "inputs": ASKED["inputs"][:1]},
        {**ASKED, "inputs": ASKED["inputs"][::-1]},
        {**ASKED, "inputs": [1, 2]},
        {**ASKED, "state": {}},
        {**ASKED, "state": [{"id": ["s"], "property": "data"}]},
        {**ASKED, "changedPropIds": 3},
        {**ASKED, "changedPropIds": ["a.value"] * 3},
    ],
)
def test_what_no_page_sends_is_no_callback(asked: Any) -> None:
    with pytest.raises(RefusedError, match="load the page again") as refused:
        call(asked, KNOWN)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"output": NaN}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"output": ' + b"9" * 5000 + b"}", "application/json", 400),
        (json.dumps(ASKED).encode(), "text/plain", 415),
        (json.dumps(ASKED).encode(), "", 415),
        (b"output=x", "application/x-www-form-urlencoded", 415),
    ],
)
def test_bodies_that_are_no_callback_are_refused(page: Explored, content: bytes, kind: str, status: int) -> None:
    answer = page.client.post(CALLBACK, content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert "\n" not in answer.json()["error"]["message"]


DEVELOPING = ["_reload-hash", "_favicon.ico", "_dash-ws-callback", "_alive_x", "_mcp", "nowhere", "assets/x"]
ELSEWHERE = ["assets/../app.py", "assets/%2e%2e/app.py", "_dash-component-suites/os/path.py"]


@pytest.mark.parametrize("path", [*DEVELOPING, *ELSEWHERE, "_dash-component-suites/dash/nowhere.js"])
def test_what_dash_has_for_those_who_develop_is_not_there(page: Explored, path: str) -> None:
    answer = page.client.get(f"/explore/{path}")
    assert answer.status_code == 404
    assert "dcc" not in answer.text  # no list of what there is


def test_a_path_is_asked_for_in_one_way(page: Explored) -> None:
    assert page.client.get(CALLBACK).headers["allow"] == "POST"
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = page.client.request(method, "/explore/_dash-layout")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_a_request_for_the_page_that_has_a_body_waits_for_nothing(page: Explored) -> None:
    """Dash would read it, and wait for its end, where a type is given."""
    answer = page.client.request("GET", "/explore/_dash-layout", headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("site", "mode", "to", "status"),
    [
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),  # a link that somebody follows
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "cors", "empty", 403),
    ],
)
def test_other_sites_may_link_here_and_no_more(page: Explored, site: str, mode: str, to: str, status: int) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": to}
    for path in ("", "_dash-layout", "points.csv", "assets/explorer.js"):
        assert page.client.get(f"/explore/{path}", headers=headers).status_code == status
    if site != "same-origin":
        headers["Content-Type"] = "application/json"
        asked = page.client.post(CALLBACK, content=b"{}", headers=headers)
        assert asked.status_code == (400 if site == "none" else 403)


def test_every_answer_says_what_a_browser_may_do_with_it(page: Explored) -> None:
    for path in ("", "_dash-layout", "nowhere", "points.csv", "assets/explorer.js"):
        headers = page.client.get(f"/explore/{path}").headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == ("no-cache" if "assets" in path else "no-store")
        rules = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
        assert rules["default-src"] == "'self'"
        assert rules["frame-ancestors"] == "'none'"
        assert "unsafe" not in rules["script-src"]


def test_scripts_from_strings_run_only_where_plotly_needs_them(tmp_path: Path) -> None:
    many = Explored(many_run(tmp_path / "run", 3, 4).folder)
    assert "'unsafe-eval'" in many.client.get("/explore/").headers["content-security-policy"]


def test_odd_callbacks_are_answered_in_a_sentence(page: Explored, caplog: Any) -> None:
    """Values of the wrong kind, parts that are missing, others that nobody registered: never 5xx, a path or a trace."""
    caplog.set_level(logging.CRITICAL)
    draw = random.Random(0)
    known = [each for each in page.dependencies if not each["clientside_function"] and '"data"}' not in each["output"]]

    def given(items: list[dict[str, str]]) -> list[dict[str, Any]]:
        ids = [json.loads(item["id"]) if item["id"].startswith("{") else item["id"] for item in items]
        return [
            {"id": name, "property": item["property"], "value": draw.choice(ODD)}
            for name, item in zip(ids, items, strict=True)
        ]

    statuses = set()
    for _ in range(25):
        each = draw.choice(known)
        first = each["inputs"][0]
        body = {"output": each["output"], "inputs": given(each["inputs"]), "state": given(each["state"])}
        body["changedPropIds"] = [f"{first['id']}.{first['property']}"]
        if draw.random() < 0.2:
            body[draw.choice(list(body))] = draw.choice(ODD)
        answer = page.client.post(CALLBACK, json=body)
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 204, 400), answer.text
        assert "Traceback" not in answer.text
        assert "/run" not in answer.text.replace("/runs", "")
    assert statuses >= {200, 400}
    assert page.client.get("/explore/_dash-layout").status_code == 200


def test_a_mistake_is_logged_without_its_words(page: Explored, caplog: Any) -> None:
    found = page.write("plan.data", {"weights.data": {"secret": "secret"}, "live.data": {}}, "weights.data")
    assert "this part could not be made" in found["side"]["problem"]["children"]
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.exc_info is None
    assert ".py" in record.getMessage()
    assert "secret" not in record.getMessage()


def test_files_come_compressed_to_those_who_can_read_it_and_are_compressed_once(
    page: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    made: list[int] = []
    compress = gzip.compress
    monkeypatch.setattr(gzip, "compress", lambda *args, **more: made.append(1) or compress(*args, **more))
    script = next(
        part.split('"')[0]
        for part in page.client.get("/explore/").text.split('src="')[1:]
        if "dash_core_components.v" in part
    )
    whole = page.client.get(script, headers={"Accept-Encoding": "identity"})
    for _ in range(2):
        packed = page.client.get(script, headers={"Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < len(whole.content) / 2
        assert packed.content == whole.content
        assert packed.headers["content-type"] == whole.headers["content-type"]
        assert "max-age" in packed.headers["cache-control"]
    assert sum(made) == 1


def test_plotly_comes_compressed_and_not_twice(page: Explored) -> None:
    """Its address holds no version, so that the browser asks each time, and is told that it has it."""
    asked = {"Accept-Encoding": "gzip"}
    path = "/explore/_dash-component-suites/plotly/package_data/plotly.min.js"
    first = page.client.get(path, headers=asked)
    assert int(first.headers["content-length"]) < len(first.content) / 2
    again = page.client.get(path, headers={**asked, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert page.client.get(path, headers={**asked, "If-None-Match": '"another"'}).content == first.content


def test_work_for_pages_is_done_a_few_at_a_time_and_too_many_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five that come at once two are at work, two wait, and the fifth is told to come again; files need no turn."""
    monkeypatch.setattr(gate, "_WAITING", 2)
    at_work, most = 0, 0
    go_on = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal at_work, most
        if scope["path"] == "/":
            at_work += 1
            most = max(most, at_work)
            await asyncio.to_thread(go_on.wait, 5)
            at_work -= 1
        await PlainTextResponse("done")(scope, receive, send)

    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(Gate(slow, {}, "default-src 'self'"))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            asked = [asyncio.create_task(client.get("/")) for _ in range(4)]
            while at_work < 2:
                await asyncio.sleep(0.01)
            fifth = await client.get("/")
            assert fifth.headers["retry-after"] == "5"
            assert (await client.get("/assets/explorer.js")).status_code == 200
            go_on.set()
            return [fifth.status_code, *[(await each).status_code for each in asked]]

    assert asyncio.run(all_at_once()) == [503, 200, 200, 200, 200]
    assert most == 2
