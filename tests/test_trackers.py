"""A small port to experiment trackers: what is asked for must be installed, and gets every number."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moalign.errors import ConfigError
from moalign.trackers import open_trackers


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tracker,) = open_trackers(["tensorboard"], tmp_path)
    for step in (10, 20):
        tracker.log(step, {"group/loss": 1 / step})
    tracker.finish()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("group/loss")] == [
        (10, pytest.approx(0.1)),
        (20, pytest.approx(0.05)),
    ]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_run_trackers_are_begun_under_the_runs_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    module = SimpleNamespace(
        init=lambda **settings: said.append(settings),
        log=lambda values, step: said.append((step, values)),
        finish=lambda: said.append("finished"),
    )
    monkeypatch.setitem(sys.modules, name, module)
    (tracker,) = open_trackers([name], tmp_path / "mine")
    tracker.log(10, {"loss": 0.5})
    tracker.finish()
    assert said == [{"project": "moalign", "name": "mine"}, (10, {"loss": 0.5}), "finished"]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_told_with_the_cure(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"tracker '{name}' is not installed; pip install 'moalign\[{name}\]'"):
        open_trackers([name], tmp_path)


def test_no_tracker_is_no_tracker(tmp_path: Path) -> None:
    assert open_trackers([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []
