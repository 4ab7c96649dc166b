from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from moalign.errors import ConfigError, DataError
from moalign.frontiers import blend, corners, lattice, riesz


def on_the_simplex(weights):
    return (weights >= 0).all() and np.abs(weights.sum(axis=1) - 1).max() < 1e-12


def descending(weights):
    rows = [tuple(row) for row in weights]
    return rows == sorted(set(rows), reverse=True)


@pytest.mark.parametrize(("m", "divisions"), [(1, 4), (2, 10), (3, 5), (4, 3), (6, 2), (9, 1)])
def test_the_lattice_has_every_weight_once(m, divisions):
    """C(H + m - 1, m - 1) rows, all different, all multiples of 1/H that sum to 1: so there is no other."""
    weights = lattice(m, divisions)
    assert weights.shape == (comb(divisions + m - 1, m - 1), m)
    assert on_the_simplex(weights)
    assert descending(weights)
    np.testing.assert_array_equal(weights * divisions, np.round(weights * divisions))


def test_one_division_gives_the_corners():
    np.testing.assert_array_equal(lattice(4, 1), corners(4))


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 8), (5, 9)])
def test_riesz_points(m, n):
    """On the simplex, corners among them, sorted, and no two near each other."""
    weights = riesz(m, n, seed=3)
    assert weights.shape == (n, m)
    assert on_the_simplex(weights)
    assert descending(weights)
    assert all(corner in weights.tolist() for corner in corners(m).tolist())
    gaps = np.linalg.norm(weights[:, None] - weights, axis=2)[~np.eye(n, dtype=bool)]
    assert gaps.min() > 0.5 * np.sqrt(2) / (n - 1)


def test_riesz_points_of_two_objectives_are_even_and_repeat():
    weights = riesz(2, 5, seed=0)
    np.testing.assert_allclose(weights, lattice(2, 4), atol=2e-3)
    np.testing.assert_array_equal(weights, riesz(2, 5, seed=0))


@pytest.mark.parametrize(
    "call", [lambda: lattice(0, 3), lambda: lattice(2, 0), lambda: riesz(3, 2, 0), lambda: riesz(1, 2, 0)]
)
def test_impossible_sizes(call):
    with pytest.raises(ConfigError, match="expected at least"):
        call()


@pytest.mark.parametrize(("m", "divisions"), [(1, 1), (2, 10), (3, 4), (4, 2)])
def test_what_was_trained_is_one_hot(m, divisions, immutable):
    """Exactly 1 and exactly 0."""
    weights = lattice(m, divisions)
    rows = [immutable(blend, weights, wanted) for wanted in weights.copy()]
    np.testing.assert_array_equal(rows, np.eye(len(weights)))


def test_a_preference_trained_twice_is_taken_once():
    assert blend(np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]), np.array([0.5, 0.5])).tolist() == [0.0, 1.0, 0.0]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8, unique=True), st.integers(0, 1000))
def test_two_objectives_interpolate_between_neighbours(percents, permille):
    """The coefficients are those of np.interp, which also stops at the ends."""
    first = np.array(percents) / 100
    trained, wanted = np.stack([first, 1 - first], axis=1), permille / 1000
    coefficients = blend(trained, np.array([wanted, 1 - wanted]))
    order = np.argsort(first)
    expected = [np.interp(wanted, first[order], row) for row in np.eye(len(first))[:, order]]
    np.testing.assert_allclose(coefficients, expected, atol=1e-9)


@pytest.mark.parametrize("m", [3, 4])
def test_it_is_the_delaunay_interpolation(m):
    """Barycentric coordinates in the triangle of scipy's Delaunay triangulation, an independent derivation."""
    rng = np.random.default_rng(m)
    trained = np.vstack([corners(m), rng.dirichlet(np.ones(m), size=12)])
    basis = np.linalg.svd(np.ones((1, m)))[2][1:].T  # an isometry of the simplex's plane: circles stay circles
    triangles = Delaunay(trained @ basis)
    for wanted in rng.dirichlet(np.ones(m), size=25):
        corners_of = triangles.simplices[triangles.find_simplex(wanted @ basis)]
        expected = np.zeros(len(trained))
        expected[corners_of] = np.linalg.solve(trained[corners_of].T, wanted)
        np.testing.assert_allclose(blend(trained, wanted), expected, atol=1e-8)


@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 10_000))
def test_any_blend_is_a_sparse_convex_combination(m, n, seed):
    """c >= 0, sum 1, at most m non-zeros; what it stands for is as near to the wanted as any trained weight."""
    rng = np.random.default_rng(seed)
    trained, wanted = rng.dirichlet(np.ones(m), size=n), rng.dirichlet(np.full(m, 0.3))
    coefficients = blend(trained, wanted)
    assert coefficients.min() >= 0
    assert coefficients.sum() == pytest.approx(1, abs=1e-12)
    assert np.count_nonzero(coefficients) <= m
    assert coefficients[coefficients > 0].min() >= 0.9e-9
    missed = wanted - coefficients @ trained
    assert np.linalg.norm(missed) <= np.linalg.norm(trained - wanted, axis=1).min() + 1e-9
    # The nearest point of a convex set: everything in the set lies behind the plane through it.
    assert ((trained - coefficients @ trained) @ missed <= 1e-7).all()


def test_inside_the_hull_it_is_exact():
    rng = np.random.default_rng(0)
    trained = lattice(3, 6)
    for wanted in rng.dirichlet(np.ones(3), size=50):
        np.testing.assert_allclose(blend(trained, wanted) @ trained, wanted, atol=1e-12)


def test_outside_the_hull_it_goes_to_the_nearest_point():
    """Of (.2,.8) and (.6,.4), (.9,.1) gets the near end; of a segment in three objectives, the foot of the normal."""
    assert blend(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([0.9, 0.1])).tolist() == [0.0, 1.0]
    foot = blend(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), np.array([0.4, 0.2, 0.4]))
    np.testing.assert_allclose(foot, [0.6, 0.4], atol=1e-12)


def test_it_uses_neighbours_only():
    """(.5,.5) between .4 and .6, and not between 0 and 1, though both would be exact."""
    first = np.array([0.0, 0.4, 0.6, 1.0])
    row = blend(np.stack([first, 1 - first], axis=1), np.array([0.5, 0.5]))
    np.testing.assert_allclose(row, [0.0, 0.5, 0.5, 0.0], atol=1e-12)


@pytest.mark.parametrize("spread", [1e-3, 1e-5])
def test_trained_weights_that_nearly_coincide(spread):
    """Three points 1e-5 apart, the wanted between the first two: the third is not used."""
    first = 0.5 + spread * np.arange(3)
    row = blend(np.stack([first, 1 - first], axis=1), np.array([0.5 + spread / 4, 0.5 - spread / 4]))
    np.testing.assert_allclose(row, [0.75, 0.25, 0.0], atol=1e-9)


def test_nearly_zero_weights_on_the_edge_of_the_hull():
    """Entries of 1e-8 to 1e-12 and wanted weights on the hull's edge, where the bare program is infeasible."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        trained = np.vstack([rng.dirichlet(np.full(4, 0.1), size=20), corners(4)[:2]])
        wanted = (trained[rng.integers(22)] + trained[rng.integers(22)]) / 2
        np.testing.assert_allclose(blend(trained, wanted) @ trained, wanted, atol=1e-6)


def test_nothing_to_blend():
    with pytest.raises(DataError, match="at least one trained preference"):
        blend(np.zeros((0, 2)), np.array([0.5, 0.5]))
