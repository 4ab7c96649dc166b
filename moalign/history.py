"""What can be said of a run's training: the steps that were logged, the points as they landed, how far the sweep is.

These are records alone. `moalign.following` reads them from a run's folder, and `moalign.standing` looks where each
adapter is.
"""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from moalign.preference import Preference

State = Literal["waiting", "training", "paused", "trained", "measured"]
Vector = tuple[float | None, ...]  # a number for each objective, in the order of the run's; empty where none was logged


@dataclass(frozen=True, eq=False)
class Course:
    """What was logged of each step, a row each, in the order of the steps.

    `numbers` has a matrix by the name of what was logged (loss, kl, length: one column; rewards, weights: one for each
    objective; gram: the upper triangle of the inner products of the objectives' gradients, row by row), NaN where
    nothing finite was. What was never logged is not in it.

    >>> Course(np.array([1]), {"gram": np.array([[4.0, -1.0, 1.0]])}).cosines(0, 1).tolist()
    [-0.5]
    """

    step: Int[np.ndarray, " s"]
    numbers: Mapping[str, Float[np.ndarray, "s _"]]

    def __len__(self) -> int:
        return len(self.step)

    def column(self, name: str, at: int = 0) -> Float[np.ndarray, " s"]:
        """One number of each step; NaN where it was not logged."""
        found = self.numbers.get(name)
        return np.full(len(self), np.nan) if found is None else found[:, at]

    def cosines(self, i: int, j: int) -> Float[np.ndarray, " s"]:
        """cos(g_i, g_j) = G_ij / sqrt(G_ii G_jj), in [-1, 1]: below 0 two objectives pull against each other.

        NaN where no gradients were logged, or one of the two is 0.
        """
        gram = self.numbers.get("gram")
        if gram is None:
            return np.full(len(self), np.nan)
        i, j = min(i, j), max(i, j)
        size = math.isqrt(2 * gram.shape[1])  # m (m + 1) / 2 columns
        inner, one, other = (gram[:, r * size - r * (r - 1) // 2 + c - r] for r, c in ((i, j), (i, i), (j, j)))
        known = (one > 0) & (other > 0)  # a NaN is not
        sides = np.sqrt(np.where(known, one, 1.0)) * np.sqrt(np.where(known, other, 1.0))
        return np.clip(np.where(known, inner, np.nan) / sides, -1.0, 1.0)


class Rows:
    """A course that grows: what is told of a step that is known already replaces it.

    A number takes 8 bytes: a log of hundreds of megabytes has a course of tens.

    >>> rows = Rows()
    >>> for step, kl in ((1, 0.5), (2, 0.75), (2, 1.0)):
    ...     rows.tell(step, {"kl": [kl]})
    >>> rows.course().column("kl").tolist()
    [0.5, 1.0]
    """

    def __init__(self) -> None:
        self._row: dict[int, int] = {}  # by step
        self._kinds: dict[str, tuple[int, array]] = {}  # by name: how many numbers a row has, and all rows
        self._made: Course | None = None

    def tell(self, step: int, numbers: Mapping[str, list[float]]) -> None:
        """What was logged of a step; NaN where a number is not known. Each name has the same number of them always."""
        self._made = None
        row = self._row.setdefault(step, len(self._row))
        for name, values in numbers.items():
            width, rows = self._kinds.setdefault(name, (len(values), array("d")))
            if (missing := row * width - len(rows)) < 0:
                rows[row * width : (row + 1) * width] = array("d", values)
                continue
            if missing:
                rows.extend([math.nan] * missing)
            rows.fromlist(values)

    def course(self) -> Course:
        """The course so far; the same one until something new is told."""
        if self._made is None:
            steps, count = np.array(list(self._row), dtype=int), len(self._row)
            # A sweep that goes on from a checkpoint may fill a gap.
            order = slice(None) if (np.diff(steps) > 0).all() else np.argsort(steps)
            numbers = {}
            for name, (width, rows) in self._kinds.items():
                rows.extend([math.nan] * (count * width - len(rows)))
                values = np.array(rows).reshape(-1, width)
                values[~np.isfinite(values)] = np.nan
                if not np.isnan(values).all():
                    numbers[name] = values[order]
            self._made = Course(steps[order], numbers)
        return self._made


@dataclass(frozen=True, eq=False)
class Trace:
    """The steps of one adapter, or of a group that is trained side by side, each step once, in their order.

    `name` is the adapter's key, or the group's; `adapters` those that it trains, empty where the log does not say;
    `steps` how many there will be, None where it does not say; `latest` the one that was logged last: a sweep that
    goes on from a checkpoint takes some again. The rounds of DPA, one adapter each, are one trace of `unit` "round".
    """

    name: str
    adapters: tuple[str, ...]
    steps: int | None
    latest: int
    course: Course
    unit: str = "step"


@dataclass(frozen=True)
class Landing:
    """A point when it was measured: `volume` is the hypervolume of all points so far, None where it is not known.

    `trained` counts the adapters that all points so far are made of, `steps` the steps taken until then, those that
    train a group side by side counted once. `time` is in seconds since 1970.
    """

    time: float
    adapter: str
    preference: Preference
    values: Vector
    status: str
    volume: float | None
    trained: int
    steps: int
    kl: float | None
    length: float | None


@dataclass(frozen=True, eq=False)
class History:
    """All that was logged; `unreadable` counts whole lines that make no sense, as a full disk leaves them.

    `lines` counts all that were read, the others among them: it grows as something is logged.
    `read` is the share of the log that has been read, below 1 while the reader has more of it before it.
    """

    objectives: tuple[str, ...]
    reference_point: Vector
    traces: tuple[Trace, ...]
    landings: tuple[Landing, ...]
    unreadable: int = 0
    read: float = 1.0
    lines: int = 0

    def trace_of(self, adapter: str) -> Trace | None:
        """The trace of an adapter: its own, else that of its group; None if the log has neither.

        >>> trace = Trace("g", ("a", "b"), 9, 1, Rows().course())
        >>> History(("brief",), (), (trace,), ()).trace_of("b").name
        'g'
        """
        own = [trace for trace in self.traces if trace.name == adapter]
        return next((trace for trace in (*own, *self.traces) if adapter in (trace.name, *trace.adapters)), None)


@dataclass(frozen=True)
class Standing:
    """One adapter of a sweep. `key` is empty until it is known, `stopped` says why it was stopped, if it was.

    `preference` is None where the adapter has none of its own (a round of DPA), and `label` then names it. "paused" is
    one whose worker was killed or stopped: the sweep goes on with it when it is given again. `step` of `steps` are
    those of the log, None where it does not say.
    """

    label: str
    preference: Preference | None
    key: str
    state: State
    step: int | None = None
    steps: int | None = None
    stopped: str = ""


@dataclass(frozen=True)
class Progress:
    """The adapters of a sweep in the order in which they are trained, and how many points there are and will be.

    `unasked` adapters are still to be chosen by the run's explorer; `workers` are at work now.
    """

    adapters: tuple[Standing, ...]
    points: int
    planned_points: int
    unasked: int
    workers: int
