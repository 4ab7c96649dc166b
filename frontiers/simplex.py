"""Weights on the simplex: where to train, and how to reach what lies between.

All rows are non-negative, sum to 1 within 1e-12, and stand in descending lexicographic order, so that the first row
asks for objective 0 alone.

[Das-Dennis] Das and Dennis, "Normal-boundary intersection" (1998).
[Riesz]      Blank, Deb, Dhebar, Bandaru and Seada, "Generating well-spaced points on a unit simplex for evolutionary
             many-objective optimization" (2021).
[Rajan]      Rajan, "Optimality of the Delaunay triangulation in R^d" (1994).
"""

from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog, nnls

from moalign.errors import ConfigError, DataError

NEGLIGIBLE = 1e-9  # a coefficient below it changes no logit that bfloat16 or float32 can show
SLACK_PRICE = 1e6  # against distances of at most 1; 1e4 still misses by 1e-6, 1e8 is lost in rounding


def lattice(m: int, divisions: int) -> Float[np.ndarray, "n m"]:
    """All weights whose entries are multiples of 1/divisions  [Das-Dennis].

    There are C(divisions + m - 1, m - 1) of them: 11 for m=2 and 10 divisions, 66 for m=3. With one division they
    are the corners. Raises ConfigError below one objective or one division.

    >>> lattice(2, 2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    if m < 1 or divisions < 1:
        raise ConfigError(f"a lattice of {m} objectives and {divisions} divisions; expected at least 1 of each")
    # Stars and bars: m - 1 bars among the stars; the numbers of stars between them are the entries.
    slots = divisions + m - 1
    bars = np.array(list(combinations(range(slots), m - 1)), dtype=int).reshape(comb(slots, m - 1), m - 1)
    ends = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, slots)))
    return (np.diff(ends, axis=1) - 1)[::-1] / divisions


def corners(m: int) -> Float[np.ndarray, "m m"]:
    """Row k asks for objective k alone.

    >>> corners(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return np.eye(m)


def riesz(m: int, n: int, seed: int) -> Float[np.ndarray, "n m"]:
    """n well-spread weights, the corners among them, for an n that no lattice has.

    Minimises the Riesz energy sum over i < j of 1 / ||w_i - w_j||^s with s = 2m, by pymoo's gradient
    descent  [Riesz]. The same seed gives the same weights. Seconds for a hundred points.

    Raises ConfigError if n is below m, where there is no room for the corners, or above 1 for one objective, whose
    simplex is a single point.

    >>> riesz(3, 3, seed=0).tolist() == corners(3).tolist()
    True
    """
    if m < 1 or n < m or n > m == 1:
        raise ConfigError(f"{n} Riesz points of {m} objectives; expected at least 2 objectives and a point for each")
    if n == m:
        return corners(m)
    # Imported here: half a second, which only those pay who ask for these points.
    from pymoo.util.ref_dirs import get_reference_directions

    points = np.asarray(get_reference_directions("energy", m, n, seed=seed))
    return points[np.lexsort(points.T[::-1])][::-1]


def blend(trained: Float[np.ndarray, "n m"], wanted: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """The mixing row over trained preferences that stands for the wanted one, using its neighbours only.

    minimise sum_k c_k ||w_k - w||^2   subject to   sum_k c_k w_k = w,  sum_k c_k = 1,  c >= 0

    A linear program, whose solution has at most m non-zeros and is the interpolation in the Delaunay triangulation
    of the trained weights  [Rajan]: for two objectives, the linear interpolation between the two neighbours.

    A wanted preference outside the hull of the trained ones is first moved to the nearest point of the hull. One
    that was trained gives exactly 1 for it (the first, if it was trained twice) and exactly 0 for the others.
    Coefficients below 1e-9 are set to 0 and the rest sum to 1; where trained weights themselves are as small as that,
    the wanted preference may be missed by 1e-7, and to rounding otherwise. Where the triangulation is not
    unique, such as on a square of the lattice, one of them is taken, always the same. Raises DataError without
    trained weights.

    >>> blend(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), np.array([0.9, 0.1])).round(6).tolist()
    [0.8, 0.2, 0.0]
    """
    if len(trained) == 0:
        raise DataError("nothing to blend: expected at least one trained preference")
    target = _nearest_in_hull(trained, wanted)
    distances = ((trained - target) ** 2).sum(axis=1)
    if distances.min() <= NEGLIGIBLE**2:
        return np.eye(len(trained))[distances.argmin()]
    # The program says which neighbours; solving for them alone makes their coefficients exact.
    chosen = _neighbours(trained - target, distances)
    rows = np.vstack([trained[chosen].T, np.ones(len(chosen))])
    coefficients = np.zeros(len(trained))
    coefficients[chosen] = nnls(rows, np.append(target, 1.0))[0]
    coefficients[coefficients < NEGLIGIBLE] = 0.0
    return coefficients / coefficients.sum()


def _neighbours(offsets: Float[np.ndarray, "n m"], distances: Float[np.ndarray, " n"]) -> Int[np.ndarray, " c"]:
    """The at most m trained weights between which the target lies: the non-zeros of the linear program of `blend`.

    `offsets` are w_k - target, so the constraint reads sum_k c_k offset_k = 0. On the edge of the hull rounding alone
    would make it infeasible; it may be missed by a slack, at a price that no distance is worth.
    """
    n, m = offsets.shape
    if m == 2:  # on a line: the nearest to either side, which serving asks for at every request
        along = offsets[:, 0]
        return np.array([np.where(along <= 0, along, -np.inf).argmax(), np.where(along > 0, along, np.inf).argmin()])
    furthest = distances.max()
    slack = np.eye(m)
    solution = linprog(
        np.concatenate([distances / furthest, np.full(2 * m, SLACK_PRICE)]),
        A_eq=np.block([[offsets.T / np.sqrt(furthest), slack, -slack], [np.ones(n), np.zeros(2 * m)]]),
        b_eq=np.append(np.zeros(m), 1.0),
        method="highs-ds",  # the simplex algorithm ends in a vertex: at most m non-zeros
        options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-10},
    )
    return np.flatnonzero(solution.x[:n] > NEGLIGIBLE)


def _nearest_in_hull(trained: Float[np.ndarray, "n m"], wanted: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """The point of the trained weights' convex hull that is nearest to the wanted one.

    With P = [w_k - wanted] as columns, minimise ||P u||^2 + (sum u - 1)^2 over u >= 0. For u = s c with sum c = 1
    the best s leaves d^2 / (1 + d^2) with d = ||P c||, which grows with d: the c of the minimum is the nearest
    point's, without a penalty to tune.
    """
    rows = np.vstack([(trained - wanted).T, np.ones(len(trained))])
    u = nnls(rows, np.append(np.zeros(len(wanted)), 1.0))[0]
    return u @ trained / u.sum()
