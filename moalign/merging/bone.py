"""Bone soups: adapters trained on mixed rewards, and the mixture of them that stands for a preference."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from moalign.adapters import Adapter
from moalign.errors import AdapterError, ConfigError
from moalign.merging.inputs import checked
from moalign.merging.soup import soup

_SINGULAR = 1e12  # condition number; beyond it coefficients are digits of rounding


def bone_matrix(k: int, beta: float) -> Float[np.ndarray, "k k"]:
    """The preferences to train k backbones on: row j asks for objective j with beta, for the others with equal shares.

        H_ij = beta if i = j else (1 - beta) / (k - 1)    [Xie et al. 2025, arXiv 2502.10762]

    Symmetric, circulant, every row a preference. The paper's beta are .6 to .8; at 1 the backbones are the corners of a
    plain soup; at 1 / k they would all be one, and below it row j would ask for objective j least.

    Raises ConfigError for fewer than two backbones and a beta outside (1 / k, 1].

    >>> bone_matrix(3, 0.6).tolist()
    [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]]
    """
    if k < 2:
        raise ConfigError(f"bone soups of {k} backbones; expected at least 2")
    if not 1 / k < beta <= 1:
        raise ConfigError(
            f"beta is {beta:g}; for {k} backbones expected above 1/{k}, where all of them would be trained on one "
            "preference, and at most 1 (the paper's are 0.6 to 0.8)"
        )
    rest = (1 - beta) / (k - 1)
    return np.full((k, k), rest) + (beta - rest) * np.eye(k)


def bone_coefficients(matrix: Float[np.ndarray, "k k"], weights: Sequence[float]) -> list[float]:
    """How much of each backbone stands for a preference: the c with sum_j c_j H_j = w, H_j the row of backbone j.

        c = H^{-T} w, and H^{-1} w for a symmetric H;   for `bone_matrix`: c_j = (w_j - e) / (beta - e),
        e = (1 - beta) / (k - 1) sum w

    Where rows sum to 1, c sums to what w does. Coefficients are negative where w lies outside of what the backbones
    were trained on. Raises AdapterError for another number of weights, ConfigError for rows that are not independent.

    >>> [round(c, 6) for c in bone_coefficients(bone_matrix(2, 0.75), [1.0, 0.0])]
    [1.5, -0.5]
    """
    if len(weights) != len(matrix):
        raise AdapterError(f"{len(weights)} weights for {len(matrix)} backbones; expected one weight for each")
    if not np.linalg.cond(matrix) < _SINGULAR:
        raise ConfigError(
            "the preferences that the backbones were trained on are not independent, so no mixture of them stands for "
            "every preference; train on the rows of bone_matrix(k, beta) with beta above 1/k"
        )
    return np.linalg.solve(matrix.T, np.array(weights)).tolist()


def bone(adapters: Sequence[Adapter], weights: Sequence[float], beta: float = 1.0) -> Adapter:
    """The soup of backbones that stands for the preference w: sum_j c_j dW_j, c = H^{-1} w  [arXiv 2502.10762].

    Adapter j was trained on row j of `bone_matrix(k, beta)`, with the same beta: at 1, on objective j alone, and this
    is the plain soup. So a one-hot w is no adapter's own, but for beta 1: it lies beyond them. Exact, with the sum of
    the ranks. Raises what `soup` and `bone_matrix` raise.

    >>> import torch
    >>> from moalign.adapters import LowRank
    >>> two = [Adapter({"q": LowRank(torch.eye(2)[[j]], torch.ones(1, 1), 1.0)}, ("q",)) for j in (0, 1)]
    >>> bone(two, [1.0, 0.0], beta=0.75).layers["q"].delta()
    tensor([[ 1.5000, -0.5000]])
    """
    checked(adapters, weights)
    return soup(adapters, bone_coefficients(bone_matrix(len(adapters), beta), weights))
