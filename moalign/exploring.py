"""A run as the explorer shows it: read again when its folder has changed, and never half.

A sweep renames whole files into the folder, so that what is there can be read without locks, and the folders' times
say whether something is new. What is dear to make (the plans, the report) is made when it is first asked for, once for
each state of the folder.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from moalign.batches import Completions, Prompt
from moalign.blends import read_blends
from moalign.dashboards import Report
from moalign.dashboards.front import front_info
from moalign.dashboards.marks import FrontInfo
from moalign.dashboards.records import BASE, Band, Blend, Sample
from moalign.errors import DataError, RunError, UserError
from moalign.frontiers import Calibration, ParetoPoint, ParetoSet
from moalign.mapping import calibrated
from moalign.objectives import Objective, ObjectiveSet, build_objective
from moalign.preference import Preference
from moalign.report import front_band, run_report
from moalign.runs import Run
from moalign.serving.plan import Planner
from moalign.serving.usable import Records, usable_front
from moalign.summary import oracle_values

# Renaming a file into a folder changes the folder's time; writing into a file changes its own.
_WATCHED = (".", "config.yaml", "reference.json", "points", "blends", "samples")
FITTED = 80  # points: the fit grows with the fourth power of their number
_TRIES = 5  # while a folder changes under the reader

State = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """A run at one instant. `left_out` says, a line each, which records could not be shown, and why."""

    run: Run
    state: State
    front: ParetoSet
    base: ParetoPoint | None
    blends: tuple[Blend, ...]
    left_out: tuple[str, ...]

    @property
    def token(self) -> str:
        """The state in a word: another word, another state."""
        return "-".join(map(str, self.state))

    @cached_property
    def points(self) -> dict[str, ParetoPoint]:
        """The points by the names of their adapters."""
        return {point.adapter: point for point in self.front}

    @cached_property
    def on_front(self) -> list[ParetoPoint]:
        """The points that no other dominates."""
        return self.front.front

    @cached_property
    def planner(self) -> Planner:
        """From weights to rows. Raises what `Planner.of` raises."""
        return Planner.of(self.run, self.front)

    @cached_property
    def calibration(self) -> Calibration | None:
        """The map from mixtures to values; None with fewer than two adapters, and with more than it can be fitted on.

        Raises what `calibrated` raises.
        """
        return calibrated(self.run, self.front) if 0 < len(self.front) <= FITTED else None

    @cached_property
    def report(self) -> Report:
        """All that the report tells. Raises RunError before the first point."""
        return run_report(self.run)

    @cached_property
    def oracle(self) -> np.ndarray | None:
        """The exact front at the points' own divergences, where the world is known."""
        return oracle_values(self.run, self.front)[0] if len(self.front) else None

    @cached_property
    def band(self) -> Band | None:
        """Where a front of two objectives would lie with other prompts; None where that is not known."""
        return front_band(self.run, self.front)

    @cached_property
    def info(self) -> FrontInfo:
        """What there is to draw of the front."""
        return front_info(self.front, self.base, self.blends, self.oracle, self.band)

    @cached_property
    def alone(self) -> FrontInfo:
        """The same without all that is no measured point."""
        return front_info(self.front)

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Every text behind the points and the base."""
        return tuple(
            Sample(key, prompt_text(row["prompt"]), row["response"], row["scores"])
            for key in (BASE, *self.points)
            for row in self.run.samples(key)
        )


class Watch:
    """Reads a run for any number of pages: `now` is the run as it is, read at most once for each state."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._seen: Seen | None = None
        self._records: Records = {}

    def now(self) -> Seen:
        """The run as it is on disk. Raises RunError when it is gone, and what reading its settings raises."""
        with self._lock:
            for _ in range(_TRIES):
                before = self.state()
                if self._seen is None or self._seen.state != before:
                    try:
                        self._seen = self._read(before)
                    except FileNotFoundError:  # a file that was listed a moment ago
                        continue
                return self._seen
        raise RunError(f"the run folder {self.folder} changes too fast to be read; try again in a moment")

    @property
    def gone(self) -> bool:
        """Whether there is no run in the folder any more."""
        return not (self.folder / "config.yaml").is_file()

    def state(self) -> State:
        """When the run last changed. Raises RunError when it is gone."""
        if self.gone:
            raise RunError(f"the run folder {self.folder} is gone: it was deleted or moved while this page was open")
        return tuple(_time(self.folder / name) for name in _WATCHED)

    def siblings(self) -> list[str]:
        """The names of the other runs beside this one."""
        own = self.folder.resolve()
        found = (path.parent for path in own.parent.glob("*/config.yaml"))
        return sorted(folder.name for folder in found if folder != own)

    def sibling(self, name: str) -> "Watch":
        """One of the runs beside this one. Raises RunError for any other name: no path is made of it."""
        if name not in self.siblings():
            raise RunError(f"no run of that name stands beside {self.folder}")
        return Watch(self.folder.resolve().parent / name)

    def _read(self, state: State) -> Seen:
        run = Run.open(self.folder)
        front, left_out = usable_front(run, self._records)
        promoted = {point.adapter for point in front}
        blends = [_blend(record) for record in read_blends(run) if record["adapter"] not in promoted]
        return Seen(run, state, front, run.base_point(), tuple(blends), left_out)


class Scorers:
    """The objectives of a run that score a text by themselves, built when the first text comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._built: list[Objective] | None = None

    def score(self, run: Run, asked: Prompt, texts: Sequence[str]) -> list[dict[str, float]]:
        """The scores of answers to one prompt, by objective; those learned from pairs are left out.

        Raises what building the objectives and scoring raise.
        """
        with self._lock:  # a reward model is no thing to run twice at once
            if self._built is None:
                config = run.config
                self._built = [
                    build_objective(name, {"type": settings.type, **settings.extras}, config.own_folder)
                    for name, settings in config.objectives.items()
                    if settings.type is not None
                ]
            if not self._built:
                return [{} for _ in texts]
            found = ObjectiveSet(self._built).score(Completions([asked] * len(texts), list(texts)))
        return [{each.name: float(one) for each, one in zip(self._built, row, strict=True)} for row in found]


def pathless(error: UserError, *folders: Path) -> str:
    """What went wrong, with runs called by their names: where they lie is nothing for those who look at a page.

    >>> pathless(RunError("/home/ann/runs/mine is gone"), Path("/home/ann/runs/mine"))
    'mine is gone'
    """
    told = str(error)
    for folder in {each for given in folders for each in (given, given.resolve())}:
        told = told.replace(f"{folder.parent}/", "") if folder.parent.name else told
    return told


def prompt_text(prompt: str | list[dict[str, str]]) -> str:
    """What was asked, as a text: the last turn of a conversation.

    >>> prompt_text([{"role": "user", "content": "Hi"}])
    'Hi'
    """
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def wish_of(weights: dict[str, float], names: tuple[str, ...]) -> Preference:
    """The preference of a page's weights. Raises DataError unless they name objectives of the run."""
    if set(weights) != set(names):
        raise DataError("the page's weights are of another run; load the page again")
    return Preference.of(weights)


def _blend(record: dict) -> Blend:
    return Blend(record["row"], Preference.of(record["preference"]), record["values"], record["standard_errors"])


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
