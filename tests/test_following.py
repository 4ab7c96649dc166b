import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged import Moment, moments
from tiny_world import build_base, write_config

from moalign import following
from moalign.config import load_config
from moalign.files import append_line
from moalign.following import HistoryReader, Tail
from moalign.sweep import run_sweep

NAMES = ("warm", "brief")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder whose base has been measured: hypervolumes count from (0, 0)."""
    (tmp_path / "reference.json").write_text(json.dumps({"reference_point": {"brief": 0.0, "warm": 0.0}}))
    return tmp_path


@pytest.fixture
def log(run: Path) -> Callable[..., None]:
    """Appends a line, as a run does."""
    return lambda kind, **values: append_line(run / "metrics.jsonl", json.dumps({"time": 1.0, "kind": kind, **values}))


def point(adapter: str, warm: float, brief: float, **changes: Any) -> dict[str, Any]:
    """What a sweep logs of a point."""
    return {
        "adapter": adapter,
        "preference": {"warm": 0.5, "brief": 0.5},
        "values": {"brief": brief, "warm": warm},
        "kl_to_reference": None,
        "length": 3.0,
        "status": "NEW",
        "hypervolume": 9.0,
    } | changes


def test_lines_come_once_and_a_line_in_the_writing_comes_when_it_is_whole(tmp_path: Path) -> None:
    tail, path = Tail(tmp_path / "log"), tmp_path / "log"
    assert tail.read() == ([], False)
    path.write_bytes(b"one\ntwo\nthr")
    assert tail.read() == ([b"one", b"two"], False)
    assert tail.read() == ([], False)
    path.write_bytes(b"one\ntwo\nthree\n")
    assert tail.read() == ([b"three"], False)


def test_a_file_that_shrank_vanished_or_is_another_one_is_read_from_its_beginning(tmp_path: Path) -> None:
    """A run that was deleted and begun again may be longer by then than the old one was."""
    tail, path = Tail(tmp_path / "log"), tmp_path / "log"
    path.write_bytes(b"one\ntwo\n")
    tail.read()
    path.write_bytes(b"1\n")
    assert tail.read() == ([b"1"], True)
    path.unlink()
    assert tail.read() == ([], True)
    assert tail.read() == ([], False)
    path.write_bytes(b"new\n")
    assert tail.read() == ([b"new"], False)
    (tmp_path / "other").write_bytes(b"quite\nanother\n")
    (tmp_path / "other").rename(path)
    assert tail.read() == ([b"quite", b"another"], True)


def test_a_step_is_what_was_logged_last_of_it(run: Path, log: Callable[..., None]) -> None:
    """After a kill, steps 2 and 3 are taken again: 3 has not come yet, and 2 is the one of the second time."""
    for step, kl in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.25)):
        log("rollouts", adapter="a", step=step, kl=kl, length=4.0, rewards={"warm": 1, "brief": -2.0})
    (trace,) = HistoryReader(run, NAMES).read().traces
    assert [moment.kl for moment in moments(trace.course)] == [0.1, 0.25, 0.3]
    assert trace.latest == 2
    assert moments(trace.course)[0].rewards == (1.0, -2.0)


def test_what_is_no_number_is_none(run: Path, log: Callable[..., None]) -> None:
    log("rollouts", adapter="a", step=1, kl=float("nan"), length=None, rewards={"warm": float("inf")}, weights={})
    log("rollouts", adapter="b", step=1, kl=True, gram=[[1.0]])
    first, second = HistoryReader(run, NAMES).read().traces
    assert moments(first.course) == [Moment(1)]
    assert moments(second.course) == [Moment(1)]
    assert first.course.numbers == second.course.numbers == {}


def test_lines_that_make_no_sense_are_counted_and_unknown_kinds_are_not(run: Path, log: Callable[..., None]) -> None:
    log("heartbeat", of="nobody")
    for line in ("", "{", "5", '{"kind": "step"}', '{"kind": "step", "group": "g", "step": 1e999}'):
        append_line(run / "metrics.jsonl", line)
    log("point", **point("a", 1.0, 1.0, preference={"warm": -1.0}))
    log("step", group="g", step=10, loss=0.5)
    history = HistoryReader(run, NAMES).read()
    assert history.unreadable == 6
    assert [moments(trace.course) for trace in history.traces] == [[Moment(10, loss=0.5)]]


def test_volumes_are_those_of_all_points_so_far(run: Path, log: Callable[..., None]) -> None:
    """Above (0, 0): a box of 1 x 0.25, with another of 0.25 x 1 that adds 0.1875, with 0.75 x 0.5 that adds 0.125.

    Logged is 9, by a worker that counts otherwise. A fourth that is dominated adds nothing; the second, measured again
    and lower, takes away.
    """
    boxes = (("a", 1.0, 0.25), ("b", 0.25, 1.0), ("c", 0.75, 0.5), ("d", 0.5, 0.25), ("b", 0.25, 0.25))
    for key, warm, brief in boxes:
        log("point", **point(key, warm, brief))
    history = HistoryReader(run, NAMES).read()
    assert [landing.volume for landing in history.landings] == [0.25, 0.4375, 0.5625, 0.5625, 0.4375]
    assert [landing.trained for landing in history.landings] == [1, 2, 3, 4, 4]
    assert history.reference_point == (0.0, 0.0)


def test_a_point_without_values_moves_no_other_and_takes_its_row_when_it_is_measured(
    run: Path, log: Callable[..., None]
) -> None:
    """Boxes of 1 x 0.25, nothing, 0.25 x 1; that again, lower, lies within the first; then 2 x 2."""
    log("point", **point("a", 1.0, 0.25))
    log("point", **point("n", 0, 0, values={}))
    log("point", **point("b", 0.25, 1.0))
    log("point", **point("b", 0.25, 0.25))
    log("point", **point("n", 2.0, 2.0))
    history = HistoryReader(run, NAMES).read()
    assert history.unreadable == 0
    assert [landing.volume for landing in history.landings] == [0.25, 0.25, 0.4375, 0.25, 4.0]


def test_a_step_that_is_a_word_spoils_no_point(run: Path, log: Callable[..., None]) -> None:
    log("step", group="a", step="7", loss=0.5)
    log("point", **point("a", 1.0, 0.25))
    assert [landing.steps for landing in HistoryReader(run, NAMES).read().landings] == [7]


def test_of_many_objectives_the_largest_logged_volume_stands(tmp_path: Path, log: Callable[..., None]) -> None:
    """A second worker, which has not seen the first one's points, logs less: the set has not shrunk."""
    names = tuple("abcde")
    values = dict.fromkeys(names, 1.0)
    for key, logged in (("x", 2.0), ("y", 1.5), ("z", None)):
        log("point", **point(key, 0, 0, values=values, preference={"a": 1.0}, hypervolume=logged))
    assert [landing.volume for landing in HistoryReader(tmp_path, names).read().landings] == [2.0, 2.0, 2.0]


def test_mixtures_count_the_adapters_that_they_are_made_of(run: Path, log: Callable[..., None]) -> None:
    for key, row in (("m1", {"a": 0.5, "b": 0.5}), ("m2", {"a": 1.0, "b": 0.0}), ("m3", {"c": 1.0})):
        log("point", **point(key, 1.0, 1.0, row=row))
    assert [landing.trained for landing in HistoryReader(run, NAMES).read().landings] == [2, 2, 3]


def test_a_group_tells_whom_it_trains_and_how_long(run: Path, log: Callable[..., None]) -> None:
    """Two groups took 40 and 20 steps until the point landed; a step of several adapters side by side is one."""
    log("training", group="group-1", adapters=["a", "b"], steps=40)
    log("rollouts", adapter="a", step=1, kl=0.0)
    for group, step in (("group-1", 30), ("group-1", 40), ("c", 20)):
        log("step", group=group, step=step, loss=1.0)
    log("point", **point("a", 1.0, 1.0))
    history = HistoryReader(run, NAMES).read()
    assert {trace.name: (trace.adapters, trace.steps) for trace in history.traces} == {
        "group-1": (("a", "b"), 40),
        "a": (("a",), 40),
        "c": (("c",), None),
    }
    assert [history.trace_of(key).name for key in ("a", "b", "c")] == ["a", "group-1", "c"]
    assert history.trace_of("d") is None
    assert history.landings[0].steps == 60


def test_the_rounds_of_dpa_are_one_trace(run: Path, log: Callable[..., None]) -> None:
    for number in (1, 2):
        log("step", group=f"round{number}-x", step=10, loss=0.1)
        log("dpa_round", adapter=f"round{number}-x", step=number, length=10.0 * number, rewards={"warm": 1.0})
    rounds = next(trace for trace in HistoryReader(run, NAMES).read().traces if trace.unit == "round")
    assert rounds.adapters == ("round1-x", "round2-x")
    assert [(moment.step, moment.length) for moment in moments(rounds.course)] == [(1, 10.0), (2, 20.0)]


def test_a_deleted_run_is_empty_and_a_new_one_in_its_place_has_nothing_of_it(
    run: Path, log: Callable[..., None]
) -> None:
    reader = HistoryReader(run, NAMES)
    log("point", **point("a", 2.0, 2.0))
    assert len(reader.read().landings) == 1
    (run / "metrics.jsonl").unlink()
    assert reader.read().landings == ()
    log("point", **point("b", 1.0, 1.0))
    assert [(landing.adapter, landing.volume) for landing in reader.read().landings] == [("b", 1.0)]


def test_reading_while_another_writes_in_pieces_loses_and_invents_nothing(run: Path) -> None:
    """A line of 200 bytes is written seven bytes at a time, and threads read all the while."""
    lines = [
        json.dumps({"kind": "step", "group": "g", "step": i, "loss": float(i), "pad": "x" * 150}) for i in range(60)
    ]
    data, reader, done = ("\n".join(lines) + "\n").encode(), HistoryReader(run, NAMES), threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            history = reader.read()
            assert history.unreadable == 0
            seen.append(sum(len(trace.course) for trace in history.traces))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    handle = os.open(run / "metrics.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for start in range(0, len(data), 7):
        os.write(handle, data[start : start + 7])
    os.close(handle)
    done.set()
    for thread in readers:
        thread.join()
    (trace,) = reader.read().traces
    assert [moment.loss for moment in moments(trace.course)] == [float(i) for i in range(60)]
    assert max(seen) <= 60


def test_what_a_sweep_logs_is_understood(tmp_path: Path) -> None:
    """An online sweep whose weights follow the gradients: rewards, weights of sum 1, cosines, and points."""
    changes = {
        "method": "online",
        "objectives": {"warm": {"type": "tiny_world:warm"}, "soon": {"type": "tiny_world:soon"}},
        "preferences": {"list": [{"warm": 1, "soon": 1}]},
        "settings": {"steps": 3, "prompts": 2, "completions": 4, "weighting": "gradient"},
        "data": {"train_prompts": "prompts.jsonl", "prompts": "prompts.jsonl", "holdout": 0.0, "separator": " "},
        "evaluation": {"prompts": 2, "samples": 2, "max_new_tokens": 5},
    }
    config = write_config(tmp_path, build_base(tmp_path / "base"), **changes)
    run = run_sweep(load_config(config), tmp_path / "run")
    history = HistoryReader(run.folder, run.objectives).read()
    (landing,) = history.landings
    trace = history.trace_of(landing.adapter)
    assert history.unreadable == 0
    assert landing.volume == pytest.approx(run.front().hypervolume())
    found = trace.course
    assert found.step[:3].tolist() == [1, 2, 3]
    assert found.numbers["weights"].sum(axis=1) == pytest.approx(np.ones(len(found)))
    assert found.numbers["rewards"].shape == (len(found), 2)
    assert not np.isnan(found.column("kl")).any()
    assert not np.isnan(found.cosines(0, 1)).all()


def test_a_long_log_is_read_a_part_at_a_time_and_says_how_much_of_it(
    run: Path, log: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of 100 bytes, and no time: a line of 300 bytes comes whole, and after the last one all has been read."""
    monkeypatch.setattr(following, "_CHUNK", 100)
    for step in range(1, 6):
        log("rollouts", adapter="a", step=step, kl=float(step), text="x" * (300 if step == 2 else 5))
    reader, counts, shares = HistoryReader(run, NAMES), [], []
    for _ in range(6):
        history = reader.read(0.0)
        counts.append(sum(len(trace.course) for trace in history.traces))
        shares.append(history.read)
    assert counts[0] < counts[1] < counts[-1] == 5
    assert 0 < shares[0] < shares[1] < shares[-1] == 1.0
    assert len(HistoryReader(run, NAMES).read().traces[0].course) == 5


def test_a_log_whose_last_line_is_cut_off_is_read_to_its_end(run: Path, log: Callable[..., None]) -> None:
    """A worker killed as it wrote leaves half a line; who goes on ends it, and it is counted as unreadable."""
    log("step", group="g", step=1, loss=0.5)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "group": "g", "st')
    reader = HistoryReader(run, NAMES)
    assert (reader.read().read, len(reader.read().traces[0].course), reader.read().unreadable) == (1.0, 1, 0)
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n")
    log("step", group="g", step=2, loss=0.25)
    assert (len(reader.read().traces[0].course), reader.read().unreadable) == (2, 1)


def test_a_new_file_with_the_inode_of_the_old_one_is_told_by_its_first_line(tmp_path: Path) -> None:
    tail, path = Tail(tmp_path / "log"), tmp_path / "log"
    path.write_bytes(b"one\n")
    tail.read()
    path.write_bytes(b"another\none\n")  # written over, and longer
    assert tail.read() == ([b"another", b"one"], True)


def test_a_step_out_of_order_stands_in_its_place_and_fills_what_was_not_logged(
    run: Path, log: Callable[..., None]
) -> None:
    log("rollouts", adapter="a", step=3, kl=3.0)
    log("rollouts", adapter="a", step=1, kl=1.0, length=4.0)
    log("rollouts", adapter="a", step=2, kl=2.0)
    found = HistoryReader(run, NAMES).read().traces[0].course
    assert (found.step.tolist(), found.column("kl").tolist()) == ([1, 2, 3], [1.0, 2.0, 3.0])
    assert np.isnan(found.column("length")).tolist() == [False, True, True]


def test_what_has_not_changed_is_not_made_again(run: Path, log: Callable[..., None]) -> None:
    """A page looks every few seconds: of a log that rests it must cost nothing."""
    for key in "ab":
        log("rollouts", adapter=key, step=1, kl=1.0)
    reader = HistoryReader(run, NAMES)
    before = reader.read().traces
    log("rollouts", adapter="b", step=2, kl=1.0)
    after = reader.read().traces
    assert after[0].course is before[0].course
    assert (len(before[1].course), len(after[1].course)) == (1, 2)
