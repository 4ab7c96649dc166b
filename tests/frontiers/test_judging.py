"""Weights from picks: the posterior against a grid, the next pair against enumeration, hidden weights found."""

import numpy as np
import pytest
from scipy.special import expit

from moalign.errors import DataError
from moalign.frontiers import lattice
from moalign.frontiers.judging import (
    DOUBT,
    MOST,
    SETTLED,
    THINNED,
    USUAL,
    information,
    judge,
    next_pair,
    own_units,
)

NO_PICKS = np.zeros((0, 2))


def by_grid(differences, divisions):
    """The posterior over weights by summing over a lattice of them and 200 values of log t, each term written out."""
    m = differences.shape[1]
    weights = (lattice(m, divisions) * divisions + 1 / m) / (divisions + 1)  # the middles of cells
    logs = np.linspace(np.log(USUAL) - 5 * DOUBT, np.log(USUAL) + 5 * DOUBT, 200)
    posterior = np.zeros(len(weights))
    for log_t in logs:
        prior = np.exp(-(((log_t - np.log(USUAL)) / DOUBT) ** 2) / 2)
        posterior += prior * expit(np.exp(log_t) * weights @ differences.T).prod(axis=1)
    return weights, posterior / posterior.sum()


def quantile(values, chances, level):
    order = np.argsort(values)
    return values[order][np.searchsorted(np.cumsum(chances[order]), level)]


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def front(m, n, rng):
    """Points of a concave front: sqrt(w) on the unit sphere."""
    root = np.sqrt(rng.dirichlet(np.ones(m), size=n))
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def texts(m, n, rng):
    """Scores of texts, over their ranges: all of them noisy, most of them dominated."""
    scores = rng.normal(size=(n, m))
    return scores / np.ptp(scores, axis=0)


def asked_for(hidden, candidates, picks, seed, decisiveness=None):
    """The judgement after a scripted judge, who picks by argmax or by chance, was asked so many pairs."""
    rng, asked, rows = np.random.default_rng(seed), set(), np.zeros((0, len(hidden)))
    judgement = judge(rows, seed)
    for _ in range(picks):
        pair = next_pair(candidates, judgement, asked)
        assert pair not in asked
        asked.add(pair)
        difference = candidates[pair[0]] - candidates[pair[1]]
        utility = difference @ hidden
        wins = utility > 0 if decisiveness is None else rng.random() < expit(decisiveness * utility)
        rows = np.vstack([rows, difference if wins else -difference])
        judgement = judge(rows, seed)
    return judgement


@pytest.mark.parametrize(("m", "divisions"), [(2, 400), (3, 60)])
@pytest.mark.parametrize("picks", [1, 6, 15])
def test_the_posterior_is_that_of_a_grid(m, divisions, picks):
    """Random picks, some of them contradicting each other: means, intervals and the cone to what 4,096 draws can."""
    rng = np.random.default_rng(10 * m + picks)
    differences = rng.normal(0.15, 0.4, size=(picks, m))
    weights, chances = by_grid(differences, divisions)
    found = judge(differences, seed=0)
    mean = chances @ weights
    np.testing.assert_allclose(found.mean, mean, atol=0.012)
    for j in range(m):
        ends = [quantile(weights[:, j], chances, level) for level in (0.05, 0.95)]
        np.testing.assert_allclose(found.interval[j], ends, atol=0.03)
    angles = np.degrees(np.arccos([min(cosine(row, mean), 1.0) for row in weights]))
    assert found.spread == pytest.approx(quantile(angles, chances, 0.9), abs=1.5)


@pytest.mark.parametrize("kind", [front, texts])
@pytest.mark.parametrize(("m", "picks", "seed"), [(2, 6, 0), (2, 6, 1), (3, 10, 2), (5, 20, 3)])
def test_hidden_weights_are_found_within_20_picks(kind, m, picks, seed):
    """A judge who always picks the better text: cosine 0.95 after at most 20 picks, and fewer for fewer objectives."""
    rng = np.random.default_rng([seed, m])
    hidden = rng.dirichlet(np.ones(m))
    found = asked_for(hidden, kind(m, 30, rng), picks, seed)
    assert cosine(found.mean, hidden) >= 0.95


def test_a_judge_who_errs_is_followed_too_and_less_is_claimed():
    """Picks by chance, sigma(6 w.difference): nearer to the hidden weights than at the start, with a wider cone."""
    rng = np.random.default_rng(2)
    hidden, candidates = np.array([0.7, 0.2, 0.1]), front(3, 30, rng)
    sure, erring = asked_for(hidden, candidates, 12, 0), asked_for(hidden, candidates, 12, 0, decisiveness=6.0)
    assert cosine(erring.mean, hidden) > cosine(np.ones(3), hidden)
    assert erring.spread > sure.spread
    assert np.median(erring.decisiveness) < np.median(sure.decisiveness)
    assert sure.settled
    assert sure.spread <= SETTLED < judge(np.zeros((0, 3)), seed=0).spread


def test_without_picks_it_is_the_prior():
    """Dirichlet(1, 1, 1): means 1/3, and each weight below x with chance 1 - (1 - x)^2."""
    found = judge(np.zeros((0, 3)), seed=4)
    np.testing.assert_allclose(found.mean, 1 / 3, atol=0.005)
    ends = [1 - np.sqrt(1 - level) for level in (0.05, 0.95)]
    np.testing.assert_allclose(found.interval, [ends] * 3, atol=0.01)
    assert np.median(found.decisiveness) == pytest.approx(USUAL, rel=0.01)


def test_one_objective_leaves_nothing_to_learn():
    found = judge(np.array([[0.3], [-0.2]]), seed=0)
    assert found.mean.tolist() == [1.0]
    assert found.interval.tolist() == [[1.0, 1.0]]
    assert found.spread == 0.0
    assert found.settled


def test_an_objective_that_is_flat_stays_unknown():
    """What no pair shows, no pick tells: the share of the third among all is as wide as before, the others are told."""
    rng = np.random.default_rng(0)
    candidates = front(2, 20, rng) @ np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = asked_for(np.array([0.6, 0.2, 0.2]), candidates, 10, 0)
    shares = found.draws[:, 0] / found.draws[:, :2].sum(axis=1)
    assert np.quantile(shares, 0.05) > 0.5
    assert np.ptp(found.interval[2]) > 0.5
    assert not found.settled


def test_picks_that_contradict_each_other_say_that_nobody_is_decided():
    """Each pair both ways, as often: the weights stay even, and decisiveness falls."""
    found = judge(np.array([[0.5, -0.5], [-0.5, 0.5]] * 5), seed=0)
    np.testing.assert_allclose(found.mean, 0.5, atol=0.02)
    assert np.median(found.decisiveness) < USUAL / 2
    hopeless = judge(np.array([[0.5, 0.5], [-0.5, -0.5]] * 5), seed=0)
    np.testing.assert_allclose(hopeless.mean, 0.5, atol=0.02)
    assert np.median(hopeless.decisiveness) < USUAL / 5


def test_the_same_seed_gives_the_same_draws():
    rows = np.array([[0.5, -0.4, 0.1], [0.2, 0.1, -0.3]])
    np.testing.assert_array_equal(judge(rows, 7).draws, judge(rows, 7).draws)
    assert not np.array_equal(judge(rows, 7).draws, judge(rows, 8).draws)
    np.testing.assert_allclose(judge(rows, 7).mean, judge(rows, 8).mean, atol=0.02)


def test_extreme_differences_stay_finite():
    """A reward model's units, unscaled: everything is certain, and nothing overflows."""
    found = judge(np.array([[1e6, -1e6], [-1e-9, 1e-9]]), seed=0)
    assert np.isfinite(found.draws).all()
    assert found.mean[0] > 0.5


def test_information_is_that_of_the_definition():
    """Mutual information of pick and draw, from the joint table of the draws that are looked at."""
    judgement = judge(np.array([[0.4, -0.2], [0.1, -0.3]]), seed=0)
    utility = judgement.decisiveness[:THINNED] * (judgement.draws[:THINNED] @ np.array([0.7, -0.5]))
    table = np.stack([expit(utility), expit(-utility)]) / THINNED
    alone = table.sum(axis=1, keepdims=True) * table.sum(axis=0)
    expected = (table[table > 0] * np.log2((table / alone)[table > 0])).sum()
    bits = information(np.array([[0.7, -0.5], [0.0, 0.0]]), judgement)
    assert bits == pytest.approx([expected, 0.0])


def test_few_draws_say_what_many_do():
    """Before any pick, by a sum over a grid: the draws that judge a pair are like all the others."""
    weights = (np.arange(400) + 0.5) / 400
    normal = np.linspace(-4, 4, 201)
    chance = expit(np.outer(2 * weights - 1, USUAL * np.exp(DOUBT * normal)))
    prior = np.tile(np.exp(-(normal**2) / 2), (400, 1))
    prior /= prior.sum()
    own = -(chance * np.log2(np.maximum(chance, 1e-99)) + (1 - chance) * np.log2(np.maximum(1 - chance, 1e-99)))
    expected = 1.0 - (own * prior).sum()  # both picks are as likely before any
    assert information(np.array([[1.0, -1.0]]), judge(NO_PICKS, seed=0))[0] == pytest.approx(expected, abs=0.04)


def test_the_next_pair_says_most_and_was_not_asked():
    candidates = front(2, 6, np.random.default_rng(0))
    judgement = judge(NO_PICKS, seed=0)
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    bits = information(np.array([candidates[i] - candidates[j] for i, j in pairs]), judgement)
    ranked = [pairs[i] for i in np.argsort(-bits)]
    assert next_pair(candidates, judgement) == ranked[0]
    assert next_pair(candidates, judgement, {ranked[0][::-1]}) == ranked[1]


def test_no_pair_is_left():
    judgement = judge(NO_PICKS, seed=0)
    equal = np.full((4, 2), 0.3)
    assert next_pair(equal, judgement) is None
    assert next_pair(np.zeros((1, 2)), judgement) is None
    assert next_pair(np.zeros((0, 2)), judgement) is None
    assert next_pair(np.eye(2), judgement, {(0, 1)}) is None


def test_of_thousands_a_few_are_compared():
    """The candidates at the ends are among those that lie far apart; nothing waits for two million pairs."""
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(2000, 9))
    pair = next_pair(candidates, judge(np.zeros((0, 9)), seed=0))
    gaps = np.linalg.norm(candidates[:, None, :2] - candidates[None, :50, :2], axis=-1)
    assert pair is not None
    assert np.linalg.norm(candidates[pair[0]] - candidates[pair[1]]) > np.median(gaps)
    flat = np.zeros((MOST + 5, 2))
    flat[-1] = [1.0, -1.0]
    assert next_pair(flat, judge(NO_PICKS, seed=0)) == (0, MOST + 4)


def test_own_units_rank_as_the_scaled_scores_do():
    """w.(r / s) and the result's w.r order any texts alike."""
    rng = np.random.default_rng(0)
    scores, scale, weights = rng.normal(size=(9, 3)), np.array([1.0, 20.0, 0.1]), np.array([0.2, 0.5, 0.3])
    own = own_units(weights, scale)
    assert own.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(np.argsort(scores / scale @ weights), np.argsort(scores @ own))


@pytest.mark.parametrize("differences", [np.array([[np.nan, 1.0]]), np.array([[np.inf, 1.0]]), np.zeros((2, 0))])
def test_picks_that_are_no_numbers_are_refused(differences):
    with pytest.raises(DataError, match="expected at least one objective, and finite differences"):
        judge(differences, seed=0)


def test_a_scale_and_a_pair_that_are_none_are_refused():
    with pytest.raises(DataError, match="expected numbers above 0"):
        own_units(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    with pytest.raises(DataError, match="no finite number"):
        next_pair(np.array([[0.0, np.nan], [1.0, 0.0]]), judge(NO_PICKS, seed=0))
