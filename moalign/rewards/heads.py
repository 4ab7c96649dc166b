"""Linear heads on the features of a model that stays as it is: ridge regression, each head on the rows it has.

[Ridge]  Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal problems" (1970).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-8, 7))  # tried in turn, in units of one feature's variance
_FOLDS, _UNCHOSEN = 5, 0.1  # the latter where there is nothing to choose on


@dataclass(frozen=True)
class Heads:
    """m linear heads on d features, and the penalty that each was fitted with.

    reward_j(f) = weight_j . f + bias_j

    >>> Heads(np.array([[2.0, 0.0]]), np.array([1.0]), np.array([0.0]))(np.array([[3.0, 9.0]])).tolist()
    [[7.0]]
    """

    weight: Float[np.ndarray, "m d"]
    bias: Float[np.ndarray, " m"]
    penalty: Float[np.ndarray, " m"]

    def __call__(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        """The rewards of n feature vectors."""
        return features @ self.weight.T + self.bias


def solve_heads(
    features: Float[np.ndarray, "n d"],
    labels: Float[np.ndarray, "n m"],
    groups: Int[np.ndarray, " n"],
    penalty: float | None = None,
) -> Heads:
    """The heads of least squared error on the rows that have the label (NaN: it has not), with a ridge  [Ridge].

        minimise over w, c   (1/n_j) sum_i M_ij (w.z_i + c - r_ij)^2  +  penalty |w|^2

    with z the features less their mean over standard deviation, both over the n_j rows that have label j, so that the
    penalty is in units of one feature's variance; heads do not know of each other. `penalty` None takes, head by head,
    the one of `PENALTIES` with the least squared error in cross-validation over 5 folds, the larger one of equals; rows
    of one group (a prompt) stand in one fold. Where there is only one group, it is 0.1. With a penalty of 0 it is least
    squares, and of many solutions the shortest. A feature that never differs gets weight 0. In the labels' units. Every
    head needs a label.

    >>> f, r = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0, np.nan], [3.0, 5.0], [5.0, 4.0]])
    >>> heads = solve_heads(f, r, np.arange(3), penalty=0.0)
    >>> heads.weight.round(6).tolist(), heads.bias.round(6).tolist()
    ([[2.0], [-1.0]], [1.0, 6.0])
    """
    m, d = labels.shape[1], features.shape[1]
    weight, bias, chosen = np.zeros((m, d)), np.zeros(m), np.zeros(m)
    known = ~np.isnan(labels)
    for pattern in np.unique(known, axis=1).T:  # heads of the same rows share their decompositions
        heads = np.flatnonzero((known == pattern[:, None]).all(axis=0))
        own = labels[np.ix_(pattern, heads)]
        chosen[heads] = _chosen(features[pattern], own, groups[pattern]) if penalty is None else penalty
        path = _Path(features[pattern])
        for j, column in zip(heads, own.T, strict=True):
            weight[j], bias[j] = path.solve(column, float(chosen[j]))
    return Heads(weight, bias, chosen)


def _chosen(
    features: Float[np.ndarray, "n d"], labels: Float[np.ndarray, "n h"], groups: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " h"]:
    """The penalty for each column of labels, none of which is missing: the least error on rows not fitted to."""
    distinct, group = np.unique(groups, return_inverse=True)
    folds = min(_FOLDS, len(distinct))
    if folds < 2:
        return np.full(labels.shape[1], _UNCHOSEN)
    # In a fixed shuffled order, since neighbours in a file may be alike.
    fold = np.random.default_rng(0).permutation(len(distinct))[group.reshape(-1)] % folds
    errors = np.zeros((len(PENALTIES), labels.shape[1]))
    for number in range(folds):
        own, other = fold != number, fold == number
        path = _Path(features[own])
        for j, column in enumerate(labels.T):
            for i, penalty in enumerate(PENALTIES):
                weight, bias = path.solve(column[own], penalty)
                errors[i, j] += ((features[other] @ weight + bias - column[other]) ** 2).sum()
    best = len(PENALTIES) - 1 - errors[::-1].argmin(axis=0)
    return np.array(PENALTIES)[best]


class _Path:
    """The ridge solutions of one set of rows for any labels and penalty: one singular value decomposition."""

    def __init__(self, features: Float[np.ndarray, "n d"]):
        self.mean = features.mean(axis=0)
        spread = features.std(axis=0)
        flat = spread <= 1e-7 * np.abs(features).max(axis=0, initial=1e-30)  # rounding of float32, and no feature
        self.inverse = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, spread))
        scaled = (features - self.mean) * self.inverse
        self.left, self.singular, self.right = np.linalg.svd(scaled, full_matrices=False)
        cutoff = self.singular.max(initial=0.0) * max(scaled.shape) * np.finfo(np.float64).eps
        self.kept: Bool[np.ndarray, " k"] = self.singular > cutoff

    def solve(self, labels: Float[np.ndarray, " n"], penalty: float) -> tuple[Float[np.ndarray, " d"], float]:
        """Weight and bias for the features as they are."""
        mean = labels.mean()
        singular = self.singular[self.kept]
        shrunk = singular / (singular**2 + penalty * len(labels))
        weight = self.inverse * (self.right[self.kept].T @ (shrunk * (self.left[:, self.kept].T @ (labels - mean))))
        return weight, float(mean - weight @ self.mean)
