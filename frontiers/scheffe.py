"""Scheffe's quadratic polynomial of a mixture, fitted with the errors of what was measured.

[Scheffe]    "Experiments with mixtures" (1958): the quadratic polynomial.
[Goldberger] "Best linear unbiased prediction in the generalized linear regression model" (1962).
[Allen]      "The relationship between variable selection and data augmentation and a method for prediction" (1974):
             the error of leaving one out, from the hat matrix.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

COMMON, OWN = 1.0, 0.5  # prior deviations of the curvatures in ranges: what pairs share, and each one's own beside it


@dataclass(frozen=True, eq=False)
class Polynomial:
    """One objective of a mixture of k adapters: V(x) = sum_a x_a V_a + sum_{a<b} x_a x_b c_ab  [Scheffe].

    `adapters` are the V_a, `curvatures` the c_ab, symmetric and without diagonal; `left_out` is, for each measured row,
    what it differs from the fit to all the others, NaN where the others say nothing. `rows`, `inverse` (of the
    covariance of the measurements), `apart` and `spread` are what the error of a prediction needs. All in the
    objective's units. Make it with `fit_polynomial`.

    >>> found = fit_polynomial(np.eye(2), np.array([1.0, 3.0]), np.full(2, 0.5), np.ones((2, 2)), 2.0)
    >>> found.adapters.tolist(), found.curvatures.tolist(), found.left_out.tolist()
    ([1.0, 3.0], [[0.0, 0.0], [0.0, 0.0]], [nan, nan])
    """

    adapters: Float[np.ndarray, " k"]
    curvatures: Float[np.ndarray, "k k"]
    left_out: Float[np.ndarray, " n"]
    rows: Float[np.ndarray, "n k"]
    inverse: Float[np.ndarray, "n n"]
    apart: Float[np.ndarray, "k k"]
    spread: float

    def values(self, rows: Float[np.ndarray, "q k"]) -> Float[np.ndarray, " q"]:
        """V of each row."""
        return rows @ self.adapters + ((rows @ self.curvatures) * rows).sum(axis=1) / 2

    def errors(self, rows: Float[np.ndarray, "q k"]) -> Float[np.ndarray, " q"]:
        """The standard error of each row's V: of the measurements, and of the curvature that they leave unknown.

        SE^2 = k(x, x) - k'S k + r'(X'S X)^-1 r,  r = x - X'S k, with X the measured rows, S the inverse of their
        covariance, and k that of V(x) with them  [Goldberger].
        """
        across = curvature_covariance(self.rows, rows, self.apart, self.spread)
        own = np.array([curvature_covariance(row[None], row[None], self.apart, self.spread)[0, 0] for row in rows])
        missing = rows - across.T @ self.inverse @ self.rows
        linear = np.linalg.inv(self.rows.T @ self.inverse @ self.rows)
        variance = own - ((self.inverse @ across) * across).sum(axis=0) + ((missing @ linear) * missing).sum(axis=1)
        return np.sqrt(np.maximum(variance, 0.0))


def curvature_covariance(
    rows: Float[np.ndarray, "n k"], others: Float[np.ndarray, "q k"], apart: Float[np.ndarray, "k k"], spread: float
) -> Float[np.ndarray, "n q"]:
    """How the quadratic parts of two rows vary together, before anything is measured.

    c_ab = D_ab (u + v_ab), u ~ N(0, spread^2), v_ab ~ N(0, (spread / 2)^2), D = `apart`, so that with the products
    f_ab(x) = x_a x_b D_ab of a row,

    k(x, z) = spread^2 (sum f(x) sum f(z) + f(x).f(z) / 4)

    in the objective's units squared; 0 where either row is an adapter alone.

    >>> curvature_covariance(np.full((1, 2), 0.5), np.array([[0.5, 0.5], [1.0, 0.0]]), np.ones((2, 2)), 4.0).tolist()
    [[1.25, 0.0]]
    """
    left, right = _products(rows, apart), _products(others, apart)
    shared = np.outer(left.sum(axis=1), right.sum(axis=1))
    return spread**2 * (COMMON**2 * shared + OWN**2 * left @ right.T)


def fit_polynomial(
    rows: Float[np.ndarray, "n k"],
    values: Float[np.ndarray, " n"],
    errors: Float[np.ndarray, " n"],
    apart: Float[np.ndarray, "k k"],
    spread: float,
) -> Polynomial:
    """The best linear unbiased fit: generalised least squares for the V_a, and a ridge on the c_ab  [Goldberger].

    With the inverse S of the covariance `curvature_covariance` + diag(errors^2) of the measurements y of the rows X,

    V = (X'S X)^-1 X'S y,   c = prior covariance . S (y - X V)

    A pair without a blend gets the curvature that the others share, in proportion to `apart`; without any blend all
    c_ab are 0. What is left out follows without a refit: (y_i - fit_i) / (1 - H_ii), H the hat matrix  [Allen].
    Every adapter must be measured and every error above 0.

    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    >>> found = fit_polynomial(rows, np.array([1.0, 1.0, 2.0]), np.full(3, 1e-4), np.ones((2, 2)), 1.0)
    >>> found.curvatures.round(3).tolist()
    [[0.0, 4.0], [4.0, 0.0]]
    """
    prior = curvature_covariance(rows, rows, apart, spread)
    inverse = np.linalg.inv(prior + np.diag(errors**2))
    to_adapters = np.linalg.solve(rows.T @ inverse @ rows, rows.T @ inverse)
    adapters = to_adapters @ values
    # y - fit = diag(errors^2) S (y - X V); so the rest of the hat matrix is diag(errors^2) S (1 - X to_adapters).
    unexplained = inverse @ (np.eye(len(rows)) - rows @ to_adapters)
    dual = unexplained @ values
    pull = np.diag(unexplained)
    alone = pull * errors**2 < 1e-9  # its own value is all that is known of it
    left_out = np.where(alone, np.nan, dual / np.where(alone, 1.0, pull))
    products = _products(rows, apart)
    upper = np.triu_indices(len(apart), 1)
    curvatures = np.zeros_like(apart)
    curvatures[upper] = (
        apart[upper] * spread**2 * (COMMON**2 * products.sum(axis=1) @ dual + OWN**2 * products.T @ dual)
    )
    return Polynomial(adapters, curvatures + curvatures.T, left_out, rows, inverse, apart, spread)


def _products(rows: Float[np.ndarray, "n k"], apart: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "n c"]:
    """x_a x_b D_ab of each row, for all pairs a < b."""
    a, b = np.triu_indices(len(apart), 1)
    return rows[:, a] * rows[:, b] * apart[a, b]
