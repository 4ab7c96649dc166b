"""kill -9 at ten random moments, the same command again each time: the run that nobody disturbed."""

import json
import random
import signal
from pathlib import Path

import pytest
import tiny_world
from kills import finish, state, stopped_after

from moalign.adapters import WEIGHTS_FILE
from moalign.runs import Run

KILLS = 10
STEPS = 12
SETTINGS = {
    "preferences": {"lattice": 5},
    "settings": {"beta": 0.5, "steps": STEPS, "batch_size": 8, "learning_rate": 0.01},
    "evaluation": {"prompts": 6, "samples": 4, "max_new_tokens": 5},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed")
    path = tiny_world.write_config(folder, base, **SETTINGS)
    finish(["sweep", str(path), "--out", str(folder / "run")], folder / "log")
    return Run.open(folder / "run")


def test_ten_kills_change_nothing(undisturbed: Run, base: Path, tmp_path: Path) -> None:
    """Moments are drawn by what has happened, not by the clock, so that every phase of a sweep has its share."""
    path = tiny_world.write_config(tmp_path, base, **SETTINGS)
    folder, log = tmp_path / "run", tmp_path / "log"
    arguments = ["sweep", str(path), "--out", str(folder)]
    rng = random.Random(7)
    ends = [stopped_after(rng.randint(1, 16), arguments, folder, log) for _ in range(KILLS)]
    assert ends == [-signal.SIGKILL] * KILLS, log.read_text()
    finish(arguments, log)

    run = Run.open(folder)
    assert run.store.keys() == undisturbed.store.keys()
    for point in undisturbed.front():
        mine, theirs = (each.folder / "adapters" / point.adapter / WEIGHTS_FILE for each in (run, undisturbed))
        assert mine.read_bytes() == theirs.read_bytes()
    found = {point.adapter: point for point in run.front()}
    for point in undisturbed.front():
        assert found[point.adapter].values == pytest.approx(point.values)
        assert found[point.adapter].kl_to_reference == pytest.approx(point.kl_to_reference, abs=1e-4)
    assert run.front().hypervolume() == pytest.approx(undisturbed.front().hypervolume())

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [(line["group"], line["step"]) for line in lines if line["kind"] == "step"]
    needed = 3 * 2  # three groups of two, the tenth and the twelfth step of each
    assert len(set(steps)) == needed
    assert len(steps) <= needed + KILLS  # at most the step in which it was killed is taken again
    landed = [line["adapter"] for line in lines if line["kind"] == "point"]
    assert len(landed) == len(set(landed)) <= 6


def test_a_finished_run_has_nothing_left_to_do(undisturbed: Run, tmp_path: Path) -> None:
    """The same command on a finished run writes its report again, and no adapter, point, score or step."""
    kept = {entry for entry in state(undisturbed.folder) if "report.html" not in entry[0]}
    config = undisturbed.folder.parent / "sweep.yaml"
    finish(["sweep", str(config), "--out", str(undisturbed.folder)], tmp_path / "log")
    files = {entry for entry in kept if Path(entry[0]).is_file()}
    assert files <= state(undisturbed.folder)


def test_stopping_by_hand_says_that_it_can_go_on(base: Path, tmp_path: Path) -> None:
    """Ctrl-C: one line, the code that shells give to SIGINT, no claim left, and the same command ends well."""
    path = tiny_world.write_config(tmp_path, base, **SETTINGS | {"preferences": {"corners": True}})
    folder, log = tmp_path / "run", tmp_path / "log"
    arguments = ["sweep", str(path), "--out", str(folder)]
    assert stopped_after(10, arguments, folder, log, signal.SIGINT) == 130
    assert log.read_text() == "moalign: stopped; the same command goes on from here\n"
    assert list((folder / "claims").iterdir()) == []
    finish(arguments, log)
