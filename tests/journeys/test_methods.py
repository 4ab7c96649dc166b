"""Fewer adapters than points: soups, mixtures that are trained, and one adapter for all directions; killed and not."""

import random
import signal
from pathlib import Path
from typing import Any

import pytest
from kills import finish, stopped_after
from mistakes import World
from online_runs import ONLINE, weights

from moalign.runs import Run

OFFLINE = {"beta": 0.5, "steps": 8, "batch_size": 8, "learning_rate": 0.02}
ROLLOUTS = {"steps": 6, "prompts": 2, "completions": 4, "learning_rate": 0.02}
ROUNDS = {"rounds": 2, "plain_rounds": 1, "completions": 4, "steps": 4, "batch_size": 4, "learning_rate": 0.02}
QUICK: dict[str, Any] = {
    "preferences": {"lattice": 3},
    "evaluation": {"prompts": 4, "samples": 2, "max_new_tokens": 5},
}
METHODS: dict[str, dict[str, Any]] = {
    "soup": {"method": "soup", "settings": {"settings": OFFLINE}},
    "conditioned": {"method": "conditioned", "settings": {"settings": OFFLINE, "draws": 2}},
    "online": ONLINE | {"method": "conditioned", "settings": {"by": "online", "settings": ROLLOUTS, "draws": 2}},
    "dpa": ONLINE | {"method": "dpa", "settings": {**ROUNDS, "place": "user", "template": "{terms}"}},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_sweep_ends_with_points_and_a_report_whatever_kills_it(name: str, base: Path, tmp_path: Path) -> None:
    """Twice stopped by kill -9, and then continued: the undisturbed run's adapters, byte by byte, and its points."""
    world = World(tmp_path, base)
    ended = world.sweep(**QUICK, **{key: value for key, value in METHODS[name].items() if key not in QUICK})
    assert ended.code == 0, ended.err
    undisturbed = Run.open(world.run)
    points = {point.adapter: point for point in undisturbed.front()}
    assert len(undisturbed.store.keys()) == 2  # a corner each, or a round each
    assert len(points) == 4
    report = (undisturbed.folder / "report.html").read_text()
    assert all(key in report for key in points)
    if name == "dpa":
        (last,) = {key for point in points.values() for key in point.row or {}}
        assert last.startswith("round2-")
        assert len({str(point.direction) for point in points.values()}) == 4
    else:
        assert sorted(len(point.row or {}) for point in points.values()) == [0, 0, 2, 2]

    config, folder, log = world.folder / "sweep.yaml", tmp_path / "killed", tmp_path / "log"
    arguments, rng = ["sweep", str(config), "--out", str(folder)], random.Random(3)
    ends = [stopped_after(rng.randint(6, 15), arguments, folder, log) for _ in range(2)]
    assert ends == [-signal.SIGKILL] * 2, log.read_text()
    finish(arguments, log)
    killed = Run.open(folder)
    assert weights(killed) == weights(undisturbed)
    found = {point.adapter: point for point in killed.front()}
    assert found.keys() == points.keys()
    for key, point in points.items():
        assert found[key].values == pytest.approx(point.values)
        assert found[key].kl_to_reference == pytest.approx(point.kl_to_reference, abs=1e-4)
        assert (found[key].row, found[key].direction) == (point.row, point.direction)
    assert not (folder / "checkpoints").exists()
