"""What an explorer is, and the book that each of them keeps of what it asked for and was told."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from moalign.errors import ConfigError, DataError, PreferenceError
from moalign.frontiers.simplex import corners

SAME = 1e-6  # preferences that are nearer in every weight than this count as one: training cannot tell them apart


@runtime_checkable  # the tests check annotations at run time
class Explorer(Protocol):
    """Chooses at which preferences to train next, from what the ones before attained.

    An explorer has no state but what it was told and what it asked for since: made anew with the same settings and
    told the same points in the same order, it asks the same. `moalign.testing.check_explorer` asserts what is relied
    on.
    """

    def ask(self, count: int) -> Float[np.ndarray, "q m"]:
        """At most `count` new preferences, best first: weights >= 0 of sum 1, never one asked for or told before.

        None (0 rows) where nothing is worth asking before more is told; with everything told, that is the end.
        """
        ...

    def tell(
        self,
        preferences: Float[np.ndarray, "n m"],
        values: Float[np.ndarray, "n m"],
        errors: Float[np.ndarray, "n m"],
    ) -> None:
        """What the preferences attained and its standard errors, in the objectives' units; NaN where not known.

        They may be preferences that were never asked for. One that is told again was measured again: the new values
        replace the old ones.
        """
        ...


class Book:
    """The preferences told, in the order in which each was first told, and those asked for and not yet told.

    Args:
        m: the number of objectives.
        points: how many preferences there may be in all, asked for or told.

    An infinite value or error is taken as not known. Raises ConfigError below one objective or one point.

    >>> book = Book(2, points=3)
    >>> book.issue(np.array([[1.0, 0.0], [0.5, 0.5]]), count=5).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    >>> book.tell(np.array([[1.0, 0.0]]), np.array([[3.0, 1.0]]), np.zeros((1, 2)))
    >>> book.measured.tolist(), book.asked.tolist(), book.left
    ([True], [[0.5, 0.5]], 1)
    """

    def __init__(self, m: int, points: int) -> None:
        if m < 1 or points < 1:
            raise ConfigError(f"an explorer of {m} objectives and {points} points; expected at least 1 of each")
        self.points = points
        self.preferences: Float[np.ndarray, "n m"] = np.zeros((0, m))
        self.values: Float[np.ndarray, "n m"] = np.zeros((0, m))
        self.errors: Float[np.ndarray, "n m"] = np.zeros((0, m))
        self.asked: Float[np.ndarray, "q m"] = np.zeros((0, m))

    @property
    def m(self) -> int:
        """The number of objectives."""
        return self.preferences.shape[1]

    @property
    def known(self) -> Float[np.ndarray, "n m"]:
        """The preferences told, then those asked for and not yet told."""
        return np.vstack([self.preferences, self.asked])

    @property
    def left(self) -> int:
        """How many preferences may still be asked for."""
        return max(self.points - len(self.known), 0)

    @property
    def measured(self) -> Bool[np.ndarray, " n"]:
        """Which of the preferences told have a value in every objective."""
        return np.logical_not(np.isnan(self.values).any(axis=1))

    @property
    def unmeasured(self) -> Float[np.ndarray, "q m"]:
        """The preferences that exist and whose values are not known: told with a NaN, or not yet told."""
        return np.vstack([self.preferences[~self.measured], self.asked])

    def fresh(self, rows: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, " n"]:
        """Which rows are neither asked for nor told."""
        return np.logical_not(_same(rows, self.known).any(axis=1))

    def issue(self, rows: Float[np.ndarray, "n m"], count: int) -> Float[np.ndarray, "q m"]:
        """The first `count` of the rows that are new, fewer where fewer are left; from now on they are asked for."""
        issued = np.zeros((0, self.m))
        limit = min(count, self.left)
        for row in rows[self.fresh(rows)]:
            if len(issued) < limit and not _same(row[None], issued).any():
                issued = np.vstack([issued, row])
        self.asked = np.vstack([self.asked, issued])
        return issued

    def tell(
        self,
        preferences: Float[np.ndarray, "n m"],
        values: Float[np.ndarray, "n m"],
        errors: Float[np.ndarray, "n m"],
    ) -> None:
        """Write down what was measured; see `Explorer.tell`.

        Raises DataError unless there is one row of values and of errors for each preference, and PreferenceError for
        a row that is no preference.
        """
        shape = (len(preferences), self.m)
        if not preferences.shape == values.shape == errors.shape == shape:
            raise DataError(
                f"told preferences, values and errors of shapes {preferences.shape}, {values.shape}, {errors.shape}; "
                f"expected {shape} for each: {self.m} objectives"
            )
        for row, value, error in zip(preferences, values, errors, strict=True):
            if not ((row >= -SAME).all() and abs(row.sum() - 1) <= SAME):
                raise PreferenceError(f"told of the preference {row.tolist()}; expected weights >= 0 that sum to 1")
            self._write(row, np.where(np.isfinite(value), value, np.nan), np.where(np.isfinite(error), error, np.nan))

    def _write(
        self, row: Float[np.ndarray, " m"], value: Float[np.ndarray, " m"], error: Float[np.ndarray, " m"]
    ) -> None:
        self.asked = self.asked[~_same(self.asked, row[None])[:, 0]]
        before = np.flatnonzero(_same(self.preferences, row[None])[:, 0])
        if len(before) == 0:
            self.preferences = np.vstack([self.preferences, row])
            self.values, self.errors = np.vstack([self.values, value]), np.vstack([self.errors, error])
        else:  # a copy, because what was handed out must not change
            self.values, self.errors = self.values.copy(), self.errors.copy()
            self.values[before[0]], self.errors[before[0]] = value, error


def opening(m: int) -> Float[np.ndarray, "n m"]:
    """Where an explorer that learns from values begins: the corners, and the centre.

    >>> opening(2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """
    return np.vstack([corners(m), np.full(m, 1 / m)])


def even(rows: Float[np.ndarray, "n m"], beside: Float[np.ndarray, "k m"], count: int) -> Float[np.ndarray, "q m"]:
    """At most `count` of the rows, each the one furthest from `beside` and the rows before it; a tie to the first.

    Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985). Every beginning of the answer is
    well spread. Without `beside` the first row comes first.

    >>> even(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), np.zeros((0, 2)), 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    gaps = ((rows[:, None] - beside[None]) ** 2).sum(axis=2).min(axis=1, initial=np.inf)
    order: list[int] = []
    for _ in range(min(count, len(rows))):
        order.append(int(gaps.round(12).argmax()))  # rounded: among equal gaps rounding errors must not choose
        gaps = np.minimum(gaps, ((rows - rows[order[-1]]) ** 2).sum(axis=1))
        gaps[order[-1]] = -1.0  # taken, even where another row is equal to it
    return rows[order]


def _same(rows: Float[np.ndarray, "n m"], others: Float[np.ndarray, "k m"]) -> Bool[np.ndarray, "n k"]:
    return np.abs(rows[:, None] - others[None]).max(axis=2) <= SAME
