"""Which points no other point beats."""

import moocore
import numpy as np
from jaxtyping import Bool, Float


def non_dominated(values: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, " n"]:
    """True for every point that no other point dominates.

    a dominates b when a >= b in every objective and a > b in at least one. The algorithm is moocore's, that of
    Kung, Luccio and Preparata (1975): O(n log n) up to 3 objectives, O(n log^(m-2) n) beyond, and at most
    31 objectives.

    Ties: equal points do not dominate each other, so duplicates of a point on the front are all True. A row
    with a NaN is False and dominates nothing. No points, no flags.

    >>> non_dominated(np.array([[1.0, 1.0], [0.0, 2.0], [0.0, 1.0], [1.0, 1.0]])).tolist()
    [True, True, False, True]
    """
    known = ~np.isnan(values).any(axis=1)
    flags = np.zeros(len(values), dtype=bool)
    if known.any():
        flags[known] = moocore.is_nondominated(values[known], maximise=True, keep_weakly=True)
    return flags
