"""A run is read whole, read again when it changes, and its end is said in a sentence."""

import json
import shutil
from pathlib import Path

import pytest
from made_runs import THREE, made_run, point

from moalign.config import parse_config
from moalign.errors import DataError, RunError
from moalign.exploring import Scorers, Watch, wish_of
from moalign.preference import Preference
from moalign.runs import Run


def test_it_is_read_once_for_each_state_of_the_folder(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    watch = Watch(run.folder)
    first = watch.now()
    assert watch.now() is first
    assert [p.adapter for p in first.front] == [p.adapter for p in run.front()]
    run.add_point(point("new", (0.25, 0.75), (0.5, 0.75)))
    second = watch.now()
    assert second is not first
    assert second.token != first.token
    assert set(second.points) == {*THREE, "new"}
    assert set(first.points) == set(THREE)  # what somebody still looks at does not change under them


def test_what_a_kill_left_beside_and_what_cannot_be_read_is_no_point(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    record = point("bad", (0.5, 0.5), (0.1, 0.1)).as_dict()
    record["values"]["warm"] = None  # how NaN is stored
    (run.folder / "points" / "bad.json").write_text(json.dumps(record))
    (run.folder / "points" / ".half.json.1.tmp").write_text('{"adapter": "ha')
    (run.folder / "points" / "torn.json").write_text('{"adapter": "to')
    (run.folder / "points" / "list.json").write_text("[]")
    seen = Watch(run.folder).now()
    assert set(seen.points) == set(THREE)
    bad, listed, torn = seen.left_out
    assert bad.startswith("bad is left out: adapter 'bad' has value nan for 'warm'")
    assert listed == "list is left out: its record cannot be read"
    assert torn.startswith("torn is left out")


def test_a_run_without_points_has_an_empty_front_and_one_that_is_gone_an_error(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", points={})
    watch = Watch(run.folder)
    assert len(watch.now().front) == 0
    assert watch.now().oracle is None
    assert watch.now().calibration is None
    shutil.rmtree(run.folder)
    with pytest.raises(RunError, match="is gone: it was deleted or moved"):
        watch.now()


def test_only_runs_beside_it_can_be_named(tmp_path: Path) -> None:
    one, other = made_run(tmp_path / "one"), made_run(tmp_path / "other")
    (tmp_path / "no_run").mkdir()
    made_run(tmp_path / "deeper" / "run")
    watch = Watch(one.folder)
    assert watch.siblings() == ["other"]
    assert watch.sibling("other").folder == other.folder.resolve()
    for name in ("one", "no_run", "../other", str(other.folder), "deeper/run", ""):
        with pytest.raises(RunError, match="no run of that name"):
            watch.sibling(name)


def test_texts_are_scored_by_the_objectives_that_can(tmp_path: Path) -> None:
    """Length counts words, and is minus them; an objective without a type is learned, and left out."""
    objectives = {"brief": {"type": "length"}, "liked": {"pairs": "pairs.jsonl"}}
    run = Run.create(tmp_path / "run", parse_config({"base": "org/base", "objectives": objectives}))
    scorers = Scorers()
    assert scorers.score(run, "Hi", ["one", "one two"]) == [{"brief": -1.0}, {"brief": -2.0}]


def test_weights_of_another_run_are_refused() -> None:
    assert wish_of({"a": 1.0, "b": 3.0}, ("a", "b")) == Preference.of({"a": 0.25, "b": 0.75})
    with pytest.raises(DataError, match="of another run"):
        wish_of({"a": 1.0}, ("a", "b"))
