"""How rewards agree with labels: against scipy, against enumeration, and where nothing is defined."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from moalign.rewards.metrics import PairAccuracy, pair_accuracy, r_squared, rank_correlation


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards, labels and prompts of 80 rows, with ties in each."""
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 6, 80).astype(float)
    return np.round(labels + 2 * rng.normal(size=80), 0), labels, rng.integers(0, 9, 80)


def by_enumeration(rewards: np.ndarray, labels: np.ndarray, pairs: list[tuple[int, int]]) -> tuple[float, int]:
    """Each pair turned so that the higher label comes first; 1 if its reward is higher, 1/2 if they are equal."""
    kept = [(i, j) if labels[i] > labels[j] else (j, i) for i, j in pairs if labels[i] != labels[j]]
    return float(np.mean([(rewards[i] > rewards[j]) + 0.5 * (rewards[i] == rewards[j]) for i, j in kept])), len(kept)


def test_pairs_of_one_prompt(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rewards, labels, prompts = drawn
    pairs = [pair for pair in itertools.combinations(range(80), 2) if prompts[pair[0]] == prompts[pair[1]]]
    share, count = by_enumeration(rewards, labels, pairs)
    found = pair_accuracy(rewards, labels, prompts)
    assert found == PairAccuracy(pytest.approx(share), count, True)
    assert 0.6 < share < 0.9


def test_all_pairs_where_a_prompt_comes_once(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """A single prompt that happens to come twice does not make a statistic of one pair."""
    rewards, labels, _ = drawn
    share, count = by_enumeration(rewards, labels, list(itertools.combinations(range(80), 2)))
    for prompts in (np.arange(80), np.array([0, *range(79)])):
        assert pair_accuracy(rewards, labels, prompts) == PairAccuracy(pytest.approx(share), count, False)


def test_rank_correlation_is_scipys(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rewards, labels, _ = drawn
    assert rank_correlation(rewards, labels) == pytest.approx(spearmanr(rewards, labels).statistic)


def test_r2_of_known_predictors(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The mean explains nothing, the least-squares line as much as the squared correlation, the labels all."""
    rewards, labels, _ = drawn
    slope, intercept = np.polyfit(rewards, labels, 1)
    assert r_squared(np.full(80, labels.mean()), labels) == pytest.approx(0)
    assert r_squared(slope * rewards + intercept, labels) == pytest.approx(np.corrcoef(rewards, labels)[0, 1] ** 2)
    assert r_squared(labels, labels) == 1.0


def test_what_is_not_defined_is_nan() -> None:
    """Labels all alike, rewards all alike, one row, no row."""
    same, other = np.ones(3), np.array([1.0, 2.0, 3.0])
    assert math.isnan(r_squared(other, same))
    assert math.isnan(rank_correlation(other, same))
    assert math.isnan(rank_correlation(same, other))
    share, pairs, same_prompt = pair_accuracy(other, same, np.zeros(3, dtype=int))
    assert (math.isnan(share), pairs, same_prompt) == (True, 0, False)
    assert pair_accuracy(same, other, np.arange(3)).share == 0.5
    assert math.isnan(rank_correlation(other[:1], other[:1]))
    assert math.isnan(r_squared(other[:0], other[:0]))
    assert math.isnan(pair_accuracy(other[:0], other[:0], np.arange(0)).share)
