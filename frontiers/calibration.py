"""The calibrated map: what a mixture of adapters attains, fitted on measured adapters and blends, and its inverse.

[Scheffe] "Experiments with mixtures" (1958); `moalign.frontiers.scheffe` has the polynomial and its fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.errors import DataError
from moalign.frontiers.gaps import neighbours
from moalign.frontiers.mixtures import best_mixture
from moalign.frontiers.scheffe import Polynomial, fit_polynomial

FINEST = 1e-4  # a standard error below this share of the range cannot be told from none, and would spoil the solve
UNKNOWN = 1e-2  # the standard error, as a share of the range, where none at all is known
ALONE = 1e-9  # a weight this close to 1 is an adapter alone
REACHED = 1e-6  # of the range: as near as the search comes
FAR = 1e6  # ranges: of what is wanted further away than that, rounding would hide what comes nearer


@dataclass(frozen=True, eq=False)
class Calibration:
    """From a mixing row over k adapters to the m values that it attains, in the objectives' units, and back.

    `polynomials` are the maps, one per objective. `rows`, `values`, `errors` and `preferences` are what they were
    fitted on; `pairs` the neighbours whose mixtures the inverse may use. `spread` is the range of each objective over
    the adapters. `error` is the root mean square of what each objective of a blend is missed by when that blend is
    left out of the fit: NaN without blends. Make it with `fit_calibration`.

    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    >>> values = np.array([[4.0, 0.0], [0.0, 4.0], [3.0, 3.0]])
    >>> found = fit_calibration(rows, values, np.zeros((3, 2)), np.eye(2))
    >>> found.predict(np.array([0.75, 0.25]))[0].round(3).tolist()
    [3.75, 1.75]
    """

    polynomials: tuple[Polynomial, ...]
    rows: Float[np.ndarray, "n k"]
    values: Float[np.ndarray, "n m"]
    errors: Float[np.ndarray, "n m"]
    preferences: Float[np.ndarray, "k p"]
    pairs: tuple[tuple[int, int], ...]
    spread: Float[np.ndarray, " m"]
    error: Float[np.ndarray, " m"]

    def predict(self, row: Float[np.ndarray, " k"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """The values that a row attains, and their standard errors: of the measurements, and of unknown curvature.

        Where no blend was measured the second say how much a mixture may bend. Raises DataError unless the row is
        k numbers >= 0 of sum 1.
        """
        _check_rows(row[None], len(self.preferences))
        return self.attained(row[None])[0], np.array([one.errors(row[None])[0] for one in self.polynomials])

    def row_for_preference(
        self, weights: Float[np.ndarray, " m"], scale: Float[np.ndarray, " m"] | None = None
    ) -> Float[np.ndarray, " k"]:
        """The mixture of neighbours that is best for a user with these weights: argmax over rows of w.(V(row) / scale).

        `scale` is the unit of each objective in which the weights are meant; by default the objectives' own. Ties go
        to the first. Raises DataError unless the weights are m finite numbers and the units above 0.

        >>> rows, values = np.eye(2), np.array([[4.0, 0.0], [0.0, 2.0]])
        >>> found = fit_calibration(rows, values, np.zeros((2, 2)), np.eye(2))
        >>> found.row_for_preference(np.array([0.4, 0.6])).tolist()
        [1.0, 0.0]
        >>> found.row_for_preference(np.array([0.4, 0.6]), scale=np.array([4.0, 2.0])).tolist()
        [0.0, 1.0]
        """
        unit = np.ones(len(self.spread)) if scale is None else scale
        if not len(weights) == len(unit) == len(self.spread) or not np.isfinite(weights).all() or not (unit > 0).all():
            raise DataError(
                f"weights {weights.tolist()} in units of {unit.tolist()}; expected {len(self.spread)} finite weights, "
                "and as many units above 0"
            )
        return best_mixture(lambda rows: self.attained(rows) @ (weights / unit), len(self.preferences), self.pairs)

    def row_for_values(
        self, wanted: Float[np.ndarray, " m"]
    ) -> tuple[Float[np.ndarray, " k"], bool, Float[np.ndarray, " m"]]:
        """The mixture of neighbours that attains the wanted values best, whether it does, and what it lacks.

        argmax over rows of min over j of (V_j(row) - wanted_j) / spread_j. NaN wants nothing of an objective. What it
        lacks is max(wanted - V, 0), in the objectives' units, 0 where nothing is wanted. Where the values can be
        reached, the row has the most room above them. Raises DataError unless m numbers are given, at least one
        of them finite and none infinite.

        >>> found = fit_calibration(np.eye(2), np.array([[4.0, 0.0], [0.0, 2.0]]), np.zeros((2, 2)), np.eye(2))
        >>> row, reached, lacking = found.row_for_values(np.array([4.0, 1.0]))
        >>> row.round(3).tolist(), reached, lacking.round(3).tolist()
        ([0.75, 0.25], False, [1.0, 0.5])
        """
        asked = np.isfinite(wanted)
        if len(wanted) != len(self.spread) or not asked.any() or np.isinf(wanted).any():
            raise DataError(
                f"the wanted values are {wanted.tolist()}; expected {len(self.spread)} numbers, NaN where anything "
                "will do, and at least one finite"
            )

        near = brought_near(wanted, self.values, self.spread)

        def least_slack(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
            return ((self.attained(rows) - near) / self.spread)[:, asked].min(axis=1)

        row = best_mixture(least_slack, len(self.preferences), self.pairs)
        lacking = np.nan_to_num(np.maximum(wanted - self.attained(row[None])[0], 0.0))
        return row, bool((lacking <= REACHED * self.spread).all()), lacking

    def as_dict(self) -> dict[str, Any]:
        """What was measured, for JSON; the fit is made again from it. Its `error` is there to be read, None for NaN."""
        return {
            "rows": self.rows.tolist(),
            "values": self.values.tolist(),
            "errors": self.errors.tolist(),
            "preferences": self.preferences.tolist(),
            "pairs": [list(pair) for pair in self.pairs],
            "error": [None if np.isnan(one) else float(one) for one in self.error],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Calibration":
        """Fit what `as_dict` wrote again. Raises DataError if one of its keys is missing."""
        try:
            rows, values, errors, preferences = (
                np.array(record[name], dtype=float) for name in ("rows", "values", "errors", "preferences")
            )
            pairs = [(int(a), int(b)) for a, b in record["pairs"]]
        except KeyError as missing:
            raise DataError(f"the record of a calibration lacks {missing}; it has {', '.join(record)}") from missing
        return fit_calibration(rows, values, errors, preferences, pairs=pairs)

    def attained(self, rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n m"]:
        """The values of many rows at once, which are not checked: quick where few adapters are used in all of them."""
        used = np.flatnonzero(rows.any(axis=0))
        mixed, pairs = rows[:, used], np.ix_(used, used)
        curved = [((mixed @ one.curvatures[pairs]) * mixed).sum(axis=1) / 2 for one in self.polynomials]
        return np.stack([mixed @ one.adapters[used] for one in self.polynomials], axis=1) + np.stack(curved, axis=1)


def fit_calibration(
    rows: Float[np.ndarray, "n k"],
    values: Float[np.ndarray, "n m"],
    errors: Float[np.ndarray, "n m"],
    preferences: Float[np.ndarray, "k p"],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Calibration:
    """Fit the calibrated map to what rows of adapters, alone and blended, were measured to attain.

    V_j(row) = sum_a row_a V_aj + sum_{a<b} row_a row_b c_abj  [Scheffe]; c / 4 is how far the middle of two adapters
    lies above the straight line between them. Each pair's curvature is shrunk toward one that all pairs share, in
    proportion to how far apart the two are: the mean of their squared distance in preferences and in values, each
    over its largest. So would the curvature of a smooth map grow; and two adapters of one preference (a branch
    and what it came from) may still bend between them.

    `preferences` are the weights that each adapter was trained at; `pairs` by default all neighbours in them and all
    neighbours in the values. Rows of `values` with a NaN are left out. An unknown error counts as the median of the
    objective's known ones, or a hundredth of its range; one below a ten-thousandth of the range as that.

    Raises DataError unless every adapter was measured alone, and rows are k numbers >= 0 of sum 1.

    >>> found = fit_calibration(np.eye(2), np.array([[1.0, 0.0], [0.0, 1.0]]), np.full((2, 2), 0.1), np.eye(2))
    >>> found.predict(np.full(2, 0.5))[0].tolist(), found.error.tolist()
    ([0.5, 0.5], [nan, nan])
    """
    _check_rows(rows, len(preferences))
    known = ~np.isnan(values).any(axis=1)
    rows, values, errors = rows[known], values[known], errors[known]
    alone = rows.max(axis=1, initial=0.0) > 1 - ALONE
    adapters = _measured_alone(rows[alone], values[alone])
    noise = _completed(errors, np.ptp(adapters, axis=0))
    spread = np.maximum(np.ptp(adapters, axis=0), noise.max(axis=0))
    apart = (_apart(preferences) + _apart(adapters / spread)) / 2
    polynomials = tuple(
        fit_polynomial(rows, values[:, j], noise[:, j], apart, float(spread[j])) for j in range(len(spread))
    )
    left_out = np.stack([one.left_out[~alone] for one in polynomials], axis=1)
    error = np.sqrt((left_out**2).mean(axis=0)) if len(left_out) else np.full(len(spread), np.nan)
    if pairs is None:
        pairs = sorted({*neighbours(preferences), *neighbours(adapters)})
    return Calibration(polynomials, rows, values, noise, preferences, tuple(pairs), spread, error)


def brought_near(
    wanted: Float[np.ndarray, " m"], values: Float[np.ndarray, "n m"], spread: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """The wanted values, each at most a million ranges from the given ones, so that these can be told apart by it.

    (V - wanted) / spread of 1e20 ranges is the same number for all V. NaN stays NaN.

    >>> brought_near(np.array([1e300, np.nan]), np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([2.0, 1.0])).tolist()
    [2000003.0, nan]
    """
    return np.clip(wanted, values.min(axis=0) - FAR * spread, values.max(axis=0) + FAR * spread)


def _measured_alone(rows: Float[np.ndarray, "n k"], values: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "k m"]:
    """The mean of what each adapter attained alone."""
    which = rows.argmax(axis=1)
    counts = np.bincount(which, minlength=rows.shape[1])
    if (counts == 0).any():
        raise DataError(
            f"adapter {', '.join(map(str, np.flatnonzero(counts == 0)))} of {len(counts)} was not measured alone; "
            "expected a row with weight 1 for each: evaluate it first, or leave it out"
        )
    return np.stack([np.bincount(which, column, len(counts)) / counts for column in values.T], axis=1)


def _completed(errors: Float[np.ndarray, "n m"], span: Float[np.ndarray, " m"]) -> Float[np.ndarray, "n m"]:
    """The errors, with the unknown ones filled in and none that is as good as 0."""
    whole = np.where(span > 0, span, 1.0)
    known = np.isfinite(errors)
    usual = [
        np.median(column[there]) if there.any() else np.nan for column, there in zip(errors.T, known.T, strict=True)
    ]
    filled = np.where(known, errors, np.where(np.isnan(usual), UNKNOWN * whole, usual))
    return np.maximum(filled, FINEST * whole)


def _apart(places: Float[np.ndarray, "k p"]) -> Float[np.ndarray, "k k"]:
    """Squared distances, over the largest."""
    squared = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    return squared / (squared.max(initial=0.0) or 1.0)


def _check_rows(rows: Float[np.ndarray, "n k"], k: int) -> None:
    fine = rows.shape[1] == k and (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, rtol=0, atol=1e-6)
    if not fine:
        raise DataError(
            f"mixing rows of {rows.shape[1]} weights, from {rows.min(initial=1):g}, with sums from "
            f"{rows.sum(axis=1).min(initial=1):g}; expected {k} weights >= 0 of sum 1: one for each adapter"
        )
