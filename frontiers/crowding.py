"""Which points of a front stand alone, and which are in a crowd.

[NSGA-II] Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002).
[C-MORL]  Liu et al., arXiv 2410.02236: the archive is truncated, and the policies to extend are chosen, by it.
"""

import numpy as np
from jaxtyping import Float, Int

from moalign.errors import ConfigError
from moalign.frontiers.dominance import non_dominated


def crowding_distance(values: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """How far apart the two neighbours of each point lie, summed over the objectives in units of their ranges.

    distance(y) = sum over k of (f_k(next) - f_k(previous)) / (f_k(max) - f_k(min)), where next and previous stand
    beside y when the points are sorted by objective k; infinite for the first and the last  [NSGA-II, C-MORL].

    Points equal in one objective stand there in the order of the rows. An objective that is flat adds 0. Of equal
    points the first counts, the others have 0, and so have rows with a NaN: they are the first that can go. One
    distinct point, or two, are all ends: infinite. No points, no distances.

    >>> crowding_distance(np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 2.0], [4.0, 0.0]])).tolist()
    [inf, 1.0, 1.5, inf]
    """
    distances = np.zeros(len(values))
    distinct = _distinct(values)
    chosen = values[distinct]
    if len(chosen) <= 2:
        distances[distinct] = np.inf
        return distances
    total = np.zeros(len(chosen))
    for column in chosen.T:
        span = np.ptp(column)
        if span > 0:
            order = np.argsort(column, kind="stable")
            ordered = column[order]
            total[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
            total[order[[0, -1]]] = np.inf
    distances[distinct] = total
    return distances


def truncate(values: Float[np.ndarray, "n m"], keep: int) -> Int[np.ndarray, " c"]:
    """The rows that stay, in their order, when the most crowded one goes again and again until `keep` are left.

    The distances are computed anew after each that goes. C-MORL drops all at once, which empties a dense stretch
    altogether: there every point has a small distance only because of the others that go with it. Of equal
    distances the later row goes. Rows with a NaN and copies go first; with `keep` >= n all stay. Dominated points
    are not told apart: give the front. Raises ConfigError if `keep` is below 0.

    >>> truncate(np.array([[0.0, 4.0], [1.9, 2.1], [2.0, 2.0], [2.1, 1.9], [4.0, 0.0]]), 3).tolist()
    [0, 1, 4]
    """
    if keep < 0:
        raise ConfigError(f"truncate to {keep} points; expected a number >= 0")
    kept = np.arange(len(values))
    while len(kept) > keep:
        distances = crowding_distance(values[kept])
        unknown = np.isnan(values[kept]).any(axis=1)
        # Unknown rows go before copies, and the last of the least is the later row.
        least = np.flatnonzero(unknown if unknown.any() else distances == distances.min())
        kept = np.delete(kept, least[-1])
    return kept


def select(values: Float[np.ndarray, "n m"], count: int, seen: Float[np.ndarray, "s m"]) -> Int[np.ndarray, " c"]:
    """The at most `count` points of the front around which there is most room, that no earlier round selected.

    The largest crowding distance first (the ends of the front before all others), leaving out rows that stand in
    `seen` with exactly the same values: the novelty of C-MORL, whose archive skips the vectors of its history. What
    is left out is still a neighbour of the others. Of equal distances the earlier row comes first.

    Dominated points, copies of a point and rows with a NaN are never selected. Fewer than `count` when the front
    has no more that are new. Raises ConfigError if `count` is below 0.

    >>> front = np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 2.0], [4.0, 0.0]])
    >>> select(front, 2, seen=front[[0]]).tolist()
    [3, 2]
    """
    if count < 0:
        raise ConfigError(f"select {count} points; expected a number >= 0")
    front = np.flatnonzero(non_dominated(values))
    distances = crowding_distance(values[front])
    known = {tuple(row) for row in seen.tolist()}
    chosen: list[int] = []
    for i in np.argsort(-distances, kind="stable"):
        vector = tuple(values[front[i]].tolist())
        if vector not in known and len(chosen) < count:
            known.add(vector)
            chosen.append(int(front[i]))
    return np.array(chosen, dtype=int)


def _distinct(values: Float[np.ndarray, "n m"]) -> Int[np.ndarray, " d"]:
    """The first of each set of equal rows without a NaN, in their order."""
    first: dict[tuple[float, ...], int] = {}
    for i in np.flatnonzero(~np.isnan(values).any(axis=1)):
        first.setdefault(tuple(values[i].tolist()), int(i))
    return np.array(list(first.values()), dtype=int)
