"""What may lie between two neighbours of a front, before anything is trained there.

[OLS]     Roijers, Whiteson and Oliehoek, "Computing convex coverage sets for faster multi-objective coordination"
          (2015): what has been measured at some weights bounds what can be had at others.
[Farin]   Farin, "Curves and surfaces for computer-aided geometric design" (1988): the parabola as a Bezier curve.
"""

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog

from moalign.frontiers.hypervolume import hypervolume


def most_between(
    values: Float[np.ndarray, "n m"], weights: Float[np.ndarray, "n m"], pair: tuple[int, int]
) -> Float[np.ndarray, " m"]:
    """The best that could lie between two points, if every point were the best there is for its own weights.

    maximise w.y   subject to   w_k.y <= max_j w_k.y_j for all k,   min(y_a, y_b) <= y <= max(y_a, y_b)

    for w halfway between w_a and w_b  [OLS]: where the tangents in a and b meet, for two objectives. In the objectives'
    units. Points with a NaN bound nothing; those of `pair` must have none. Equal points give themselves.

    >>> values, weights = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [2 / 3, 1 / 3]])
    >>> most_between(values, weights, (0, 1)).round(6).tolist()
    [0.5, 1.0]
    """
    a, b = pair
    known = ~np.isnan(values).any(axis=1)
    support = (weights @ values[known].T).max(axis=1)
    ends = values[[a, b]]
    # Measured from the lower corner, in ranges: a program in raw units would be at the mercy of their sizes.
    low, span = ends.min(axis=0), np.ptp(ends, axis=0)
    middle = (weights[a] + weights[b]) / 2
    bounds = [(0.0, 1.0) if width > 0 else (0.0, 0.0) for width in span]
    room = support - weights @ low
    solution = linprog(
        -middle * span, A_ub=weights * span, b_ub=np.maximum(room, 0.0), bounds=bounds, method="highs-ds"
    )
    if not solution.success:  # rounding, on a gap that is no wider than it
        return ends.mean(axis=0)
    return low + solution.x * span


def expected_between(
    values: Float[np.ndarray, "n m"], weights: Float[np.ndarray, "n m"], pair: tuple[int, int]
) -> Float[np.ndarray, " m"]:
    """Where an adapter trained between two points will lie: halfway from their middle to `most_between`.

    y = ( (y_a + y_b) / 2 + y_most ) / 2

    Exact where the front between them is a parabola, whose tangents meet there: a quadratic Bezier curve at its half
    [Farin]. Units and edge cases as for `most_between`.

    >>> values, weights = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [2 / 3, 1 / 3]])
    >>> expected_between(values, weights, (0, 1)).round(6).tolist()
    [0.5, 0.75]
    """
    return (values[list(pair)].mean(axis=0) + most_between(values, weights, pair)) / 2


def expected_gain(
    values: Float[np.ndarray, "n m"],
    weights: Float[np.ndarray, "n m"],
    pair: tuple[int, int],
    reference_point: Float[np.ndarray, " m"],
    others: Float[np.ndarray, "o m"] | None = None,
) -> float:
    """The hypervolume that a point at `expected_between` would add to the values, and to `others` beside them.

    In the product of the objectives' units, never negative. `others`, such as blends that were measured there, cover
    what they dominate and bound nothing: they were not trained for any weights.
    """
    all_values = values if others is None else np.concatenate([values, others])
    expected = expected_between(values, weights, pair)
    gained = np.concatenate([all_values, expected[None]])
    return max(hypervolume(gained, reference_point) - hypervolume(all_values, reference_point), 0.0)


def gain_noise(
    expected: Float[np.ndarray, " m"],
    values: Float[np.ndarray, "n m"],
    drawn: Float[np.ndarray, "b n m"],
    pair: tuple[int, int],
    reference_point: Float[np.ndarray, " m"],
) -> float:
    """How much the gain of a point at `expected` would vary with the prompts it is measured on: a standard deviation.

    `drawn` are the values over prompts drawn again (`resampled_fronts`). The point's error is taken to be that of its
    one neighbour and of the other in turn, for it would answer the same prompts, and much as they do. In hypervolume; 0
    for values that do not vary, and without draws.

    >>> values = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> gain_noise(np.array([0.5, 0.75]), values, np.stack([values, values]), (0, 1), np.full(2, -1.0))
    0.0
    """
    found = []
    for number, row in enumerate(drawn):
        end = pair[number % 2]
        point = expected + row[end] - values[end]
        both = np.concatenate([row, point[None]])
        found.append(hypervolume(both, reference_point) - hypervolume(row, reference_point))
    return float(np.std(found)) if found else 0.0
