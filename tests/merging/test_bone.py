"""Bone soups: the matrix, the solve against its closed form, and what the mixture of backbones stands for."""

import numpy as np
import pytest
import torch
from deltas import dense, drawn

from moalign.errors import AdapterError, ConfigError
from moalign.merging import bone, bone_coefficients, bone_matrix, soup


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("beta", [0.6, 0.8, 1.0])
def test_the_matrix_is_symmetric_and_circulant_and_each_row_a_preference(k: int, beta: float) -> None:
    matrix = bone_matrix(k, beta)
    assert np.allclose(matrix, matrix.T)
    assert all(np.allclose(np.roll(matrix[0], shift), matrix[shift]) for shift in range(k))
    assert np.allclose(matrix.sum(1), 1)
    assert np.allclose(np.diag(matrix), beta)
    assert (matrix.argmax(1) == np.arange(k)).all()


def test_two_backbones_by_hand() -> None:
    """[.75 .25; .25 .75] c = [1, 0] gives c = [1.5, -.5]: .75 * 1.5 - .25 * .5 = 1 and .25 * 1.5 - .75 * .5 = 0."""
    assert bone_coefficients(bone_matrix(2, 0.75), [1.0, 0.0]) == pytest.approx([1.5, -0.5])
    assert bone_coefficients(bone_matrix(2, 0.75), [0.5, 0.5]) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("beta", [0.55, 0.8, 1.0])
def test_the_solve_is_the_closed_form(k: int, beta: float) -> None:
    """(beta - e) I + e J has the inverse (I - e J) / (beta - e) where rows sum to 1; c sums to 1 as w does."""
    weights = np.random.default_rng(k).dirichlet(np.ones(k))
    rest = (1 - beta) / (k - 1)
    found = bone_coefficients(bone_matrix(k, beta), weights.tolist())
    assert found == pytest.approx(((weights - rest) / (beta - rest)).tolist())
    assert sum(found) == pytest.approx(1)


def test_coefficients_mix_the_rows_to_the_preference_also_where_they_are_not_symmetric() -> None:
    """sum_j c_j H_j = w: backbone j was trained on row j."""
    matrix, weights = np.array([[0.9, 0.1], [0.4, 0.6]]), [0.3, 0.7]
    found = np.array(bone_coefficients(matrix, weights))
    assert found @ matrix == pytest.approx(weights)


def test_linear_experts_are_reached_through_the_backbones() -> None:
    """Were deltas linear in the preference, backbones sum_k H_jk D_k would give the soup of the corners D_k back."""
    corners, weights = [drawn(seed) for seed in (1, 2, 3)], [0.7, 0.1, 0.2]
    backbones = [soup(corners, row) for row in bone_matrix(3, 0.6).tolist()]
    assert torch.allclose(dense(bone(backbones, weights, beta=0.6)), dense(soup(corners, weights)), atol=1e-4)


def test_at_beta_one_it_is_the_plain_soup() -> None:
    adapters = [drawn(seed) for seed in (1, 2, 3)]
    assert torch.allclose(dense(bone(adapters, [0.5, 0.3, 0.2])), dense(soup(adapters, [0.5, 0.3, 0.2])), atol=1e-6)
    assert bone(adapters, [0.0, 1.0, 0.0]) is adapters[1]


@pytest.mark.parametrize(
    ("k", "beta", "line"),
    [
        (2, 0.5, "beta is 0.5; for 2 backbones expected above 1/2"),
        (4, 0.25, "beta is 0.25; for 4 backbones expected above 1/4"),
        (3, 1.1, "beta is 1.1; .*at most 1"),
        (3, float("nan"), "beta is nan"),
        (1, 1.0, "bone soups of 1 backbones; expected at least 2"),
    ],
)
def test_a_matrix_that_cannot_be_solved_is_refused(k: int, beta: float, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        bone_matrix(k, beta)


def test_backbones_of_one_preference_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"not independent.*beta above 1/k"):
        bone_coefficients(np.full((2, 2), 0.5), [0.5, 0.5])


def test_weights_must_fit() -> None:
    with pytest.raises(AdapterError, match="3 weights for 2 backbones; expected one weight for each"):
        bone_coefficients(bone_matrix(2, 0.6), [0.2, 0.3, 0.5])
    with pytest.raises(AdapterError, match="the weight of adapter 0 is nan"):
        bone([drawn(1), drawn(2)], [float("nan"), 1.0], beta=0.6)
