"""Filling a front: gaps that blends cover, branches for those they do not, and nothing twice.

The points lie on y = 1 - x^2, each the best for the weights of its normal, (2x, 1): between two of them at a and b the
curve is at x = (a + b) / 2, which is what is expected there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import made_run, point

from moalign import fill
from moalign.branches import Branch
from moalign.claims import claim
from moalign.config import FillSettings
from moalign.errors import RunError
from moalign.fill import run_fill
from moalign.frontiers import ParetoPoint
from moalign.planning import Policy
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.tables import describe_gaps

PROMPTS = 30
QUIET = Reporter(quiet=True)


def curve(x: float) -> tuple[float, float]:
    return x, 1 - x**2


def nothing(_: Mapping[str, float]) -> tuple[float, float]:
    """Dominated by every point there is."""
    return 0.0, 0.0


class World:
    """A run on the curve, whose blends and branches attain what is written here, and who asked for which of them."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *places: float, noise: float = 1e-4):
        self.noise, self.rng, self.blended, self.trained = noise, np.random.default_rng(0), [], []
        self.places = {f"x{100 * x:.0f}": x for x in places}
        self.run = made_run(folder, points={})
        for key, x in self.places.items():
            self.land(key, curve(x), x)
        self.blend = lambda row: curve(self.place(row))
        self.limit = 99  # how many rounds are trained before someone stops it
        patch.setattr(fill, "prepare", lambda *_: None)
        patch.setattr(fill, "open_evaluator", lambda *_: None)
        patch.setattr(fill, "measure_blend", self.measure_blend)
        patch.setattr(fill, "Branching", lambda _prepared, _evaluator, _reporter, folder, _: self.entering(folder))

    def fill(self, budget: int, **settings: Any) -> dict[str, Any]:
        settings = {"to_the_middle": False} | settings
        config = self.run.config.model_copy(update={"fill": FillSettings(**settings)})
        return run_fill(Run(self.run.folder, config), budget, QUIET)

    def land(self, key: str, values: tuple[float, float], x: float, row: Mapping[str, float] | None = None) -> None:
        """A point with its texts, which vary from prompt to prompt; a record of its adapter, unless it is a blend."""
        one = self.measured(key, values, x, row)
        self.run.add_point(one)
        if row is None:
            (self.run.store.folder / key).mkdir(parents=True)
            (self.run.store.folder / key / "record.json").write_text("{}")

    def measured(self, key: str, values: tuple[float, float], x: float, row: Any) -> ParetoPoint:
        texts = values + self.noise * self.rng.normal(size=(PROMPTS, 2))
        names = self.run.objectives
        self.run.write_samples(
            key,
            [
                {"prompt": f"q{i}", "scores": dict(zip(names, each, strict=True))}
                for i, each in enumerate(texts.tolist())
            ],
        )
        return replace(point(key, (2 * x / (2 * x + 1), 1 / (2 * x + 1)), values), row=row)

    def place(self, row: Mapping[str, float]) -> float:
        return sum(weight * self.places[key] for key, weight in row.items())

    def measure_blend(self, _run: Run, _evaluator: Any, policy: Policy) -> ParetoPoint:
        self.blended.append(dict(policy.row))
        return self.measured(policy.key, self.blend(policy.row), self.place(policy.row), policy.row)

    def chord(self, row: Mapping[str, float]) -> tuple[float, float]:
        """On the straight line between the two ends."""
        warm, brief = np.sum([weight * np.array(curve(self.places[key])) for key, weight in row.items()], axis=0)
        return float(warm), float(brief)

    def entering(self, folder: Path) -> "World":
        self.folder = folder
        return self

    def train(self, branches: Sequence[Branch]) -> None:
        """A tenth along the curve, to where the objective is higher, unless an adapter is there."""
        self.limit -= 1
        for branch in branches:
            x = round(self.places[branch.parent] + (0.1 if branch.objective == "warm" else -0.1), 1)
            self.trained.append((self.places[branch.parent], branch.objective))
            if self.limit < 0:
                raise KeyboardInterrupt
            if 0 <= x <= 1 and x not in self.places.values():
                key = f"{branch.key}-15"
                self.places[key] = x
                self.land(key, curve(x), x)


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """At 0, .3 and 1: a small gap and a large one."""
    return World(tmp_path / "run", monkeypatch, 0.0, 0.3, 1.0)


def by_ends(found: dict[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(sorted(gap["between"])): gap for gap in found["gaps"]}


SMALL, LARGE = ("x0", "x30"), ("x100", "x30")


# Looking


def test_what_blends_cover_is_not_trained(three: World) -> None:
    """Halfway between two points of the curve a blend is on the curve: all that was expected is had at once."""
    found = three.fill(10)
    gaps = by_ends(found)
    assert set(gaps) == {SMALL, LARGE}
    assert all(gap["covered_by_blend"] and not gap["trained"] for gap in gaps.values())
    for gap in gaps.values():
        assert gap["gain_measured"] == pytest.approx(gap["gain_expected"], rel=0.02)
    assert sorted(map(three.place, three.blended)) == pytest.approx([0.15, 0.65])
    assert three.trained == []
    assert (found["adapters_trained"], found["adapters_kept"]) == (0, [])
    gained = found["hypervolume_after"] - found["hypervolume_before"]
    assert gained == pytest.approx(sum(gap["gain_measured"] for gap in gaps.values()))


def test_the_expected_gain_is_that_of_the_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over (0, 0) the points at 0 and 1 have no volume; the curve's at 1/2 is .5 by .75. Their distance is sqrt(2)."""
    found = World(tmp_path / "run", monkeypatch, 0.0, 1.0).fill(0)
    (gap,) = found["gaps"]
    assert gap["gain_expected"] == pytest.approx(0.375)
    assert gap["size"] == pytest.approx(2**0.5)
    assert gap["between"] in (["x0", "x100"], ["x100", "x0"])
    assert (found["hypervolume_before"], found["hypervolume_after"]) == pytest.approx((0.0, 0.375), abs=1e-3)


def test_blends_are_points_if_they_widen_the_front(three: World) -> None:
    """With the mixture that they are; those below it are measured, and no points."""
    along, three.blend = three.blend, nothing
    three.fill(0)
    assert {each.adapter for each in three.run.front()} == {"x0", "x30", "x100"}
    assert len(three.blended) == 6
    three.blend = along
    three.fill(0)
    blends = [each for each in three.run.front() if each.row]
    assert [sorted(each.mixture) for each in blends] == [["x0", "x30"], ["x100", "x30"]]
    assert all(set(each.mixture.values()) == {0.5} for each in blends)


def test_a_second_call_looks_no_further(three: World) -> None:
    """What is covered stays covered, with nothing measured; what is open is asked of the same blends again."""
    three.fill(0)
    before = len(three.blended)
    found = three.fill(0)
    assert found["gaps"] == []
    assert len(three.blended) == before
    assert found["hypervolume_after"] == found["hypervolume_before"]


def test_an_open_gap_is_asked_of_the_same_blends_again(three: World) -> None:
    three.blend = nothing
    first, asked = three.fill(0), [tuple(row.items()) for row in three.blended]
    again = three.fill(0)
    assert set(by_ends(again)) == set(by_ends(first)) == {SMALL, LARGE}
    assert [tuple(row.items()) for row in three.blended] == asked * 2


@pytest.mark.parametrize(("noise", "left"), [(0.5, {LARGE}), (10.0, set())])
def test_gaps_within_the_noise_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: float, left: set[tuple[str, str]]
) -> None:
    """The small gap promises .01, the large one .2; values have errors of .1, and of the whole front's size."""
    world = World(tmp_path / "run", monkeypatch, 0.0, 0.3, 1.0, noise=noise)
    found = world.fill(0)
    assert set(by_ends(found)) == left
    assert all(gap["gain_expected"] > gap["noise"] > 0 for gap in found["gaps"])
    assert bool(world.blended) == bool(left)


def test_blends_on_the_straight_line_leave_the_gap_open(three: World) -> None:
    """They are points, for no adapter dominates them; between them and the curve there is still more than the noise."""
    three.blend = three.chord
    found = by_ends(three.fill(0))
    assert len(three.blended) == 6
    assert len([each for each in three.run.front() if each.row]) == 6
    for gap in found.values():
        assert not gap["covered_by_blend"]
        assert gap["gain_measured"] > 0
    again = by_ends(three.fill(2))
    assert again[LARGE]["trained"]
    assert again[LARGE]["gain_expected"] < found[LARGE]["gain_expected"]  # beside the blends that are points by now


# Training


def test_the_budget_goes_into_the_largest_gap_first(three: World) -> None:
    """From both of its ends, each climbing what the other has more of; then into the small gap, as far as it goes."""
    three.blend = nothing
    found = three.fill(3)
    assert sorted(three.trained[:2]) == [(0.3, "warm"), (1.0, "brief")]
    assert three.trained[2] in [(0.0, "warm"), (0.3, "brief")]
    gaps = by_ends(found)
    assert gaps[SMALL]["gain_expected"] < gaps[LARGE]["gain_expected"]
    assert gaps[SMALL]["trained"]
    assert gaps[LARGE]["trained"]
    assert not any(gap["covered_by_blend"] for gap in gaps.values())
    assert found["adapters_trained"] == 3
    assert len(found["adapters_kept"]) == 3
    assert found["hypervolume_after"] == three.run.front().hypervolume() > found["hypervolume_before"]


def test_what_a_gap_gained_is_what_its_branches_added(three: World) -> None:
    """(.4, .84) between (.3, .91) and (1, 0) adds .1 * .84; (.9, .19) beside it .5 * .19 more."""
    three.blend = nothing
    found = three.fill(2)
    gaps = by_ends(found)
    assert gaps[LARGE]["gain_measured"] == pytest.approx(0.1 * 0.84 + 0.5 * 0.19)
    assert not gaps[SMALL]["trained"]
    assert gaps[SMALL]["gain_measured"] == 0.0
    assert found["hypervolume_after"] - found["hypervolume_before"] == pytest.approx(gaps[LARGE]["gain_measured"])


def test_one_branch_to_the_middle_is_enough_for_a_gap(three: World) -> None:
    """Both gaps get one in the first round, the larger one first; their other ends are left alone."""
    three.blend = nothing
    three.fill(2, to_the_middle=True)
    assert three.trained[0] in [(0.3, "warm"), (1.0, "brief")]
    assert three.trained[1] in [(0.0, "warm"), (0.3, "brief")]
    (first,) = three.run.folder.glob("fill/round-*")
    assert len(json.loads((first / "round.json").read_text())["branches"]) == 2


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_no_more_is_trained_than_the_budget_allows(three: World, budget: int) -> None:
    three.blend = nothing
    assert three.fill(budget)["adapters_trained"] == len(three.trained) == budget


def test_it_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no gap promises more than its noise, or every end of one has had its branches: no parent has them twice."""
    world = World(tmp_path / "run", monkeypatch, 0.0, 0.3, 1.0, noise=0.2)
    world.blend = nothing
    found = world.fill(1000)
    assert 4 < found["adapters_trained"] == len(world.trained) < 1000
    assert len(set(world.trained)) == len(world.trained)
    assert by_ends(found)[LARGE]["trained"]
    again = world.fill(1000)
    assert len(world.trained) == found["adapters_trained"] + again["adapters_trained"]
    assert len(set(world.trained)) == len(world.trained)


def test_one_branch_for_each_objective_of_the_selected_adapters(three: World) -> None:
    """The ends of the front stand loneliest; one at a time, the first round has two branches, of one parent."""
    three.blend = nothing
    three.fill(2, select=1)
    (parent,) = {x for x, _ in three.trained}
    assert parent in (0.0, 1.0)
    assert {name for _, name in three.trained} == {"warm", "brief"}


def test_a_round_that_was_stopped_is_finished_first(three: World) -> None:
    """The same branches again, and no others in their place; then the rest of the budget."""
    three.blend, three.limit = nothing, 0
    with pytest.raises(KeyboardInterrupt):
        three.fill(2)
    assert three.trained == [three.trained[0]]
    (before,) = three.run.folder.glob("fill/round-*")
    asked = json.loads((before / "round.json").read_text())["branches"]
    three.limit, three.trained = 99, []
    found = three.fill(2)
    assert [(three.places[one["parent"]], one["objective"]) for one in asked] == three.trained
    assert found["adapters_trained"] == 2
    assert by_ends(found)[LARGE]["trained"]
    assert (before / "done.json").is_file()
    assert list(three.run.folder.glob("fill/round-*")) == [before]


def test_a_round_that_was_stopped_before_it_was_written_is_begun_anew(three: World) -> None:
    three.blend = nothing
    (three.run.folder / "fill" / "round-0").mkdir(parents=True)
    assert three.fill(2)["adapters_trained"] == 2
    assert [folder.name for folder in three.run.folder.glob("fill/round-*")] == ["round-0"]


# What is said


def test_what_is_told_is_json_of_a_fixed_form(three: World) -> None:
    """The keys that scripts rely on, in JSON's own types."""
    three.blend = nothing
    found = three.fill(2)
    assert set(found) == {"gaps", "hypervolume_before", "hypervolume_after", "adapters_trained", "adapters_kept"}
    kinds = {
        "between": list,
        "size": float,
        "covered_by_blend": bool,
        "gain_expected": float,
        "gain_measured": float,
        "noise": float,
        "trained": bool,
    }
    assert {name: type(value) for name, value in found["gaps"][0].items()} == kinds
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (type(found["adapters_trained"]), type(found["hypervolume_before"])) == (int, float)
    expected = [gap["gain_expected"] for gap in found["gaps"]]
    assert expected == sorted(expected, reverse=True)


def test_each_gap_says_what_became_of_it(three: World, capsys: pytest.CaptureFixture[str]) -> None:
    three.blend = lambda row: curve(three.place(row)) if three.place(row) < 0.3 else nothing(row)
    describe_gaps(three.fill(0))
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip().endswith("left open") for line in lines[1:3]] == [True, False]
    assert lines[2].rstrip().endswith("covered by a blend")
    describe_gaps(three.fill(2))
    out = capsys.readouterr().out
    assert "x30 and x100" in out or "x100 and x30" in out
    assert "trained" in out.splitlines()[1]
    assert "by blends and 2 branches, of which 2 adapters were kept" in out


# Mistakes


@pytest.mark.parametrize("places", [(), (0.5,)])
def test_a_front_needs_two_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: tuple[float, ...]) -> None:
    world = World(tmp_path / "run", monkeypatch, *places)
    with pytest.raises(RunError, match=f"has {len(places)} trained adapters; expected two or more"):
        world.fill(2)


def test_mixtures_are_no_adapters_to_look_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "run", monkeypatch, 0.5)
    world.land("mixed", curve(0.2), 0.2, row={"x50": 0.5, "gone": 0.5})
    with pytest.raises(RunError, match="has 1 trained adapters"):
        world.fill(2)


def test_a_run_without_points_is_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", points={})
    (run.folder / "reference.json").unlink()
    with pytest.raises(RunError, match="has no measured points yet; run its sweep first"):
        run_fill(run, 1, QUIET)


def test_one_adapter_that_follows_every_direction_has_no_gaps(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", method="dpa")
    with pytest.raises(RunError, match="was trained by 'dpa', whose one adapter follows every direction"):
        run_fill(run, 1, QUIET)


def test_two_processes_do_not_fill_one_run(three: World) -> None:
    with claim(three.run.folder / "claims", "fill") as mine:
        assert mine
        with pytest.raises(RunError, match="another process is filling"):
            three.fill(1)
    assert three.fill(0)["gaps"]
