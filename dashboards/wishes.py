"""At least so much of this: from wanted values to weights, or by how much the front does not reach them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moalign.dashboards.wording import listing, measured, number, short, span_decimals
from moalign.errors import DataError, PreferenceError, unknown
from moalign.frontiers.calibration import Calibration


@dataclass(frozen=True)
class AtLeast:
    """The mixture that comes nearest to what was wanted, and what the calibrated map predicts of it.

    `row` has a weight for each adapter, in the order of the map's columns; `weights` one for each objective: what such
    a mixture asks for. `predicted` and `errors` (standard errors) are in the objectives' units, and so is `lacking`,
    which holds what is missing of each objective that falls short and is empty where `reached`. `note` says it all.
    """

    row: tuple[float, ...]
    weights: dict[str, float]
    predicted: dict[str, float]
    errors: dict[str, float]
    reached: bool
    lacking: dict[str, float]
    note: str


def at_least(calibration: Calibration, objectives: Sequence[str], wanted: Mapping[str, float]) -> AtLeast:
    """Turn "at least so much of these objectives" into a mixture and weights, by `Calibration.row_for_values`.

    `objectives` are the columns of the map's values and of its preferences. Of several mixtures that reach it, the one
    with the most room above what was wanted. NaN wants nothing. Raises PreferenceError, with the near name, for an
    objective that there is not, and DataError if nothing is wanted or something infinite.

    >>> from moalign.frontiers import fit_calibration
    >>> known = fit_calibration(np.eye(2), np.array([[4.0, 0.0], [0.0, 2.0]]), np.full((2, 2), 0.1), np.eye(2))
    >>> found = at_least(known, ["helpful", "brief"], {"helpful": 5.0})
    >>> found.note
    'No mixture reaches helpful 5.00: the most of it is 4.00, which is 1.00 less.'
    """
    for name in wanted:
        if name not in objectives:
            raise PreferenceError(unknown("objective", name, objectives))
    asked = {name: value for name, value in wanted.items() if not math.isnan(value)}
    if not asked:
        raise DataError("nothing is wanted; name at least one objective and how much of it")
    row, reached, lacking = calibration.row_for_values(np.array([asked.get(name, math.nan) for name in objectives]))
    values, errors = calibration.predict(row)
    weights = row @ calibration.preferences
    predicted = dict(zip(objectives, values.tolist(), strict=True))
    deviations = dict(zip(objectives, errors.tolist(), strict=True))
    short_of = {name: amount for name, amount in zip(objectives, lacking.tolist(), strict=True) if amount > 0}
    places = {
        name: span_decimals((0.0, float(spread))) for name, spread in zip(objectives, calibration.spread, strict=True)
    }
    note = _reached(asked, predicted, deviations, places) if reached else _missed(asked, predicted, short_of, places)
    return AtLeast(
        tuple(row.tolist()),
        dict(zip(objectives, (weights / weights.sum()).tolist(), strict=True)),
        predicted,
        deviations,
        reached,
        {} if reached else short_of,
        note,
    )


def _reached(
    asked: Mapping[str, float], predicted: Mapping[str, float], errors: Mapping[str, float], places: Mapping[str, int]
) -> str:
    wish = listing([f"{short(name)} {number(value, places[name])}" for name, value in asked.items()])
    attained = [f"{short(name)} {measured(predicted[name], errors[name], places[name])}" for name in predicted]
    return f"At least {wish} can be had: this mixture is predicted to attain {listing(attained)}."


def _missed(
    asked: Mapping[str, float], predicted: Mapping[str, float], lacking: Mapping[str, float], places: Mapping[str, int]
) -> str:
    wish = listing([f"{short(name)} {number(value, places[name])}" for name, value in asked.items()])
    if len(asked) == 1:
        (name,) = asked
        most, missing = number(predicted[name], places[name]), number(lacking[name], places[name])
        return f"No mixture reaches {wish}: the most of it is {most}, which is {missing} less."
    missing = listing([f"{number(amount, places[name])} of {short(name)}" for name, amount in lacking.items()])
    return f"No mixture reaches {wish} together: the nearest one lacks {missing}."
