"""What one number says about a front; every value is maximised.

Rows with a NaN are left out everywhere, and an indicator that nothing defines (no points, no weights) is NaN.

[C-MORL]  Liu et al., arXiv 2410.02236.
[IGD+]    Ishibuchi, Masuda, Tanigaki and Nojima, "Modified distance calculation in generational distance and
          inverted generational distance" (2015).
[Kendall] Kendall, "A new measure of rank correlation" (1938), with the correction for ties (tau-b).
"""

from dataclasses import dataclass

import moocore
import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import kendalltau

from moalign.frontiers.dominance import non_dominated


def expected_utility(values: Float[np.ndarray, "n m"], weights: Float[np.ndarray, "p m"]) -> float:
    """The utility that users get on average when each takes the point that is best for their own weights.

    EU = mean over w of max over y of w.y  [C-MORL], in the objectives' units. The weights are the users: a
    lattice of the simplex when nothing better is known.

    Dominated points change nothing, nor does a tie. No points or no weights: NaN.

    >>> expected_utility(np.array([[0.0, 4.0], [4.0, 0.0]]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    3.0
    """
    known = values[_known(values)]
    if len(known) == 0 or len(weights) == 0:
        return float("nan")
    return float((weights @ known.T).max(axis=1).mean())


def sparsity(values: Float[np.ndarray, "n m"]) -> float:
    """How far apart neighbours on the front lie; lower is denser.

    SP = 1 / (n - 1) * sum over k, i of (f_k(i+1) - f_k(i))^2, where f_k is objective k of the n points on the
    front, sorted  [C-MORL]. The unit is the objectives' units squared, so scale them alike first.

    The front is a set: dominated points are left out and duplicates count once, since either would make it
    look denser than it is. Fewer than two points have no gap: NaN.

    >>> sparsity(np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 2.5], [4.0, 0.0]]))
    4.5
    """
    front = np.unique(values[non_dominated(values)], axis=0)
    if len(front) < 2:
        return float("nan")
    gaps = np.diff(np.sort(front, axis=0), axis=0)
    return float((gaps**2).sum() / (len(front) - 1))


def igd_plus(values: Float[np.ndarray, "n m"], reference_front: Float[np.ndarray, "p m"]) -> float:
    """How far the points fall short of a reference front, on average; 0 is best.

    IGD+ = mean over z in reference_front of min over y of || max(z - y, 0) ||  [IGD+], in the objectives'
    units. Being above the reference front is not held against a point.

    Dominated points and duplicates among `values` change nothing; every row of the reference front counts as
    often as it stands there. No points or no reference front: NaN.

    >>> igd_plus(np.array([[3.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 2.0]]))
    1.0
    """
    known, reference = values[_known(values)], reference_front[_known(reference_front)]
    if len(known) == 0 or len(reference) == 0:
        return float("nan")
    return float(moocore.igd_plus(known, ref=reference, maximise=True))


def mean_inner_product(values: Float[np.ndarray, "n m"], weights: Float[np.ndarray, "n m"]) -> float:
    """The utility of each point under its own preference, averaged: MIP = mean over i of w_i.y_i.

    Unlike the expected utility it gives no credit for a point that happens to serve another preference better.
    In the objectives' units. Points with a NaN are left out; no points: NaN.

    >>> mean_inner_product(np.array([[4.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    2.5
    """
    known = _known(values) & _known(weights)
    if not known.any():
        return float("nan")
    return float((values[known] * weights[known]).sum(axis=1).mean())


def kendall_tau(asked: Float[np.ndarray, "n m"], attained: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " m"]:
    """Per objective: do points that were asked for more of it attain more of it?

    tau_k = (concordant - discordant) / sqrt((pairs - ties in asked) (pairs - ties in attained))  [Kendall], over
    all pairs of points; 1 when the order is kept everywhere, -1 when it is reversed.

    Points with a NaN in objective k are left out of tau_k. Where fewer than two are left, or either column is
    flat, no order exists and tau_k is NaN.

    >>> asked = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    >>> kendall_tau(asked, np.array([[9.0, 1.0], [5.0, 1.0], [2.0, 1.0]])).tolist()
    [1.0, nan]
    """
    return np.array([_tau(a, b) for a, b in zip(asked.T, attained.T, strict=True)])


@dataclass(frozen=True)
class Violation:
    """Points that were asked for more of an objective and attained less of it than those asked for the next less.

    `less` and `more` are the rows of the two, one each unless several were asked for the same weight; `drop` is how
    much was lost, above 0, in the objective's units.

    >>> Violation((0,), (1,), 0.5).drop
    0.5
    """

    less: tuple[int, ...]
    more: tuple[int, ...]
    drop: float


def monotonicity_violations(
    asked: Float[np.ndarray, "n m"],
    attained: Float[np.ndarray, "n m"],
    errors: Float[np.ndarray, "n m"] | None = None,
) -> list[list[Violation]]:
    """Per objective: the steps at which asking for more of it gave less, in the order of the asked weight.

    Points are sorted by the asked weight of the objective; those of one weight are averaged. A step from one weight to
    the next is a violation when  attained(more) < attained(less) - 1.96 sqrt(SE(more)^2 + SE(less)^2),  with
    SE 0 unless errors are given. That takes the points for independent; measured on the same prompts they vary
    together, and some real violations are passed over.

    Points with a NaN in the objective are left out, and with errors also those whose error is NaN. A tie is no
    violation, in asked or attained. Fewer than two weights have no step.

    >>> asked = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    >>> monotonicity_violations(asked, np.array([[5.0, 0.0], [6.0, 1.0], [2.0, 1.0]]))
    [[Violation(less=(1,), more=(0,), drop=1.0)], []]
    """
    missing = np.zeros_like(attained) if errors is None else errors
    return [_steps_down(*columns) for columns in zip(asked.T, attained.T, missing.T, strict=True)]


def _steps_down(
    asked: Float[np.ndarray, " n"], attained: Float[np.ndarray, " n"], errors: Float[np.ndarray, " n"]
) -> list[Violation]:
    known = np.flatnonzero(~np.isnan(asked + attained + errors))
    # Weights are stored with 12 digits: thirds of one lattice may differ in the last.
    levels = [known[asked[known].round(9) == level] for level in np.unique(asked[known].round(9))]
    means = [attained[level].mean() for level in levels]
    squares = [(errors[level] ** 2).sum() / len(level) ** 2 for level in levels]
    found = []
    for i in range(len(levels) - 1):
        drop = float(means[i] - means[i + 1])
        if drop > 1.96 * np.sqrt(squares[i] + squares[i + 1]):
            found.append(Violation(tuple(levels[i].tolist()), tuple(levels[i + 1].tolist()), drop))
    return found


def _tau(asked: Float[np.ndarray, " n"], attained: Float[np.ndarray, " n"]) -> float:
    known = ~(np.isnan(asked) | np.isnan(attained))
    asked, attained = asked[known], attained[known]
    # scipy warns about what is an ordinary case here: an objective that the preference never moves.
    if len(asked) < 2 or np.ptp(asked) == 0 or np.ptp(attained) == 0:
        return float("nan")
    return float(kendalltau(asked, attained).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def _known(rows: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, " n"]:
    return np.logical_not(np.isnan(rows).any(axis=1))
