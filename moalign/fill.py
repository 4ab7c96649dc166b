"""`moalign fill`: find the gaps of a finished front, see what blends already cover, and train only where they do not.

A gap is worth looking at while an adapter in it can be expected to add more hypervolume than the measurement's own
noise. Then mixtures of its two ends are measured, which costs generation and scoring only; and where those leave more
than the noise to be had, branches are trained (C-MORL, stage 2), as many as the budget allows.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.blends import blend_between, measure_blend
from moalign.branches import Branch, Branching, branch_of
from moalign.claims import claim
from moalign.errors import RunError
from moalign.files import create_once, read_json, write_json
from moalign.frontiers import (
    AddStatus,
    Gap,
    ParetoPoint,
    expected_between,
    expected_gain,
    gain_noise,
    gaps,
    hypervolume,
    select,
)
from moalign.gains import redrawn
from moalign.measuring import open_evaluator
from moalign.methods import METHODS
from moalign.preparation import prepare
from moalign.progress import Reporter
from moalign.runs import Run

_SHARES = (0.5, 0.25, 0.75)  # of the second end, in the order in which blends are measured


@dataclass
class Found:
    """A gap between two adapters, and what became of it; gains are in hypervolume."""

    between: tuple[str, str]
    size: float  # in ranges of the objectives
    gain_expected: float
    noise: float  # of such a gain, over prompts
    left: float  # of what was expected, once blends were measured
    covered_by_blend: bool = False
    gain_measured: float = 0.0
    trained: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As `moalign fill --json` prints it."""
        return {
            "between": list(self.between),
            "size": self.size,
            "covered_by_blend": self.covered_by_blend,
            "gain_expected": self.gain_expected,
            "gain_measured": self.gain_measured,
            "noise": self.noise,
            "trained": self.trained,
        }


def run_fill(run: Run, budget: int, reporter: Reporter | None = None) -> dict[str, Any]:
    """Fill the gaps of a run with at most `budget` branches; what was found, and what it gained.

    {gaps: [{between, size, covered_by_blend, gain_expected, gain_measured, noise, trained}], hypervolume_before,
    hypervolume_after, adapters_trained, adapters_kept}. Ends when no gap is expected to gain more than its noise, or
    the budget is spent; a call that was killed is finished by the next. Blends and branches that widen the front
    become points of the run. Raises RunError before the sweep has two adapters, while another process fills the run,
    and for a method whose adapters are not policies of their own.
    """
    if METHODS[run.config.method].adapters == "rounds":
        raise RunError(
            f"{run.folder} was trained by {run.config.method!r}, whose one adapter follows every direction: there is "
            "nothing to fill; ask for more directions in 'preferences'"
        )
    front = run.front()
    trained = [point for point in front if point.row is None]
    if len(trained) < 2:
        raise RunError(f"{run.folder} has {len(trained)} trained adapters; expected two or more, to look between them")
    reporter = reporter or Reporter(quiet=True)
    with claim(run.folder / "claims", "fill") as mine, reporter.running():
        if not mine:
            raise RunError(f"another process is filling {run.folder}; wait for it, or stop it first")
        return _Filling(run, budget, reporter).fill()


class _Filling:
    """One call."""

    def __init__(self, run: Run, budget: int, reporter: Reporter):
        self.run, self.budget, self.reporter, self.settings = run, budget, reporter, run.config.fill
        self.folder = run.folder / "fill"
        self.prepared = prepare(run, reporter.notice)
        self.evaluator = open_evaluator(self.prepared, reporter)
        self.found: dict[tuple[str, str], Found] = {}
        self.spent = 0
        self.low, self.high = _ranges(run, self.folder / "ranges.json")

    def fill(self) -> dict[str, Any]:
        """Rounds of looking, blending and training."""
        before, known = self.run.front().hypervolume(), set(self.run.store.keys())
        for folder in self._unfinished():
            self._train(folder)
        while True:
            self._look()
            chosen = self._choose(self.budget - self.spent)
            if not chosen:
                break
            folder = self.folder / f"round-{len(self._rounds())}"
            create_once(folder / "round.json", {"branches": chosen})
            self._train(folder)
        return {
            "gaps": [gap.as_dict() for gap in sorted(self.found.values(), key=lambda gap: -gap.gain_expected)],
            "hypervolume_before": before,
            "hypervolume_after": self.run.front().hypervolume(),
            "adapters_trained": self.spent,
            "adapters_kept": sorted(set(self.run.store.keys()) - known),
        }

    # Looking

    def _look(self) -> None:
        """Measure blends in every gap that promises more than the noise and was not looked at yet."""
        adapters, blends = self._adapters(), self._blends()
        keys = [(self.run, point.adapter) for point in (*adapters, *blends)]
        drawn = redrawn(keys, self.run.objectives, self.run.config.seed)
        found = [self._found(gap, adapters, blends, drawn) for gap in gaps(self._values(adapters), self.low, self.high)]
        fresh = [record for record in found if record is not None]
        for number, record in enumerate(sorted(fresh, key=lambda record: -record.gain_expected)):
            self.reporter.bar("blending into gaps", number + 1, len(fresh))
            start = self.run.front().hypervolume()
            for share in _SHARES:
                self._blend(record, share)
                if record.left <= record.noise:
                    break
            record.covered_by_blend = record.left <= record.noise
            record.gain_measured = self.run.front().hypervolume() - start
            self.found[record.between] = record

    def _found(
        self,
        gap: Gap,
        adapters: Sequence[ParetoPoint],
        blends: Sequence[ParetoPoint],
        drawn: Float[np.ndarray, "b n m"],
    ) -> Found | None:
        """A gap that is new and worth looking at; None for others."""
        between = (adapters[gap.between[0]].adapter, adapters[gap.between[1]].adapter)
        if between in self.found:
            return None
        expected = self._left(gap.between)
        values, weights = self._values(adapters), self._weights(adapters)
        point = expected_between(values, weights, gap.between)
        reference = self.run.front().reference_point
        noise = gain_noise(point, self._values([*adapters, *blends]), drawn, gap.between, reference)
        return Found(between, gap.size, expected, noise, expected) if expected > noise else None

    def _left(self, pair: tuple[int, int]) -> float:
        """What an adapter between two others is expected to gain beside all blends that were measured."""
        adapters = self._adapters()
        values, weights, reference = self._values(adapters), self._weights(adapters), self.run.front().reference_point
        return expected_gain(values, weights, pair, reference, self._values(self._blends()))

    def _blend(self, record: Found, share: float) -> None:
        """Measure a mixture of a gap's ends; one that widens the front becomes a point."""
        adapters = self._adapters()
        a, b = (next(i for i, each in enumerate(adapters) if each.adapter == end) for end in record.between)
        point = measure_blend(self.run, self.evaluator, blend_between(adapters[a], adapters[b], share))
        if not self.run.has_point(point.adapter) and self.run.front().add(point) is not AddStatus.DOMINATED:
            self.run.add_point(point)
        record.left = self._left((a, b))

    def _adapters(self) -> list[ParetoPoint]:
        return [point for point in self.run.front() if point.row is None]

    def _blends(self) -> list[ParetoPoint]:
        return [point for point in self.run.front() if point.row is not None]

    def _values(self, points: Sequence[ParetoPoint]) -> Float[np.ndarray, "n m"]:
        names = self.run.objectives
        return np.array([[point.values[name] for name in names] for point in points]).reshape(-1, len(names))

    def _weights(self, points: Sequence[ParetoPoint]) -> Float[np.ndarray, "n m"]:
        return np.array([point.preference.vector(self.run.objectives) for point in points])

    # Training

    def _choose(self, left: int) -> list[dict[str, Any]]:
        """The branches of the next round: of the loneliest ends of open gaps, those into the gaps first.

        One branch that is to end in the middle of a gap is enough for it; else every end has one for each objective.
        """
        open_gaps = [gap for gap in self.found.values() if not gap.covered_by_blend and not gap.trained]
        adapters = self._adapters()
        by_key = {point.adapter: point for point in adapters}
        open_gaps = [gap for gap in open_gaps if all(end in by_key for end in gap.between)]
        values = self._values(adapters)
        before = {
            branch["parent"] for folder in self._rounds() for branch in read_json(folder / "round.json")["branches"]
        }
        seen = self._values([by_key[key] for key in before if key in by_key])
        lonely = [adapters[i].adapter for i in select(values, len(adapters), seen)]
        ends = [key for key in lonely if any(key in gap.between for gap in open_gaps)][: self.settings.select]
        wanted = []
        for key in ends:
            for name in self.run.objectives:
                own = [gap for gap in open_gaps if key in gap.between]
                into = [gap for gap in own if by_key[_other(gap, key)].values[name] > by_key[key].values[name]]
                gap = max(into or own, key=lambda gap: gap.left)
                branch = {"parent": key, "objective": name, "gap": list(gap.between)}
                wanted.append((gap.left if into else 0.0, branch))
        ordered = sorted(wanted, key=lambda each: -each[0])
        if self.settings.to_the_middle:
            first = {tuple(branch["gap"]): branch for gain, branch in reversed(ordered) if gain > 0}
            ordered = [each for each in ordered if first.get(tuple(each[1]["gap"])) is each[1]]
        return [branch for _, branch in ordered][: max(left, 0)]

    def _rounds(self) -> list[Path]:
        # Those that are written: a kill may leave a folder with nothing in it, which the next round then takes.
        found = (path.parent for path in self.folder.glob("round-*/round.json"))
        return sorted(found, key=lambda path: int(path.name.partition("-")[2]))

    def _unfinished(self) -> list[Path]:
        return [folder for folder in self._rounds() if not (folder / "done.json").is_file()]

    def _train(self, folder: Path) -> None:
        """Train the branches of a round, and say what each gap gained by them."""
        points = {point.adapter: point for point in self.run.front()}
        asked = read_json(folder / "round.json")["branches"]
        branches = [self._branch(points, one) for one in asked]
        checkpoint = self.run.folder / "checkpoints" / f"fill-{folder.name}.safetensors"
        Branching(self.prepared, self.evaluator, self.reporter, folder, checkpoint).train(branches)
        checkpoint.unlink(missing_ok=True)
        shutil.rmtree(checkpoint.with_suffix(""), ignore_errors=True)
        self.spent += len(branches)
        self._credit(asked, branches, list(points.values()))
        write_json(folder / "done.json", {"branches": [branch.key for branch in branches]})

    def _branch(self, points: Mapping[str, ParetoPoint], asked: Mapping[str, Any]) -> Branch:
        parent = asked["parent"]
        other = next(end for end in asked["gap"] if end != parent)
        into = points[other] if self.settings.to_the_middle else None
        return branch_of(points[parent], asked["objective"], self.low, self.high, self.settings.retain, into)

    def _credit(self, asked: Sequence[dict[str, Any]], branches: Sequence[Branch], before: list[ParetoPoint]) -> None:
        reference = self.run.front().reference_point
        every = tuple(branch.key for branch in branches)
        before = [point for point in before if not point.adapter.startswith(every)]  # else of this round, before a kill
        start = hypervolume(self._values(before), reference)
        for between in dict.fromkeys(tuple(one["gap"]) for one in asked):
            keys = tuple(b.key for one, b in zip(asked, branches, strict=True) if tuple(one["gap"]) == between)
            mine = [point for point in self.run.front() if point.adapter.startswith(keys)]
            gained = hypervolume(self._values([*before, *mine]), reference) - start
            record = self.found.setdefault(
                (between[0], between[1]), Found((between[0], between[1]), 0.0, 0.0, 0.0, 0.0)
            )
            record.trained, record.gain_measured = True, record.gain_measured + gained


def _other(gap: Found, key: str) -> str:
    return gap.between[1] if gap.between[0] == key else gap.between[0]


def _ranges(run: Run, path: Path) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The lowest and the highest value of each objective when the run was first filled: the unit of sizes, for good."""
    if not path.is_file():
        base = run.base_point()
        points = [*run.front(), *([base] if base else [])]
        values = np.array([[point.values[name] for name in run.objectives] for point in points])
        create_once(path, {"lowest": values.min(0).tolist(), "highest": values.max(0).tolist()})
    found = read_json(path)
    return np.array(found["lowest"]), np.array(found["highest"])
