"""Ridge heads in closed form: against scikit-learn, against descent on the masked loss, and head by head."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moalign.losses.regression import masked_squared_errors
from moalign.rewards.heads import PENALTIES, solve_heads


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """90 rows of 7 features of very different size and 3 labels, two of them partly missing; 30 groups."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 7)) * 10.0 ** rng.uniform(-2, 2, 7) + rng.normal(size=7)
    labels = features / features.std(axis=0) @ rng.normal(size=(7, 3)) + 2 * rng.normal(size=(90, 3)) + 5
    labels[::3, 1] = np.nan
    labels[10:60, 2] = np.nan
    return features, labels, np.repeat(np.arange(30), 3)


def test_without_penalty_it_is_least_squares(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    features, labels, groups = drawn
    heads = solve_heads(features, labels, groups, penalty=0.0)
    for j in range(3):
        known = ~np.isnan(labels[:, j])
        other = LinearRegression().fit(features[known], labels[known, j])
        np.testing.assert_allclose(heads(features)[:, j], other.predict(features), atol=1e-9)


def test_with_a_penalty_it_is_ridge_on_standardised_features(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """scikit-learn sums where we average: its alpha is the number of rows times the penalty."""
    features, labels, groups = drawn
    heads = solve_heads(features, labels, groups, penalty=0.3)
    for j in range(3):
        known = ~np.isnan(labels[:, j])
        other = make_pipeline(StandardScaler(), Ridge(alpha=0.3 * known.sum())).fit(features[known], labels[known, j])
        np.testing.assert_allclose(heads(features)[:, j], other.predict(features), atol=1e-9)


def test_descent_on_the_masked_loss_ends_there_too(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The second derivation: nothing is solved, all heads go down the gradient of one masked loss together."""
    features, labels, groups = drawn
    f = torch.tensor((features - features.mean(axis=0)) / features.std(axis=0))
    r = torch.tensor(labels)
    weight = torch.zeros(3, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-12, tolerance_change=0)

    def loss() -> torch.Tensor:
        descent.zero_grad()
        value = masked_squared_errors(f @ weight.T + bias, r).sum()
        value.backward()
        return value

    descent.step(loss)
    heads = solve_heads(features, labels, groups, penalty=0.0)
    np.testing.assert_allclose(heads(features), (f @ weight.T + bias).detach().numpy(), atol=1e-7)


def test_a_head_does_not_know_of_the_others(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Alone, on the rows that have its label, it is the same to the bit; so is the penalty that it chose."""
    features, labels, groups = drawn
    together = solve_heads(features, labels, groups)
    for j in range(3):
        known = ~np.isnan(labels[:, j])
        alone = solve_heads(features[known], labels[known, j : j + 1], groups[known])
        assert alone.penalty[0] == together.penalty[j]
        np.testing.assert_allclose(together.weight[j], alone.weight[0], rtol=1e-10)
        assert together.bias[j] == pytest.approx(alone.bias[0])


def test_the_penalty_is_the_one_of_least_error_across_folds(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """scikit-learn's own cross-validation on the same folds, which keep groups together; more noise, more penalty."""
    features, labels, groups = drawn
    rng = np.random.default_rng(5)
    labels = np.stack([labels[:, 0], labels[:, 0] + 20 * rng.normal(size=90), rng.normal(size=90)], axis=1)
    found = solve_heads(features, labels, groups).penalty
    fold = (np.random.default_rng(0).permutation(30) % 5)[groups]
    for j in range(3):
        errors = [_errors(features, labels[:, j], fold, penalty) for penalty in PENALTIES]
        assert found[j] == PENALTIES[int(np.argmin(errors))]
    assert found[0] < found[1] <= found[2]


def _errors(features: np.ndarray, labels: np.ndarray, fold: np.ndarray, penalty: float) -> float:
    """Squared error over all folds; alpha depends on how many rows each fold leaves."""
    total = 0.0
    for number in range(5):
        split = PredefinedSplit(np.where(fold == number, 0, -1))
        model = make_pipeline(StandardScaler(), Ridge(alpha=penalty * (fold != number).sum()))
        scores = cross_val_score(model, features, labels, cv=split, scoring="neg_mean_squared_error")
        total -= float(scores[0]) * float((fold == number).sum())
    return total


def test_more_features_than_rows_and_features_that_never_differ() -> None:
    """The labels are met exactly, by the shortest weights; what never differs gets none."""
    rng = np.random.default_rng(1)
    features = np.hstack([rng.normal(size=(6, 20)), np.full((6, 1), 3.0)])
    labels = rng.normal(size=(6, 1))
    heads = solve_heads(features, labels, np.arange(6), penalty=0.0)
    np.testing.assert_allclose(heads(features), labels, atol=1e-9)
    assert heads.weight[0, 20] == 0.0


def test_a_single_group_cannot_choose() -> None:
    features = np.arange(8.0).reshape(4, 2) ** 2
    assert solve_heads(features, features[:, :1], np.zeros(4, dtype=int)).penalty.tolist() == [0.1]
