"""What the calibrated map predicts all over the triangle of three objectives' weights, and its bands."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import sqrt

import numpy as np
from jaxtyping import Float

from moalign.dashboards.wording import number, short, span_decimals
from moalign.errors import PreferenceError, unknown
from moalign.frontiers.calibration import Calibration
from moalign.frontiers.mixtures import lattices
from moalign.frontiers.simplex import lattice

DIVISIONS = 20  # of each side of the triangle: steps of 5 %
BANDS = 5
_CANDIDATES = 130  # mixtures of each set of neighbours: steps of 1/128 between two, of 1/14 between three

Place = tuple[float, float]


@dataclass(frozen=True)
class Shade:
    """Something that is predicted for every weight: `title` says what, `values` has one for each of `triangle()`."""

    title: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Shaded:
    """The part of the triangle where the value lies from `low` to `high`, which are numbers as shown, as polygons."""

    low: str
    high: str
    polygons: tuple[tuple[Place, ...], ...]


@cache
def triangle() -> tuple[tuple[float, float, float], ...]:
    """The weights that a shade has values for: a lattice with DIVISIONS steps to a side."""
    return tuple(tuple(row) for row in lattice(3, DIVISIONS).tolist())


def place(weights: Sequence[float]) -> Place:
    """Where three weights lie: all of the first at the top, of the second at the left, of the third at the right.

    >>> place((0.0, 1.0, 0.0)), place((0.0, 0.5, 0.5))
    ((0.0, 0.0), (0.5, 0.0))
    """
    return weights[2] + weights[0] / 2, weights[0] * sqrt(3) / 2


def map_shade(calibration: Calibration, objectives: Sequence[str], objective: str | None = None) -> Shade:
    """What the best mixture of neighbours for each weight is predicted to attain of an objective; of w.V for None.

    The mixture is that of `Calibration.row_for_preference`, taken from a lattice on each set of neighbours: to a
    hundredth of the way between two adapters. Raises PreferenceError for an objective that there is not.
    """
    if objective is not None and objective not in objectives:
        raise PreferenceError(unknown("objective", objective, objectives))
    attained = _attainable(calibration)
    weights = np.array(triangle())
    utilities = attained @ weights.T
    best = utilities.argmax(axis=0)
    if objective is None:
        return Shade("predicted utility", tuple(utilities.max(axis=0).tolist()))
    return Shade(f"predicted {short(objective)}", tuple(attained[best, list(objectives).index(objective)].tolist()))


def bands(shade: Shade) -> tuple[Shaded, ...]:
    """The triangle cut into BANDS levels, evenly from the lowest value to the highest, linear between the lattice.

    One band where all values are equal; what touches a value that is not finite is left out.
    """
    values = np.array(shade.values)
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return ()
    low, high = float(finite.min()), float(finite.max())
    levels = np.linspace(low, high, BANDS + 1 if high > low else 2).tolist()
    places = span_decimals(levels)
    weights = triangle()
    cells = [[(*place(weights[i]), float(values[i])) for i in cell] for cell in _cells()]
    cells = [cell for cell in cells if all(np.isfinite(corner[2]) for corner in cell)]
    found = []
    for bottom, top in pairwise(levels):
        parts = [_between(cell, bottom, top) for cell in cells if _touches(cell, bottom, top)]
        polygons = tuple(tuple((x, y) for x, y, _ in part) for part in parts if len(part) > 2)
        found.append(Shaded(number(bottom, places), number(top, places), polygons))
    return tuple(found)


def _attainable(calibration: Calibration) -> Float[np.ndarray, "q m"]:
    """What mixtures of neighbours attain."""
    return calibration.attained(np.vstack(lattices(len(calibration.preferences), calibration.pairs, _CANDIDATES)))


@cache
def _cells() -> tuple[tuple[int, int, int], ...]:
    """The small triangles of the lattice, as places in `triangle()`."""
    at = {tuple(round(DIVISIONS * weight) for weight in row): i for i, row in enumerate(triangle())}
    found = []
    for a, b, c in at:
        upward = ((a, b, c), (a - 1, b + 1, c), (a - 1, b, c + 1))
        downward = ((a, b, c), (a - 1, b + 1, c), (a, b + 1, c - 1))
        found += [tuple(at[key] for key in cell) for cell in (upward, downward) if all(key in at for key in cell)]
    return tuple(found)


def _touches(cell: list[tuple[float, float, float]], bottom: float, top: float) -> bool:
    values = [corner[2] for corner in cell]
    return max(values) >= bottom and min(values) <= top


def _between(cell: list[tuple[float, float, float]], bottom: float, top: float) -> list[tuple[float, float, float]]:
    """The part of a cell in which the value, linear in it, lies between two levels."""
    return _above([(x, y, -v) for x, y, v in _above(cell, bottom)], -top)


def _above(polygon: list[tuple[float, float, float]], level: float) -> list[tuple[float, float, float]]:
    """The part of a polygon (x, y, value) in which the value is at least `level`: Sutherland and Hodgman's clipping."""
    kept = []
    for before, corner in zip([*polygon[-1:], *polygon[:-1]], polygon, strict=True):
        if (before[2] >= level) != (corner[2] >= level):
            share = (level - before[2]) / (corner[2] - before[2])
            kept.append(tuple(a + share * (b - a) for a, b in zip(before, corner, strict=True)))
        if corner[2] >= level:
            kept.append(corner)
    return kept
