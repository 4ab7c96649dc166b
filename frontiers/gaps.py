"""Where a front has holes: its pairs of neighbours, and how far they lie apart.

[Toussaint] "The relative neighbourhood graph of a finite planar set" (1980).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from moalign.errors import DataError
from moalign.frontiers.dominance import non_dominated

EQUAL = 1e-9  # on a lattice all sides are alike, but for rounding, which must not tear the net


@dataclass(frozen=True)
class Gap:
    """Two neighbours on a front, by their rows (the smaller first), and their distance in ranges of the objectives.

    >>> Gap((0, 2), 0.5).between
    (0, 2)
    """

    between: tuple[int, int]
    size: float


def neighbours(values: Float[np.ndarray, "n m"]) -> list[tuple[int, int]]:
    """All pairs of points with nothing between them, the smaller row first.

    i and j are neighbours unless some k is nearer to both than they are to each other,
    max(d(i, k), d(k, j)) < d(i, j): the relative neighbourhood graph  [Toussaint]. d is the Euclidean distance after
    each objective is divided by its range among the points; one that is flat counts nothing.

    The graph connects all points. For a front of two objectives it is the order along the front; for more, a net. Of
    equal points the first stands for all. Rows with a NaN have no neighbours. Fewer than two points, no pairs.

    >>> neighbours(np.array([[0.0, 4.0], [4.0, 0.0], [2.0, 3.0]]))
    [(0, 2), (1, 2)]
    """
    known = _first_of_equals(values)
    if not known.any():
        return []
    spans = np.ptp(values[known], axis=0)
    return [gap.between for gap in _edges(values, known, spans)]


def gaps(
    values: Float[np.ndarray, "n m"], lowest: Float[np.ndarray, " m"], highest: Float[np.ndarray, " m"]
) -> list[Gap]:
    """The gaps between neighbours on the front, the largest first.

    size(i, j) = || (y_i - y_j) / (highest - lowest) ||: 1 is the whole range of one objective. The range is given and
    not the front's own, so that sizes stay comparable while the front grows.

    Only points that no other dominates count, and the rows are those of `values`. Neighbours are as in `neighbours`,
    in these units. An objective whose range is 0 counts nothing. Equal points have no gap between them, nor have
    fewer than two. Equal sizes stand in the order of the rows. Raises DataError unless the range is finite, with
    lowest <= highest.

    >>> front = np.array([[0.0, 4.0], [1.0, 3.0], [0.0, 0.0], [4.0, 0.0]])
    >>> [(gap.between, round(gap.size, 3)) for gap in gaps(front, np.zeros(2), np.full(2, 4.0))]
    [((1, 3), 1.061), ((0, 1), 0.354)]
    """
    spans = highest - lowest
    if not (np.isfinite(spans) & (spans >= 0)).all():
        raise DataError(
            f"the objectives range from {lowest.tolist()} to {highest.tolist()}; expected {values.shape[1]} finite "
            "numbers each, the first not above the second"
        )
    found = _edges(values, _first_of_equals(values) & non_dominated(values), spans)
    return sorted((gap for gap in found if gap.size > 0), key=lambda gap: -gap.size)


def _edges(
    values: Float[np.ndarray, "n m"], known: Bool[np.ndarray, " n"], spans: Float[np.ndarray, " m"]
) -> list[Gap]:
    """The relative neighbourhood graph of the known rows, in rising order of the pairs."""
    chosen = np.flatnonzero(known)
    scaled = values[chosen] / np.where(spans > 0, spans, np.inf)
    distances = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    edges = []
    for i in range(len(chosen)):
        for j in range(i + 1, len(chosen)):
            if not (np.maximum(distances[i], distances[j]) < distances[i, j] * (1 - EQUAL)).any():
                edges.append(Gap((int(chosen[i]), int(chosen[j])), float(distances[i, j])))
    return edges


def _first_of_equals(values: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, " n"]:
    """True for rows without a NaN, unless an earlier one is equal."""
    flags = np.zeros(len(values), dtype=bool)
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    flags[known[np.unique(values[known], axis=0, return_index=True)[1]]] = True
    return flags
