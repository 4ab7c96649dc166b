"""The view of training in this process: what it says while a log grows, and that nothing else grows with it."""

import base64
import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explored import Explored
from made_runs import made_run

from moalign.dashboards.explorer import training
from moalign.dashboards.history import TITLES
from moalign.files import append_line
from moalign.runs import Run

CHART = '{"name":"training-3","part":"data"}'  # divergence


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(tmp_path / "run", points={}, preferences={"corners": True})


@pytest.fixture
def log(run: Run) -> Callable[..., None]:
    return lambda kind, **values: append_line(run.folder / "metrics.jsonl", json.dumps({"kind": kind, **values}))


def look(page: Explored, before: str | None = None) -> dict[str, Any]:
    return page.write("logged.data", {"logged.data": before}, "look.n_intervals")


def test_adapters_are_known_before_their_first_step(run: Run, log: Callable[..., None]) -> None:
    """A group tells whom it trains as it begins."""
    log("training", group="group-1", adapters=["warm100-a", "brief100-b"], steps=40)
    (run.folder / "claims").mkdir(exist_ok=True)
    (run.folder / "claims" / "group-1.claim").touch()
    answer = look(Explored(run.folder))
    assert answer["line-of"]["options"] == [
        {"label": "warm 1", "value": "warm100-a"},
        {"label": "brief 1", "value": "brief100-b"},
    ]
    assert "step 0 of 40" in json.dumps(answer["progress-rows"]["children"])
    assert "1 worker at work" in answer["progress-said"]["children"]


def test_nothing_is_sent_while_nothing_changes_and_a_step_that_is_taken_again_is_a_change(
    run: Run, log: Callable[..., None]
) -> None:
    page = Explored(run.folder)
    log("step", group="warm100-a", step=10, loss=0.5)
    before = look(page)["logged"]["data"]
    assert "logged" not in look(page, before)
    log("step", group="warm100-a", step=10, loss=0.25)
    after = look(page, before)["logged"]["data"]
    assert after != before
    drawn = page.write(f"{CHART}.data", {"logged.data": after}, "logged.data")
    assert len(drawn) == len(TITLES) + 1  # and the side
    loss = drawn['{"name":"training-6","part":"data"}']["data"]
    assert np.frombuffer(base64.b64decode(loss["data"][0]["y"]["bdata"])).tolist() == [0.25]


def test_a_log_that_is_long_is_read_in_parts_and_the_page_says_how_far_it_is(
    run: Run, log: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_PATIENCE", 0.0)
    monkeypatch.setattr("moalign.following._CHUNK", 500)
    for step in range(1, 21):
        log("rollouts", adapter="warm100-a", step=step, kl=1.0)
    page = Explored(run.folder)
    first = look(page)
    assert "% of it has been read." in first["progress-said"]["children"]
    hurried = first["look"]["interval"]
    for _ in range(6):
        last = look(page)
    assert last["progress-said"]["children"].startswith("0 of 2 adapters trained")
    assert last["look"]["interval"] > hurried


def test_lines_that_cannot_be_read_are_told(run: Run, log: Callable[..., None]) -> None:
    append_line(run.folder / "metrics.jsonl", '{"kind": "st')
    assert "1 line of the log cannot be read" in look(Explored(run.folder))["progress-said"]["children"]


def test_loading_the_page_does_not_wait_for_the_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the log was read")

    monkeypatch.setattr("moalign.following.Tail.read", read)
    assert "The log is being read." in Explored(run.folder).layout()


def test_of_many_pairs_each_line_has_a_look_of_its_own(tmp_path: Path) -> None:
    """Nine objectives have 36 pairs; the six lines differ in colour or dash."""
    from itertools import combinations

    from logged import Moment, course

    from moalign.dashboards.history import history_figures, history_info
    from moalign.history import History, Trace

    gram = [[1.0] * 9 for _ in range(9)]
    for at, (i, j) in enumerate(combinations(range(9), 2)):
        gram[i][j] = gram[j][i] = at / 36
    trace = Trace("a", ("a",), None, 1, course([Moment(1, gram=tuple(map(tuple, gram)))]))
    figure = history_figures(history_info(History(tuple("abcdefghi"), (), (trace,), ())))[5]
    assert len({(line.line.color, line.line.dash) for line in figure.data}) == 6


def test_who_follows_a_run_that_grows_keeps_its_steps_and_nothing_else(run: Run, log: Callable[..., None]) -> None:
    """A step of two rewards and a divergence is 32 bytes and its place; a look keeps nothing."""
    follower = training._Follower(run)

    def looks(steps: range) -> int:
        for step in steps:
            log("rollouts", adapter="warm100-a", step=step, kl=1.0, rewards={"warm": 1.0, "brief": 0.5})
            follower.info(run, follower.reader.read())
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    looks(range(1, 11))
    tracemalloc.start()
    try:
        first = looks(range(11, 21))
        assert looks(range(21, 61)) - first < 40 * 400
    finally:
        tracemalloc.stop()
