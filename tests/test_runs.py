"""A run folder: begun once, readable at any instant, and nobody else's."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_runs import THREE, made_run, point

from moalign.config import SweepConfig, parse_config
from moalign.errors import ConfigError, RunError
from moalign.frontiers import AddStatus
from moalign.runs import Run


def config(**changes: object) -> SweepConfig:
    objectives = {"warm": {"type": "length"}, "brief": {"type": "length"}}
    return parse_config({"base": "org/base", "objectives": objectives, **changes})


def test_a_run_opens_with_the_settings_it_was_begun_with(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", config(seed=3, settings={"beta": 0.3}))
    run = Run.open(tmp_path / "run")
    assert run.config.seed == 3
    assert run.config.method_settings.beta == 0.3
    assert run.objectives == ("warm", "brief")


def test_the_same_settings_go_on_and_others_do_not(tmp_path: Path) -> None:
    """group_size changes how fast a run goes; the seed what it finds."""
    made_run(tmp_path)
    objectives = {"warm": {"type": "tiny_world:warm"}, "brief": {"type": "length"}}
    Run.create(tmp_path, parse_config({"base": "org/base", "objectives": objectives, "group_size": 3}))
    with pytest.raises(RunError, match=r"holds a run with other settings \(seed differ\).*--out"):
        Run.create(tmp_path, parse_config({"base": "org/base", "objectives": objectives, "seed": 3}))


def test_a_run_that_has_nothing_yet_takes_mended_settings(tmp_path: Path) -> None:
    """The first try had a wrong base, and failed before anything was made of it."""
    Run.create(tmp_path, config(base="org/bsae"))
    run = Run.create(tmp_path, config())
    assert Run.open(tmp_path).config.base == run.config.base == "org/base"


@pytest.mark.parametrize("name", ["notes.txt", "adapters"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(RunError, match="is not empty and holds no run"):
        Run.create(tmp_path, config())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_no_run_says_which_runs_there_are(tmp_path: Path) -> None:
    made_run(tmp_path / "mine")
    with pytest.raises(RunError, match=r"yours is not a run folder: .* \(runs beside it: mine\)"):
        Run.open(tmp_path / "yours")


def test_a_kill_in_the_first_write_does_not_spoil_the_folder(tmp_path: Path) -> None:
    """Nor does another worker that is just beginning the same run."""
    (tmp_path / ".config.yaml.1234abcd.tmp").write_text("base: or")
    Run.create(tmp_path, config(seed=4))
    assert Run.open(tmp_path).config.seed == 4


def test_damaged_settings_are_told_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("base: [")
    for use in (lambda: Run.open(tmp_path), lambda: Run.create(tmp_path, config())):
        with pytest.raises(ConfigError, match=r"config.yaml is not YAML"):
            use()
    assert (tmp_path / "config.yaml").read_text() == "base: ["


def test_the_front_is_what_the_points_on_disk_are(tmp_path: Path) -> None:
    """1 x .25 + .75 x .25 + .25 x .5 = .25 + .1875 + .125 = .5625 above (0, 0); the order is by weight."""
    run = made_run(tmp_path)
    front = run.front()
    assert [point.adapter for point in front] == ["b", "m", "w"]
    assert front.hypervolume() == pytest.approx(1 * 0.25 + 0.75 * 0.25 + 0.25 * 0.5)
    assert front.add(point("d", (0.4, 0.6), (0.5, 0.5))) is AddStatus.DOMINATED
    assert len(run.front()) == 3  # what is not on disk is not in it
    assert all(run.has_point(key) for key in THREE)
    assert not run.has_point("d")


def test_what_a_kill_leaves_behind_is_no_point(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    (tmp_path / "points" / ".x.json.1234abcd.tmp").write_text("{")
    (tmp_path / "points" / ".y.json").write_text("{")
    assert len(run.front()) == 3


def test_a_run_without_a_measured_base_has_no_front(tmp_path: Path) -> None:
    run = Run.create(tmp_path, config())
    assert run.base_point() is None
    with pytest.raises(RunError, match="has no measured points yet"):
        run.front()


def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    rows = [{"prompt": "Wie spät?", "response": "Zu\nspät…\u2028", "scores": {"warm": 1.0}}]
    run.write_samples("w", rows)
    assert run.samples("w") == rows
    assert run.samples("m") == []


def test_arrays_are_stored_without_pickle(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    run.write_arrays("oracle", {"scores": np.eye(2)})
    with np.load(tmp_path / "oracle.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["scores"], np.eye(2))


def test_metrics_are_one_json_object_per_line(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    run.log("step", loss=0.5)
    run.log("point", **point("w", (1.0, 0.0), (1.0, 0.0)).as_dict())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "point"]
    assert lines[0]["loss"] == 0.5
    assert lines[1]["preference"] == {"brief": 0.0, "warm": 1.0}
