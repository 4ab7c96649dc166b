"""Halve the widest gap of the front: a preference between the two neighbours whose values lie furthest apart.

C-MORL (Liu et al., arXiv 2410.02236) extends its front from the policies of largest crowding distance; this is that
notion of a sparse region, turned into the preferences that lie in it.

[Gabriel] Gabriel and Sokal, "A new statistical approach to geographic variation analysis" (1969).
"""

from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from moalign.frontiers.explorers.base import Book, opening
from moalign.frontiers.simplex import NEGLIGIBLE, blend

FINEST = 0.02  # two per cent of weight: past it, a gap in values is a jump that no preference lies in


class Crowding:
    """The corners, the centre, and then always the preference halfway between two neighbours: those furthest apart.

        argmax over neighbours i, j of || (y_i - y_j) / (max y - min y) ||

    where y are attained values, and the range of each objective is over all points told; a flat objective counts 0.
    i and j are neighbours when, on the smallest face of the simplex that holds both, no known preference lies in the
    ball whose diameter they are  [Gabriel]; for m=2 these are the pairs next to each other.

    A preference without values (asked for and not yet told, or told with a NaN) stands where the blend of its
    neighbours would be, so that both its halves count half. Neighbours within 0.02 of each other come last: across a
    jump in the front, halving would never end. A tie goes to the pair further apart in weights, then to the first.

    Args:
        m: the number of objectives.
        points: how many preferences the sweep may train.

    >>> explorer = Crowding(2, points=9)
    >>> explorer.tell(explorer.ask(3), np.array([[9.0, 0.0], [0.0, 9.0], [1.0, 8.0]]), np.zeros((3, 2)))
    >>> explorer.ask(1).tolist()
    [[0.75, 0.25]]
    """

    def __init__(self, m: int, points: int) -> None:
        self._book = Book(m, points)

    def ask(self, count: int) -> Float[np.ndarray, "q m"]:
        """The rest of the opening, then the middles of the widest gaps, one after the other."""
        found = self._book.issue(opening(self._book.m), count)
        while len(found) < count and self._book.left:
            middle = self._book.issue(self._middles(), 1)
            if len(middle) == 0:
                break
            found = np.vstack([found, middle])
        return found

    def tell(
        self,
        preferences: Float[np.ndarray, "n m"],
        values: Float[np.ndarray, "n m"],
        errors: Float[np.ndarray, "n m"],
    ) -> None:
        """Where the points of the front lie; errors are not used."""
        self._book.tell(preferences, values, errors)

    def _middles(self) -> Float[np.ndarray, "n m"]:
        """The preferences halfway between neighbours, the widest gap first."""
        book = self._book
        preferences = np.vstack([book.preferences[book.measured], book.unmeasured])
        values = _filled(book.preferences[book.measured], book.values[book.measured], book.unmeasured)
        pairs = neighbours(preferences)
        one, other = preferences[pairs[:, 0]], preferences[pairs[:, 1]]
        gaps = np.linalg.norm(values[pairs[:, 0]] - values[pairs[:, 1]], axis=1).round(12)
        lengths = np.abs(one - other).max(axis=1).round(12)
        order = np.lexsort((-lengths, -gaps, lengths <= FINEST))
        return ((one + other) / 2)[order]


def neighbours(preferences: Float[np.ndarray, "n m"]) -> Int[np.ndarray, "e 2"]:
    """Pairs i < j of preferences between which no other lies: the Gabriel graph, face by face  [Gabriel].

    i and j are a pair unless some c has |c - i|^2 + |c - j|^2 < |i - j|^2 and no weight that both i and j lack. The
    condition on the face keeps the pairs along an edge of the simplex, whose balls reach inside. Every preference
    has a neighbour if there are two different ones.

    >>> neighbours(np.array([[1.0, 0.0], [0.0, 1.0], [0.75, 0.25]])).tolist()
    [[0, 2], [1, 2]]
    """
    squares = ((preferences[:, None] - preferences[None]) ** 2).sum(axis=2)
    used = preferences > NEGLIGIBLE
    found = []
    for i, j in combinations(range(len(preferences)), 2):
        between = squares[i] + squares[j] < squares[i, j] - NEGLIGIBLE**2
        on_their_face = ~(used & ~used[i] & ~used[j]).any(axis=1)
        if not (between & on_their_face).any():
            found.append((i, j))
    return np.array(found, dtype=int).reshape(-1, 2)


def _filled(
    told: Float[np.ndarray, "n m"], values: Float[np.ndarray, "n m"], others: Float[np.ndarray, "q m"]
) -> Float[np.ndarray, "k m"]:
    """The values of the measured preferences in units of their range, then what the others are taken to have.

    While nothing is measured, every preference is taken to get what it asks for.
    """
    if len(told) == 0:
        return others
    widths = np.ptp(values, axis=0)
    scaled = (values - values.min(axis=0)) / np.where(widths > 0, widths, 1.0)
    return np.vstack([scaled, *(blend(told, other)[None] @ scaled for other in others)])
