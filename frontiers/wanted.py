"""At least so much of some objectives, and as much as can be had of the others: as a mixture, and as weights.

[Everett] "Generalized Lagrange Multiplier Method for Solving Problems of Optimum Allocation of Resources" (1963):
          what maximises goal + multipliers . constraints is the best of all that attains as much.
[Kraft]   "A software package for sequential quadratic programming" (1988): scipy's SLSQP.
"""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linprog, minimize

from moalign.frontiers.calibration import REACHED, Calibration, brought_near
from moalign.frontiers.mixtures import lattices

_CANDIDATES = 130  # mixtures of each set of neighbours: steps of 1/128 between two, of 1/14 between three
_HILLS = 3  # sets of neighbours in which the exact place is looked for
_TRIED = 6  # weights whose best mixture is looked for exactly
_NUDGES = (2e-3, 2e-2, 0.2, 2.0, 20.0)  # by how much the multipliers are raised, as a share and in ranges


def row_at_least(
    known: Calibration, wanted: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " k"], bool, Float[np.ndarray, " m"]]:
    """The mixture of neighbours with at least the wanted values and, of these, the most of the rest; whether; the lack.

    argmax over rows of mean over free j of V_j(row) / spread_j, subject to V_j(row) >= wanted_j: free is what nothing
    is wanted of (NaN), or everything where something is wanted of each. A lattice on each set of neighbours finds the
    hills, and on the three highest the exact place is looked for  [Kraft]. Where no row attains it, the row, the answer
    False and what it lacks are those of `Calibration.row_for_values`, which also says what raises DataError.

    >>> from moalign.frontiers.calibration import fit_calibration
    >>> found = fit_calibration(np.eye(2), np.array([[4.0, 0.0], [0.0, 2.0]]), np.zeros((2, 2)), np.eye(2))
    >>> row_at_least(found, np.array([1.0, np.nan]))[0].round(6).tolist()
    [0.25, 0.75]
    """
    nearest, reached, lacking = known.row_for_values(wanted)
    if not reached:
        return nearest, False, lacking
    goal, asked = goal_weights(known.spread, wanted), np.isfinite(wanted)

    def goals(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
        attained = known.attained(rows)
        fine = (attained >= wanted - REACHED * known.spread)[:, asked].all(axis=1)
        return np.where(fine, attained @ goal, -np.inf)

    best = nearest
    spans = lattices(len(known.preferences), known.pairs, _CANDIDATES)
    heights = [goals(rows) for rows in spans]
    for place in np.argsort([-height.max() for height in heights], kind="stable")[:_HILLS]:
        if np.isfinite(heights[place].max()):
            start = spans[place][heights[place].argmax()]
            members = np.flatnonzero(spans[place].any(axis=0))
            rows = np.stack([best, start, _exact(known, wanted, goal, start, members)])
            best = rows[goals(rows).argmax()]
    return best, True, lacking


def weights_at_least(
    known: Calibration, wanted: Float[np.ndarray, " m"], row: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " m"] | None:
    """The weights whose best mixture (`Calibration.row_for_preference`) attains what `row`, of `row_at_least`, does.

    w = goal + lambda, with the multipliers lambda >= 0 of what is wanted: argmax over rows of w.V(row) then attains it
    with nothing to spare wherever the map bends outward  [Everett]. Where it does not, no weights ask for that very
    row, and these ask for the next one that attains as much. They sum to 1; None where none are found that do.

    >>> from moalign.frontiers.calibration import fit_calibration
    >>> rows, errors = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.zeros((3, 2))
    >>> found = fit_calibration(rows, np.array([[4.0, 0.0], [0.0, 4.0], [3.0, 3.0]]), errors, np.eye(2))
    >>> wanted = np.array([3.5, np.nan])
    >>> weights = weights_at_least(found, wanted, row_at_least(found, wanted)[0])
    >>> bool(found.predict(found.row_for_preference(weights))[0][0] < 3.55)
    True
    """
    asked, goal = np.isfinite(wanted), goal_weights(known.spread, wanted)
    wanted = brought_near(wanted, known.values, known.spread)
    candidates = [row[None], *lattices(len(known.preferences), known.pairs, _CANDIDATES)]
    attained = np.vstack([known.attained(rows) for rows in candidates])
    multipliers = np.zeros(len(wanted))
    multipliers[asked] = _multipliers(attained / known.spread, wanted / known.spread, goal * known.spread)

    def fine(values: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, " n"]:
        return np.asarray((values >= wanted - REACHED * known.spread)[:, asked].all(axis=1))

    # The candidates lie apart, so that what is exact for them can fall short by a little. And with several multipliers
    # a little more of all may be too much of one: what a lattice of weights is worth is looked at beside them.
    nudged = [goal + ((1 + more) * multipliers + more * asked) / known.spread for more in _NUDGES]
    (others,) = lattices(len(wanted), list(combinations(range(len(wanted)), 2)), _CANDIDATES)
    tried = np.vstack([*nudged, others / known.spread])
    tried /= tried.sum(axis=1, keepdims=True)
    values = attained[(tried @ attained.T).argmax(axis=1)]
    worth = np.where(fine(values), values @ goal, -np.inf)
    for place in np.argsort(-worth, kind="stable")[:_TRIED]:
        if fine(known.attained(known.row_for_preference(tried[place])[None]))[0]:
            return tried[place]
    return None


def goal_weights(spread: Float[np.ndarray, " m"], wanted: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """What the mean of the free objectives, each in its range, weighs each by.

    >>> goal_weights(np.array([2.0, 4.0]), np.array([1.0, np.nan])), goal_weights(np.array([2.0, 4.0]), np.zeros(2))
    (array([0.  , 0.25]), array([0.25 , 0.125]))
    """
    free = np.isnan(wanted) if np.isnan(wanted).any() else np.ones(len(wanted), dtype=bool)
    return np.where(free, 1 / spread, 0.0) / free.sum()


def _exact(
    known: Calibration,
    wanted: Float[np.ndarray, " m"],
    goal: Float[np.ndarray, " m"],
    start: Float[np.ndarray, " k"],
    members: np.ndarray,
) -> Float[np.ndarray, " k"]:
    """From a row of a set of neighbours to the best one nearby that attains what is wanted."""
    asked = np.isfinite(wanted)

    def attained(part: Float[np.ndarray, " s"]) -> Float[np.ndarray, " m"]:
        return known.attained(_whole(part, members, len(start))[None])[0] / known.spread

    constraints = (
        {"type": "eq", "fun": lambda part: part.sum() - 1},
        {"type": "ineq", "fun": lambda part: (attained(part) - wanted / known.spread)[asked]},
    )
    found = minimize(
        lambda part: -float(attained(part) @ (goal * known.spread)),
        start[members],
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(members),
        constraints=constraints,
        options={"ftol": 1e-10},
    ).x
    part = np.clip(found, 0.0, 1.0)
    return _whole(part / part.sum(), members, len(start))


def _whole(part: Float[np.ndarray, " s"], members: np.ndarray, k: int) -> Float[np.ndarray, " k"]:
    row = np.zeros(k)
    row[members] = part
    return row


def _multipliers(
    attained: Float[np.ndarray, "n m"], wanted: Float[np.ndarray, " m"], goal: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " a"]:
    """argmin over lambda >= 0 of max over rows of goal.V + lambda.(V - wanted), of what is wanted, by linear programme.

    Its optimum is that of the best mixture of rows, so that it has one where some row attains what is wanted.
    """
    asked = np.isfinite(wanted)
    over = attained[:, asked] - wanted[asked]
    lines = np.hstack([over, -np.ones((len(over), 1))])  # goal.V + lambda.over <= top
    costs = np.append(np.zeros(over.shape[1]), 1.0)
    bounds = [(0, None)] * over.shape[1] + [(None, None)]
    return linprog(costs, A_ub=lines, b_ub=-(attained @ goal), bounds=bounds).x[:-1]
