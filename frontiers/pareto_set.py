"""A measured adapter is a point; a sweep is a set of them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from moalign.errors import DataError
from moalign.frontiers.crowding import truncate
from moalign.frontiers.dominance import non_dominated
from moalign.frontiers.gaps import Gap, gaps
from moalign.frontiers.hypervolume import hypervolume, hypervolume_contributions
from moalign.frontiers.simplex import blend
from moalign.preference import Preference

_SHOWN = 40  # rows in a notebook
_QUICK = 5  # objectives up to which the exact volume of a large front takes no time that a reader would notice


@dataclass(frozen=True)
class ParetoPoint:
    """One policy, measured: its values by objective, with what is known about their error.

    `adapter` names it: the key of the adapter that it is, or, where `row` is given, of a mixture of adapters with these
    weights (all 0: the base). `direction` holds the components of a direction that its prompts state (DPA). Values,
    standard errors and intervals (low, high) are in the objectives' units; the two divergences in nats per sequence,
    None where they were not measured; `length` is the mean response length in tokens.

    >>> point = ParetoPoint("a1", "modpo", Preference.of({"helpful": 1.0}), {"helpful": 0.5}, {"helpful": 0.1}, {})
    >>> ParetoPoint.from_dict(point.as_dict()) == point
    True
    """

    adapter: str
    method: str
    preference: Preference
    values: dict[str, float]
    standard_errors: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    kl_to_reference: float | None = None
    kl_to_oracle: float | None = None
    length: float | None = None
    row: dict[str, float] | None = None
    direction: dict[str, float] | None = None

    @property
    def mixture(self) -> dict[str, float]:
        """The adapters that it mixes, with their weights: itself alone, unless it has a row.

        >>> ParetoPoint("a1", "modpo", Preference.of({"helpful": 1.0}), {}, {}, {}).mixture
        {'a1': 1.0}
        """
        return {self.adapter: 1.0} if self.row is None else self.row

    def as_dict(self) -> dict[str, Any]:
        """The point in what JSON can hold: NaN and infinity, which it cannot, become None."""
        return {
            "adapter": self.adapter,
            "method": self.method,
            "preference": self.preference.weights,
            "values": {name: _finite(value) for name, value in self.values.items()},
            "standard_errors": {name: _finite(value) for name, value in self.standard_errors.items()},
            "intervals": {name: [_finite(low), _finite(high)] for name, (low, high) in self.intervals.items()},
            "kl_to_reference": _finite(self.kl_to_reference),
            "kl_to_oracle": _finite(self.kl_to_oracle),
            "length": _finite(self.length),
            **({} if self.row is None else {"row": self.row}),
            **({} if self.direction is None else {"direction": self.direction}),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ParetoPoint":
        """Read what `as_dict` wrote; other keys are left alone. Raises DataError if one of its keys is missing."""
        try:
            return cls(
                record["adapter"],
                record["method"],
                # Not Preference.of: normalising what is rounded already can move the twelfth digit.
                Preference(tuple(sorted((name, float(weight)) for name, weight in record["preference"].items()))),
                {name: _number(value) for name, value in record["values"].items()},
                {name: _number(value) for name, value in record["standard_errors"].items()},
                {name: (_number(low), _number(high)) for name, (low, high) in record["intervals"].items()},
                record["kl_to_reference"],
                record["kl_to_oracle"],
                record["length"],
                record.get("row"),
                record.get("direction"),
            )
        except KeyError as missing:
            raise DataError(f"the record of a point lacks {missing}; it has {', '.join(record)}") from missing


class AddStatus(Enum):
    """What a new point did to the front."""

    NEW = "new"  # it is on the front, and pushed nobody off it
    REPLACES = "replaces"  # it is on the front, and at least one point that was there no longer is
    DOMINATED = "dominated"  # the front is as before


@dataclass(eq=False)
class ParetoSet:
    """All measured points, in the order they came, and which of them are on the front.

    Dominated points are kept: they are drawn faint, and say what was tried. The reference point is that of the
    hypervolume, one number per objective, fixed once for a run. Raises DataError if its length is another, or if
    a point cannot be used (see `add`).

    >>> points = ParetoSet(("brief", "helpful"), np.zeros(2))
    >>> one = ParetoPoint("a1", "modpo", Preference.of({"brief": 1.0}), {"brief": 2.0, "helpful": 1.0}, {}, {})
    >>> points.add(one), points.hypervolume()
    (<AddStatus.NEW: 'new'>, 2.0)
    """

    objectives: tuple[str, ...]
    reference_point: Float[np.ndarray, " m"]
    points: list[ParetoPoint] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.reference_point) != len(self.objectives):
            raise DataError(
                f"the reference point has {len(self.reference_point)} numbers; expected {len(self.objectives)}, "
                f"for {', '.join(self.objectives)}"
            )
        for point in self.points:
            self._check(point)
        self.points = list({point.adapter: point for point in self.points}.values())

    def add(self, point: ParetoPoint) -> AddStatus:
        """Take the point in, and say what it did to the front.

        DOMINATED if another adapter's point dominates it or has exactly the same values (that one is on the front,
        as an equal, but adds nothing); REPLACES if it dominates at least one point of another adapter that was on
        the front; NEW otherwise. An adapter measured again replaces its older record, at its place.

        Raises DataError unless the point has one finite value for each objective of the set and no other.
        """
        self._check(point)
        others = [i for i, known in enumerate(self.points) if known.adapter != point.adapter]
        value, values = self._row(point), self.values[others]
        at_least, at_most = (values >= value).all(axis=1), (values <= value).all(axis=1)
        pushed_off = at_most & ~at_least & self.on_front[others]
        if len(others) == len(self.points):
            self.points.append(point)
        else:
            self.points = [point if known.adapter == point.adapter else known for known in self.points]
        if at_least.any():
            return AddStatus.DOMINATED
        return AddStatus.REPLACES if pushed_off.any() else AddStatus.NEW

    @property
    def values(self) -> Float[np.ndarray, "n m"]:
        """One row per point, columns in the order of `objectives`; 0 rows for an empty set."""
        return np.array([self._row(point) for point in self.points]).reshape(-1, len(self.objectives))

    @property
    def on_front(self) -> Bool[np.ndarray, " n"]:
        """True for the points that no other dominates."""
        return non_dominated(self.values)

    @property
    def front(self) -> list[ParetoPoint]:
        """The points that no other dominates, in the order they came."""
        return [point for point, on_front in zip(self.points, self.on_front, strict=True) if on_front]

    def hypervolume(self) -> float:
        """The volume between the reference point and the front; see `moalign.frontiers.hypervolume`."""
        return hypervolume(self.values, self.reference_point)

    def contributions(self) -> Float[np.ndarray, " n"]:
        """The volume that would be lost without each point; see `hypervolume_contributions`."""
        return hypervolume_contributions(self.values, self.reference_point)

    def gaps(self) -> list[Gap]:
        """The gaps between neighbours on the front, the largest first, in ranges of all points; see `gaps`.

        `between` are places in `points`. An empty set has none.
        """
        values = self.values
        return gaps(values, values.min(axis=0), values.max(axis=0)) if len(values) else []

    def crowded(self, keep: int) -> "ParetoSet":
        """The front alone, without its most crowded points if it has more than `keep`; see `truncate`."""
        front = self.front
        stays = truncate(self.values[self.on_front], keep)
        return ParetoSet(self.objectives, self.reference_point, [front[i] for i in stays])

    def best_for(self, preference: Preference) -> ParetoPoint:
        """The point that is best for a user with these weights: argmax over the points of w.J.

        The policy assignment of C-MORL (Liu et al., arXiv 2410.02236), in the objectives' own units; it asks what
        was attained, not what the point was trained for. Ties go to the first. Raises DataError for an empty set and
        PreferenceError if the preference names another objective.
        """
        weights = preference.vector(self.objectives)
        self._some(self.points, preference)
        return self.points[int((self.values @ weights).argmax())]

    def nearest(self, preference: Preference) -> ParetoPoint:
        """The point that was asked for the most similar weights, by Euclidean distance; ties to the first.

        Errors as for `best_for`.
        """
        wanted = preference.vector(self.objectives)
        asked = self._asked(self._some(self.points, preference))
        return self.points[int(((asked - wanted) ** 2).sum(axis=1).argmin())]

    def bracketing(self, preference: Preference) -> list[tuple[ParetoPoint, float]]:
        """The at most m points around a preference, each with its share in the blend that stands for it.

        The shares are those of `blend` over the weights that were asked of the points, and sum to 1: one alone for
        a preference that is some point's, or that lies beyond a corner of all. A point that is itself a mixture stands
        for its `mixture`. Errors as for `best_for`.
        """
        wanted = preference.vector(self.objectives)
        shares = blend(self._asked(self._some(self.points, preference)), wanted)
        return [(self.points[i], float(shares[i])) for i in np.flatnonzero(shares)]

    def _repr_html_(self) -> str:
        """What a notebook shows: a line about the front, and a table of the points, the middle left out of a long one.

        Weights asked, then values with their standard errors, in the objectives' units; names are text, never HTML.
        """
        import pandas as pd  # slow to load, and needed by nobody else here

        on_front = self.on_front
        count = len(self)
        said = f"{count} {'point' if count == 1 else 'points'}, {int(on_front.sum())} on the front"
        if count and len(self.objectives) <= _QUICK:
            said += f"; hypervolume {self.hypervolume():.4g}"
        rows = [
            [
                *(f"{weight:.2f}" for weight in point.preference.vector(self.objectives)),
                *(_measured(point, name) for name in self.objectives),
                "yes" if best else "",
            ]
            for point, best in zip(self.points, on_front, strict=True)
        ]
        head = [*(f"weight of {name}" for name in self.objectives), *self.objectives, "on the front"]
        frame = pd.DataFrame(rows, [point.adapter for point in self.points], head)
        return f"<p>{said}</p>{frame.to_html(max_rows=_SHOWN, show_dimensions=False)}"

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[ParetoPoint]:
        return iter(self.points)

    def _asked(self, points: list[ParetoPoint]) -> Float[np.ndarray, "n m"]:
        return np.array([point.preference.vector(self.objectives) for point in points])

    def _some(self, points: list[ParetoPoint], preference: Preference) -> list[ParetoPoint]:
        if not points:
            raise DataError(f"no point for {preference}: expected at least one measured adapter in the set")
        return points

    def _row(self, point: ParetoPoint) -> Float[np.ndarray, " m"]:
        return np.array([float(point.values[name]) for name in self.objectives])

    def _check(self, point: ParetoPoint) -> None:
        if set(point.values) != set(self.objectives):
            raise DataError(
                f"adapter {point.adapter!r} has values for {', '.join(sorted(point.values)) or 'nothing'}; expected "
                f"{', '.join(sorted(self.objectives))}: evaluate it with the objectives of this run"
            )
        for name, value in point.values.items():
            if not math.isfinite(value):
                raise DataError(
                    f"adapter {point.adapter!r} has value {value} for {name!r}; expected a finite number: "
                    "evaluate it again before it can be placed on a front"
                )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _measured(point: ParetoPoint, name: str) -> str:
    error = point.standard_errors.get(name, math.nan)
    return f"{point.values[name]:.4g}" + (f" ± {error:.2g}" if math.isfinite(error) else "")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
