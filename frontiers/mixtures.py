"""The best mixture of neighbouring adapters, for whatever a mixture is wanted for.

Mixtures of neighbours only: what lies between adapters that are far apart is a longer way to extrapolate from what
was measured, and a row of many adapters costs more to serve.

[Bron-Kerbosch] "Algorithm 457: finding all cliques of an undirected graph" (1973).
"""

from collections.abc import Callable, Sequence
from math import comb

import numpy as np
from jaxtyping import Float

from moalign.frontiers.simplex import lattice

CANDIDATES = 500  # for each set of neighbours: steps of 1/500 on an edge, of 1/30 in a triangle
CLIMBS = 3  # sets of neighbours whose hill is climbed; a better one would have had a better row on its lattice
ROUNDS = 30  # each halves the step: 1e-9 of the simplex in the end

Score = Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, " n"]]


def cliques(k: int, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """All sets of adapters that are neighbours of each other and to which no other can be added  [Bron-Kerbosch].

    Every adapter is in at least one: alone, if it has no neighbour. Rising order.

    >>> cliques(4, [(0, 1), (1, 2), (0, 2)])
    [(0, 1, 2), (3,)]
    """
    beside: list[set[int]] = [set() for _ in range(k)]
    for a, b in pairs:
        beside[a].add(b)
        beside[b].add(a)
    found: list[tuple[int, ...]] = []

    def extend(members: list[int], candidates: set[int], done: set[int]) -> None:
        if not candidates and not done:
            found.append(tuple(sorted(members)))
        for one in sorted(candidates):
            extend([*members, one], candidates & beside[one], done & beside[one])
            candidates, done = candidates - {one}, done | {one}

    extend([], set(range(k)), set())
    return sorted(found)


def best_mixture(score: Score, k: int, pairs: Sequence[tuple[int, int]]) -> Float[np.ndarray, " k"]:
    """The row over neighbouring adapters that scores highest: argmax over the cliques' simplexes of score(row).

    A lattice on each clique finds the hills; on the three highest, steps from the best row toward every point of
    that lattice, each round half as long, find the top. For hills wider than the lattice is fine (1/500 on an edge)
    that is the maximum to 1e-6 in the row where the score is smooth. Ties go to the first. `score` takes many rows at
    once; one that it gives NaN is never chosen.

    >>> best_mixture(lambda rows: -((rows[:, 0] - 0.3) ** 2), 2, [(0, 1)]).round(6).tolist()
    [0.3, 0.7]
    """
    spans = lattices(k, pairs)
    heights = [_scores(score, rows).max() for rows in spans]
    highest = np.argsort(-np.array(heights), kind="stable")[:CLIMBS]
    tops = [_climb(score, spans[i]) for i in highest]
    return max(tops, key=lambda top: top[1])[0]


def lattices(k: int, pairs: Sequence[tuple[int, int]], most: int = CANDIDATES) -> list[Float[np.ndarray, "n k"]]:
    """For each of `cliques` the finest lattice over its adapters of at most `most` rows, the others at 0.

    >>> [rows.tolist() for rows in lattices(3, [(0, 1)], 3)]
    [[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]
    """
    found = []
    for members in cliques(k, pairs):
        grid = _grid(len(members), most)
        found.append(np.zeros((len(grid), k)))
        found[-1][:, members] = grid
    return found


def _scores(score: Score, rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    return np.nan_to_num(score(rows), nan=-np.inf)


def _climb(score: Score, rows: Float[np.ndarray, "n k"]) -> tuple[Float[np.ndarray, " k"], float]:
    """The best of the rows, then of rows that go from it toward each of them, ever less far."""
    best, highest, step = rows[0], -np.inf, 1.0
    for _ in range(ROUNDS):
        reached = best + step * (rows - best)
        scores = _scores(score, reached)
        if scores.max() > highest:
            best, highest = reached[scores.argmax()], float(scores.max())
        step /= 2
    return best, highest


def _grid(size: int, most: int) -> Float[np.ndarray, "n s"]:
    divisions = 1
    while size > 1 and comb(divisions + size, size - 1) <= most:
        divisions += 1
    return lattice(size, divisions)
