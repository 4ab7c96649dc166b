"""The fitted polynomial against its own refits, against a textbook solution in the parameters, and against sampling."""

import numpy as np
import pytest

from moalign.frontiers.scheffe import COMMON, OWN, curvature_covariance, fit_polynomial

APART = np.array([[0.0, 1.0, 0.4], [1.0, 0.0, 0.7], [0.4, 0.7, 0.0]])
PAIRS = [(0, 1), (0, 2), (1, 2)]


def data(seed=0, blends=5):
    """Three adapters and some blends of them, with errors of different sizes."""
    rng = np.random.default_rng(seed)
    rows = np.vstack([np.eye(3), rng.dirichlet(np.ones(3), size=blends)])
    return rows, rng.normal(size=len(rows)), rng.uniform(0.05, 0.3, size=len(rows))


def by_ridge(rows, values, errors, spread):
    """The same estimate in p = (V_a, u, v_ab): minimise |(y - Z p) / s|^2 + |u / spread|^2 + |2 v / spread|^2.

    Returns the parameters as V and c, and the covariance of the parameters.
    """
    products = np.array([[row[a] * row[b] * APART[a, b] for a, b in PAIRS] for row in rows])
    design = np.hstack([rows, products.sum(axis=1, keepdims=True), products])
    penalty = np.diag([0.0] * 3 + [(COMMON * spread) ** -2] + [(OWN * spread) ** -2] * 3)
    precision = design.T @ np.diag(errors**-2) @ design + penalty
    parameters = np.linalg.solve(precision, design.T @ (values / errors**2))
    curvatures = np.array([APART[a, b] * (parameters[3] + parameters[4 + i]) for i, (a, b) in enumerate(PAIRS)])
    return parameters[:3], curvatures, np.linalg.inv(precision)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_ridge_in_the_parameters(seed):
    """Values, curvatures and the errors of predictions, derived in the primal."""
    rows, values, errors = data(seed)
    found = fit_polynomial(rows, values, errors, APART, 2.0)
    adapters, curvatures, covariance = by_ridge(rows, values, errors, 2.0)
    assert found.adapters == pytest.approx(adapters)
    assert [found.curvatures[pair] for pair in PAIRS] == pytest.approx(curvatures)
    np.testing.assert_array_equal(found.curvatures, found.curvatures.T)
    x = np.random.default_rng(seed).dirichlet(np.ones(3), size=6)
    products = np.array([[row[a] * row[b] * APART[a, b] for a, b in PAIRS] for row in x])
    design = np.hstack([x, products.sum(axis=1, keepdims=True), products])
    assert found.errors(x) == pytest.approx(np.sqrt(np.diag(design @ covariance @ design.T)))
    straight = x @ adapters + sum(c * x[:, a] * x[:, b] for c, (a, b) in zip(curvatures, PAIRS, strict=True))
    assert found.values(x) == pytest.approx(straight)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_out_is_what_a_refit_misses(seed):
    """For every row whose adapter is still measured: blends, and an adapter that was measured twice."""
    rows, values, errors = data(seed)
    rows, values, errors = np.vstack([rows, rows[:1]]), np.append(values, 0.3), np.append(errors, 0.2)
    found = fit_polynomial(rows, values, errors, APART, 2.0)
    for i in [0, 8, *range(3, 8)]:
        rest = np.delete(np.arange(len(rows)), i)
        refit = fit_polynomial(rows[rest], values[rest], errors[rest], APART, 2.0)
        assert found.left_out[i] == pytest.approx(values[i] - refit.values(rows[[i]])[0])


def test_a_row_that_alone_measures_its_adapter_is_missed_by_nobody_knows_what():
    found = fit_polynomial(np.eye(3), np.arange(3.0), np.full(3, 0.1), APART, 2.0)
    assert np.isnan(found.left_out).all()
    assert found.curvatures.tolist() == np.zeros((3, 3)).tolist()


def test_the_covariance_is_that_of_the_prior():
    """Drawn curvatures: the quadratic parts of two rows, over 200 000 draws, within 1 %."""
    rng = np.random.default_rng(1)
    rows = rng.dirichlet(np.ones(3), size=2)
    shared, own = rng.normal(0, 3.0, size=(200_000, 1)), rng.normal(0, 1.5, size=(200_000, 3))
    curvatures = np.array([APART[pair] for pair in PAIRS]) * (shared + own)
    bent = curvatures @ np.array([rows[:, a] * rows[:, b] for a, b in PAIRS])
    expected = np.cov(bent.T, bias=True)
    np.testing.assert_allclose(curvature_covariance(rows, rows, APART, 3.0), expected, rtol=0.01)


def test_a_pair_without_a_blend_bends_as_the_others_do():
    """Two pairs measured to bend by D_ab: the third is expected to, a little less for the prior: 1 / (1 + 1/8)."""
    middle = np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])
    values = np.array([0.0, 0.0, 0.0, 1.0 / 4, 0.4 / 4])
    found = fit_polynomial(np.vstack([np.eye(3), middle]), values, np.full(5, 1e-4), APART, 1.0)
    assert found.curvatures[0, 1] == pytest.approx(1.0, abs=1e-3)
    assert found.curvatures[0, 2] == pytest.approx(0.4, abs=1e-3)
    assert found.curvatures[1, 2] == pytest.approx(0.7 / (1 + 1 / 8), abs=1e-3)
