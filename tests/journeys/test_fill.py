"""`moalign fill` on a finished sweep, from the command line: killed, given again, and read by the other commands."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_world
import workers
from command import moalign
from kills import finish
from mistakes import refused

from moalign.adapters import WEIGHTS_FILE, read_adapter
from moalign.config import load_config
from moalign.dashboards.wording import preference_text
from moalign.evaluation import Evaluator
from moalign.runs import Run
from moalign.sweep import run_sweep

SETTINGS: dict[str, Any] = {
    "preferences": {"corners": True},
    "settings": {"beta": 0.1, "steps": 30, "batch_size": 8, "learning_rate": 0.05},
    "evaluation": {"prompts": 6, "samples": 16, "max_new_tokens": 5},
    "fill": {"to_the_middle": False, "steps": 8, "every": 4, "validate_every": 4, "prompts": 6, "completions": 2},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    """Two corners, with a gap between them that blends do not cover; read only."""
    folder = tmp_path_factory.mktemp("swept")
    return run_sweep(load_config(tiny_world.write_config(folder, base, **SETTINGS)), folder / "run")


@pytest.fixture(scope="module")
def filled(swept: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    """The same, filled with two branches, and what the command said; read only."""
    folder = tmp_path_factory.mktemp("filled") / "run"
    shutil.copytree(swept.folder, folder)
    ended = moalign("fill", folder, "--budget", 2, "--json")
    assert ended.code == 0, ended.err
    return Run.open(folder), json.loads(ended.out)


def intact(run: Run) -> None:
    """Whatever has its name can be read: records, texts, and adapters by PEFT's own format."""
    for path in run.folder.rglob("[!.]*.json"):
        json.loads(path.read_text())
    for path in (run.folder / "samples").glob("[!.]*.jsonl"):
        assert run.samples(path.stem)
    for key in run.store.keys():
        assert read_adapter(run.folder / "adapters" / key).layers
        run.store.load(key)
    for point in run.front():
        assert set(point.mixture) <= set(run.store.keys())


def adapters(run: Run) -> dict[str, bytes]:
    return {key: (run.folder / "adapters" / key / WEIGHTS_FILE).read_bytes() for key in run.store.keys()}


def killed_when(happened: Callable[[], object], arguments: list[str], log: Path) -> None:
    """Run the command, and kill it as soon as something has happened."""
    process, deadline = workers.start(arguments, log), time.monotonic() + 100
    while not happened():
        assert process.is_alive(), log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_branches_are_trained_where_blends_leave_a_gap(filled: tuple[Run, dict[str, Any]], swept: Run) -> None:
    """Two, from the ends of the one gap; the front is wider by them and by blends, and the sweep's points stay."""
    run, said = filled
    assert said["adapters_trained"] == 2
    (gap,) = (gap for gap in said["gaps"] if gap["trained"])
    assert sorted(gap["between"]) == swept.store.keys()
    assert not gap["covered_by_blend"]
    assert gap["gain_expected"] > gap["noise"] > 0
    assert said["hypervolume_after"] > said["hypervolume_before"] == pytest.approx(swept.front().hypervolume())
    assert said["hypervolume_after"] == pytest.approx(run.front().hypervolume())
    assert said["adapters_kept"] == sorted(set(run.store.keys()) - set(swept.store.keys())) != []
    before = {point.adapter: point for point in swept.front()}
    assert {point.adapter: point for point in run.front() if point.adapter in before} == before
    assert not (run.folder / "checkpoints").is_dir() or not list((run.folder / "checkpoints").iterdir())
    intact(run)


def test_kills_change_nothing(filled: tuple[Run, dict[str, Any]], swept: Run, tmp_path: Path) -> None:
    """While blends are measured, once the branches train, and between two of their offers."""
    folder, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(swept.folder, folder)
    arguments = ["fill", str(folder), "--budget", "2", "--json"]
    for pattern in ("blends/[!.]*.json", "checkpoints/[!.]*.safetensors", "fill/round-0/offers/[!.]*.json"):
        killed_when(lambda pattern=pattern: list(folder.glob(pattern)), arguments, log)
        assert not (folder / "fill" / "round-0" / "done.json").is_file()
        intact(Run.open(folder))
    log.unlink()
    finish(arguments, log)
    run, (undisturbed, _) = Run.open(folder), filled
    intact(run)
    assert adapters(run) == adapters(undisturbed)
    found, expected = ({point.adapter: point for point in each.front()} for each in (run, undisturbed))
    assert found.keys() == expected.keys()
    for key, point in found.items():
        assert point.values == pytest.approx(expected[key].values)
        assert point.preference == expected[key].preference
    assert json.loads(log.read_text().splitlines()[-1])["adapters_trained"] == 2
    assert list(folder.glob("claims/*")) == []


def test_again_without_a_budget_measures_nothing(
    filled: tuple[Run, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(shutil.copytree(filled[0].folder, tmp_path / "run"))
    monkeypatch.setattr(Evaluator, "measure", lambda *_: pytest.fail("measured again"))
    ended = moalign("fill", run.folder, "--budget", 0, "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert (said["adapters_trained"], said["adapters_kept"]) == (0, [])
    assert said["hypervolume_after"] == said["hypervolume_before"]


def test_the_other_commands_read_a_filled_run(filled: tuple[Run, dict[str, Any]], tmp_path: Path) -> None:
    """The page has the map, and blends as points or, where they are none, as blends; indicators have all points.

    A wish is served by the blend that was measured for it.
    """
    run = Run.open(shutil.copytree(filled[0].folder, tmp_path / "run"))
    page = (run.folder / "report.html").read_text()
    assert "The calibrated map says what any mixture" in page
    blends = [point for point in run.front() if point.row is not None]
    assert len(blends) > 1
    assert all(preference_text(blend.preference, run.objectives) in page for blend in blends)
    ended = moalign("indicators", run.folder, "--json")
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert {point["adapter"] for point in summary["points"]} == {point.adapter for point in run.front()}
    assert summary["hypervolume"] == pytest.approx(filled[1]["hypervolume_after"])
    wish = ",".join(f"{name}={weight}" for name, weight in blends[0].preference.weights.items())
    said = moalign("generate", run.folder, "q0 ?", "--prefer", wish, "--json", "--best-of", 2, "--max-new-tokens", 8)
    assert said.code == 0, said.err
    assert json.loads(said.out)["row"] == blends[0].row
    (run.folder / "points" / f"{blends[1].adapter}.json").unlink()
    assert moalign("report", run.folder).code == 0
    assert "a blend of trained adapters, measured but not trained" in (run.folder / "report.html").read_text()


def test_what_cannot_be_filled_is_one_line(swept: Run, tmp_path: Path) -> None:
    """No run, and one adapter."""
    refused(moalign("fill", tmp_path / "nowhere"), "is not a run folder")
    run = Run.open(shutil.copytree(swept.folder, tmp_path / "run"))
    next((run.folder / "points").iterdir()).unlink()
    refused(moalign("fill", run.folder), "has 1 trained adapters")
    refused(moalign("fill", run.folder, "--json", "--budget", 0), "expected two or more")
