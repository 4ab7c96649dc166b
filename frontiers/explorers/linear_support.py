"""Optimistic linear support: the preference at which the front could still gain most.

[OLS] Roijers, Whiteson and Oliehoek, "Computing convex coverage sets for faster multi-objective coordination", JAIR 52
      (2015): optimistic linear support, by Cheng's theorem that the gain is largest at a corner weight.
"""

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog
from scipy.sparse import identity, kron
from scipy.spatial import HalfspaceIntersection

from moalign.frontiers.explorers.base import Book
from moalign.frontiers.simplex import corners

EXACT = 1e-6  # of the range of the values: what a linear program by floating point can be trusted with


class LinearSupport:
    """The corners, and then the corner weights of the front, largest possible gain first; ends when none is left.

        V(w) = max_k w.y_k                                             what is attained
        U(w) = max over y of w.y  subject to  w_k.y <= V(w_k), all k   what could be: no policy beats the told ones
                                                                       at the very weights they were trained for
        gain(w) = U(w) - V(w), at the weights w where V has a kink     [OLS]

    With a trainer that is exact, where w.y is what it maximises, every answer is a new point of the convex coverage
    set or proof that there is none at that weight, and the end is the whole set. Values are in the units in which
    the trainer sums them. Measured ones contradict each other a little: V stands for what was attained at w_k too,
    so that the program always has a solution, and a gain must be more than the standard error of V(w), which is
    sum_i w_i error_i of the point that attains it (whatever the correlation of the objectives); an unknown error is 0.
    A point with a NaN says nothing, and an objective whose corner has no value is bounded by the best one told.

    Unlike the paper's, the gain is absolute, since values may be negative. Training that is regularised is not exact: a
    corner's policy may beat the one trained for w at w itself, and the end comes early, the earlier the larger beta is.

    Args:
        m: the number of objectives.
        points: how many preferences the sweep may train.

    >>> explorer = LinearSupport(2, points=9)
    >>> explorer.tell(explorer.ask(9), np.array([[4.0, 0.0], [0.0, 2.0]]), np.zeros((2, 2)))
    >>> explorer.ask(9).round(6).tolist()  # the two are equally good there
    [[0.333333, 0.666667]]
    """

    def __init__(self, m: int, points: int) -> None:
        self._book = Book(m, points)

    def ask(self, count: int) -> Float[np.ndarray, "q m"]:
        """The rest of the corners, then corner weights with something to gain; 0 rows where there is none."""
        found = self._book.issue(corners(self._book.m), count)
        if len(found) >= count or not self._book.measured.any():
            return found
        return np.vstack([found, self._book.issue(self._promising(), count - len(found))])

    def tell(
        self,
        preferences: Float[np.ndarray, "n m"],
        values: Float[np.ndarray, "n m"],
        errors: Float[np.ndarray, "n m"],
    ) -> None:
        """What is the best there is at each of the preferences, with its standard errors."""
        self._book.tell(preferences, values, errors)

    def _promising(self) -> Float[np.ndarray, "n m"]:
        """The corner weights whose gain is above the noise, the largest first."""
        book = self._book
        values, errors = book.values[book.measured], np.nan_to_num(book.errors[book.measured])
        # Where the origin and the unit lie changes no gain, but the solvers' tolerances are absolute.
        unit = float(np.ptp(values, axis=0).max()) or 1.0
        values, errors = (values - values.mean(axis=0)) / unit, errors / unit
        candidates = corner_weights(values)
        candidates = candidates[book.fresh(candidates)]
        if len(candidates) == 0:
            return candidates
        attained = candidates @ values.T
        noise = (candidates * errors[attained.argmax(axis=1)]).sum(axis=1)
        gains = optimistic(book.preferences[book.measured], values, candidates) - attained.max(axis=1)
        worth = gains > np.maximum(noise, EXACT)
        return candidates[worth][np.argsort(-gains[worth].round(9), kind="stable")]


def corner_weights(values: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "q m"]:
    """The weights where max_k w.y_k has a kink, and the corners of the simplex: the vertices of its upper side.

    The vertices of { (w, v): v >= w.y_k for all k, w >= 0, sum w = 1 }, by Qhull. In descending lexicographic order.

    >>> corner_weights(np.array([[4.0, 0.0], [0.0, 4.0], [3.0, 3.0]])).round(6).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    m = values.shape[1]
    if m == 1:
        return corners(1)
    rows = np.unique(values.round(9), axis=0)  # two planes that only rounding tells apart would meet anywhere
    highest = float(np.abs(rows).max()) + 1.0
    free = np.eye(m)[:, :-1] - np.eye(m)[:, -1:] @ np.ones((1, m - 1))  # w = last corner + free @ (w_1 .. w_m-1)
    planes = np.hstack([rows @ free, np.full((len(rows), 1), -1.0), rows[:, -1:]])
    sides = np.hstack([-free, np.zeros((m, 1)), -np.eye(m)[:, -1:]])
    lid = np.append(np.zeros(m - 1), [1.0, -highest - 1.0])
    inside = np.append(np.full(m - 1, 1 / m), highest)
    found = HalfspaceIntersection(np.vstack([planes, sides, lid]), inside).intersections
    weights = found[found[:, -1] < highest][:, :-1] @ free.T + np.eye(m)[-1]  # those on the lid are no kinks
    weights = np.maximum(weights, 0.0).round(12)
    return np.unique(weights / weights.sum(axis=1, keepdims=True), axis=0)[::-1]


def optimistic(
    preferences: Float[np.ndarray, "n m"], values: Float[np.ndarray, "n m"], weights: Float[np.ndarray, "q m"]
) -> Float[np.ndarray, " q"]:
    """U(w) for each row of weights: the most that w.y can be if no value beats the told ones at their weights.

    The bound at each corner of the simplex, the best value told of an objective, keeps the program bounded.

    >>> two = np.array([[4.0, 0.0], [0.0, 4.0]])
    >>> optimistic(np.eye(2), two, np.array([[0.5, 0.5]])).tolist()
    [4.0]
    """
    rows = np.vstack([preferences, corners(values.shape[1])])
    limits = (rows @ values.T).max(axis=1)
    # All programs in one, as its blocks: a solver takes longer to start than to solve one of them.
    blocks = kron(identity(len(weights)), rows, format="csr")
    solution = linprog(-weights.ravel(), A_ub=blocks, b_ub=np.tile(limits, len(weights)), bounds=(None, None))
    return (solution.x.reshape(weights.shape) * weights).sum(axis=1)
