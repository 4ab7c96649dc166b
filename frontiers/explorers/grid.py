"""Even weights, whatever was attained: the baseline that every other explorer has to beat."""

from functools import cache
from math import comb

import numpy as np
from jaxtyping import Float

from moalign.frontiers.explorers.base import Book, even
from moalign.frontiers.simplex import corners, lattice, riesz


class Grid:
    """As many evenly spread preferences as may be trained, the corners first.

    They are the lattice of that many points where there is one (any number for m=2; 6, 10, 15, ..., 66 for m=3), and
    otherwise that many Riesz points; see `moalign.frontiers.simplex`. Each comes as far as can be from those before
    it, so that a sweep that is stopped has covered the simplex too. Values are ignored.

    Args:
        m: the number of objectives.
        points: how many preferences the sweep may train; below m, the corners are cut to it.
        seed: of the Riesz points.

    >>> Grid(2, points=5).ask(4).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.75, 0.25]]
    """

    def __init__(self, m: int, points: int, seed: int = 0) -> None:
        self._book = Book(m, points)
        self._rows = _even(m, points, seed)

    def ask(self, count: int) -> Float[np.ndarray, "q m"]:
        """The next of the grid; 0 rows at its end."""
        return self._book.issue(self._rows, count)

    def tell(
        self,
        preferences: Float[np.ndarray, "n m"],
        values: Float[np.ndarray, "n m"],
        errors: Float[np.ndarray, "n m"],
    ) -> None:
        """Which preferences are done."""
        self._book.tell(preferences, values, errors)


@cache  # Riesz points take a second, and an explorer is made anew whenever a sweep goes on
def _even(m: int, points: int, seed: int) -> Float[np.ndarray, "n m"]:
    """The preferences of the grid, in the order in which to train them."""
    if points <= m or m == 1:
        return corners(m)[:points]
    divisions = 1
    while comb(divisions + m - 1, m - 1) < points:
        divisions += 1
    exact = comb(divisions + m - 1, m - 1) == points
    rows = lattice(m, divisions) if exact else riesz(m, points, seed)
    return even(rows, np.zeros((0, m)), points)
