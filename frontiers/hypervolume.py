"""The volume that a front dominates.

Zitzler and Thiele, "Multiobjective optimization using evolutionary algorithms: a comparative case study" (1998).
"""

import moocore
import numpy as np
from jaxtyping import Float

from moalign.errors import DataError
from moalign.frontiers.dominance import non_dominated


def hypervolume(values: Float[np.ndarray, "n m"], reference_point: Float[np.ndarray, " m"]) -> float:
    """The volume of everything between the reference point and at least one of the points.

    HV(Y, z) = volume of the union over y in Y of the boxes [z_1, max(y_1, z_1)] x ... x [z_m, max(y_m, z_m)],
    in the product of the objectives' units. Exact, by moocore: O(n log n) for 2 and 3 objectives, O(n^2) for 4,
    and O(n^(m-2)) at worst beyond. 100 points on one front take milliseconds up to 6 objectives, 0.1 s with 7
    and 10 s with 9: above 6, count in tens of points.

    A point below the reference in any coordinate is clipped to it, which leaves a box without volume: it
    contributes nothing and subtracts nothing. Dominated points, duplicates and rows with a NaN change nothing.
    No points: 0. Raises DataError if the reference point is not one number per objective.

    >>> hypervolume(np.array([[3.0, 1.0], [1.0, 2.0], [9.0, -1.0]]), np.zeros(2))
    4.0
    """
    if len(reference_point) != values.shape[1] or np.isnan(reference_point).any():
        raise DataError(
            f"the reference point is {reference_point.tolist()}; expected {values.shape[1]} numbers, one per objective"
        )
    known = values[~np.isnan(values).any(axis=1)]
    if len(known) == 0:
        return 0.0
    return float(moocore.hypervolume(known, ref=reference_point, maximise=True))


def hypervolume_contributions(
    values: Float[np.ndarray, "n m"], reference_point: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " n"]:
    """How much of the volume would be lost without each point.

    c_i = HV(Y, z) - HV(Y without y_i, z), in the product of the objectives' units; n + 1 volumes.

    Points that are dominated, that another one equals, that lie below the reference or that have a NaN have 0. A
    dominated point still lowers the contribution of the one before it, for it would take its place. No points, no
    numbers. Raises DataError as `hypervolume` does.

    >>> hypervolume_contributions(np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 1.0]]), np.zeros(2)).tolist()
    [1.0, 1.0, 0.0]
    """
    whole = hypervolume(values, reference_point)
    rest = [hypervolume(np.delete(values, i, axis=0), reference_point) for i in range(len(values))]
    counts = np.isfinite(values).all(axis=1) & non_dominated(values)
    # A difference of two volumes may be -1e-17 or 1e-17 where it is 0.
    return np.where(counts, np.maximum(whole - np.array(rest).reshape(-1), 0.0), 0.0)


def normalised_hypervolume(
    values: Float[np.ndarray, "n m"],
    reference_point: Float[np.ndarray, " m"],
    ideal: Float[np.ndarray, " m"],
) -> float:
    """The share of the box between the reference point and the ideal that the points dominate.

    nHV = HV(Y, z) / prod_k (ideal_k - z_k), without unit. It is 1 when a point reaches the ideal in every
    objective at once, and more if one goes past it: fix the ideal on calibration data, as the reference point.

    Edge cases as for `hypervolume`. Raises DataError if the ideal is not above the reference point in every
    objective, for then there is no box.

    >>> normalised_hypervolume(np.array([[3.0, 1.0], [1.0, 2.0]]), np.zeros(2), np.array([4.0, 2.0]))
    0.5
    """
    sides = ideal - reference_point
    if not (sides > 0).all():
        raise DataError(
            f"the ideal {ideal.tolist()} is not above the reference point {reference_point.tolist()} in every "
            "objective; lower the reference point where the two are equal"
        )
    return hypervolume(values, reference_point) / float(np.prod(sides))
