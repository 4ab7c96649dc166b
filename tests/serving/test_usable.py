"""What of a run can be used: everything but records that cannot be read or have no finite values."""

import json
import logging
import os
from pathlib import Path

import pytest
from made_runs import THREE, made_run, point

from moalign.errors import RunError
from moalign.files import write_json
from moalign.preference import Preference
from moalign.runs import Run
from moalign.serving.plan import Planner
from moalign.serving.usable import usable_front


def spoilt(run: Run, key: str = "bad") -> None:
    record = point(key, (0.5, 0.5), (0.1, 0.1)).as_dict()
    record["values"]["warm"] = None  # how NaN is stored
    write_json(run.folder / "points" / f"{key}.json", record)


def test_without_bad_records_it_is_the_front_of_the_run(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    front, left_out = usable_front(run)
    assert (list(front), left_out) == (list(run.front()), ())
    assert front.reference_point.tolist() == run.front().reference_point.tolist()


def test_a_point_of_another_run_is_left_out_too(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    alien = {**point("alien", (0.5, 0.5), (0.1, 0.1)).as_dict(), "preference": {"cold": 1.0}}
    write_json(run.folder / "points" / "alien.json", alien)
    front, (line,) = usable_front(run)
    assert {each.adapter for each in front} == set(THREE)
    assert line.startswith("alien is left out: ")


def test_what_has_not_changed_is_not_read_again_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    run, known = made_run(tmp_path), {}
    usable_front(run, known)
    path = run.folder / "points" / "w.json"
    times = path.stat()
    path.write_text("no longer JSON")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (run.folder / "points" / "m.json").unlink()
    front, left_out = usable_front(run, known)
    assert ({each.adapter for each in front}, left_out) == ({"w", "b"}, ())
    assert set(known) == {"w.json", "b.json"}


def test_a_plan_does_without_a_point_that_is_nan_and_the_log_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A blend and a base that are NaN say nothing either: the even mixture is read from the line between w and b."""
    run = made_run(tmp_path, points={key: THREE[key] for key in ("w", "b")})
    spoilt(run)
    blend = {**point("x", (0.5, 0.5), (0.1, 0.1), row={"w": 0.5, "b": 0.5}).as_dict()}
    write_json(run.folder / "blends" / "x.json", {**blend, "values": {"warm": None, "brief": 1.0}})
    with caplog.at_level(logging.WARNING):
        planner = Planner.of(run)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("bad is left out: adapter 'bad' has value nan for 'warm'")
    assert planner.adapters == ["b", "w"]
    assert list(planner.names) == ["brief100", "warm100"]
    plan = planner.plan(Preference.of({"warm": 0.5, "brief": 0.5}))
    assert [plan.predicted[name].value for name in run.objectives] == pytest.approx([0.625, 0.625])
    json.dumps(plan.as_dict(), allow_nan=False)


def test_where_nothing_can_be_used_the_reason_is_the_error(tmp_path: Path) -> None:
    run = made_run(tmp_path, points={})
    spoilt(run)
    with pytest.raises(RunError, match="no point that can be used; bad is left out: adapter 'bad' has value nan"):
        Planner.of(run)
