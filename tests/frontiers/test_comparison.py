"""The tests of one front against another: exact where they can be counted, and calibrated where they cannot."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from moalign.errors import DataError
from moalign.frontiers import compare_draws, compare_fronts, hypervolume, resampled_fronts

Z = np.zeros(2)


def front(height=0.0, points=5):
    x = np.linspace(0, 1, points)
    return np.column_stack([1 + x, 2 - x**2]) + height


def noisy(count, height=0.0, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    return [front(height) + rng.normal(0, noise, size=(1, 2)) for _ in range(count)]


def squares(*sides):
    """Fronts of one point, whose volumes are the sides."""
    return [np.array([[side, 1.0]]) for side in sides]


def test_the_permutation_test_by_hand():
    """Volumes 5, 6, 7 against 1, 2: of the C(5, 3) = 10 ways only this one has a difference of 4.5, none of -4.5."""
    found = compare_fronts(squares(5.0, 6.0, 7.0), squares(1.0, 2.0), Z, np.random.default_rng(0))
    assert found.difference == pytest.approx(4.5)
    assert found.p == pytest.approx(1 / 10)
    assert not found.significant


def test_it_is_all_ways_to_deal_the_fronts():
    """Random volumes, 4 against 5: the share of the 126 ways with at least this difference, either way."""
    volumes = np.random.default_rng(1).uniform(1, 2, size=9)
    found = compare_fronts(squares(*volumes[:4]), squares(*volumes[4:]), Z, np.random.default_rng(0))
    ways = []
    for chosen in combinations(range(9), 4):
        rest = [i for i in range(9) if i not in chosen]
        ways.append(abs(volumes[list(chosen)].mean() - volumes[rest].mean()))
    assert len(ways) == comb(9, 4)
    assert found.p == pytest.approx(np.mean(np.array(ways) >= ways[0] - 1e-12))


def test_equal_fronts_are_not_told_apart():
    same = noisy(6)
    found = compare_fronts(same, same, Z, np.random.default_rng(0))
    assert (found.difference, found.p) == (0.0, 1.0)
    assert found.low < 0 < found.high


def test_a_shift_is_told_from_noise():
    """Five seeds a side; a shift of four deviations of the noise is seen, and the interval lies above 0."""
    found = compare_fronts(noisy(5, 0.4, seed=1), noisy(5, 0.0, seed=2), Z, np.random.default_rng(0))
    assert found.significant
    assert 0 < found.low < found.difference < found.high
    back = compare_fronts(noisy(5, 0.0, seed=2), noisy(5, 0.4, seed=1), Z, np.random.default_rng(0))
    assert back.difference == pytest.approx(-found.difference)
    assert back.p == found.p


def test_many_fronts_are_dealt_at_random():
    """C(24, 12) = 2.7 million ways: 10 000 of them; a p of 0 is not to be had, and the seed decides."""
    volumes = np.random.default_rng(4).normal(3.0, 0.2, size=24)
    groups = squares(*volumes[:12]), squares(*volumes[12:])
    found = compare_fronts(*groups, Z, np.random.default_rng(0))
    normal = abs(volumes[:12].mean() - volumes[12:].mean()) / (volumes.std(ddof=1) * np.sqrt(2 / 12))
    assert found.p == compare_fronts(*groups, Z, np.random.default_rng(0)).p
    assert found.p == pytest.approx(2 * tail_of_a_normal(normal), abs=0.03)
    apart = compare_fronts(squares(*volumes[:12] + 9), groups[1], Z, np.random.default_rng(0))
    assert apart.p == pytest.approx(1 / 10_001)


def tail_of_a_normal(z):
    draws = np.random.default_rng(0).normal(size=1_000_000)
    return float((draws > z).mean())


def test_the_permutation_test_errs_as_often_as_it_says():
    """Without a difference, p <= 0.05 in at most 5 % of 300 worlds of 4 against 4, within three deviations."""
    rng = np.random.default_rng(3)
    worlds = [squares(*rng.uniform(1, 2, size=8)) for _ in range(300)]
    wrong = sum(compare_fronts(one[:4], one[4:], Z, rng, resamples=2).significant for one in worlds)
    assert wrong <= 300 * 0.05 + 3 * np.sqrt(300 * 0.05 * 0.95)
    assert wrong > 0


def test_draws_are_paired():
    """A constant gain under noise ten times as large: every draw shows it."""
    rng = np.random.default_rng(0)
    second = front() + rng.normal(0, 0.3, size=(200, 1, 2))
    first = second + 0.03
    found = compare_draws(first, second, Z)
    assert found.significant
    assert found.p == pytest.approx(2 / 201)
    shuffled = compare_draws(first[rng.permutation(200)], second, Z)
    assert not shuffled.significant
    assert shuffled.difference == pytest.approx(found.difference)
    assert shuffled.high - shuffled.low > 5 * (found.high - found.low)


def test_draws_of_one_front_against_itself_show_nothing():
    draws = front() + np.random.default_rng(0).normal(0, 0.1, size=(50, 5, 2))
    found = compare_draws(draws, draws, Z)
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_interval_over_prompts_covers_the_truth():
    """100 worlds of 60 prompts; methods A and B differ by a known volume; 88 % to 99 % of the intervals have it."""
    rng = np.random.default_rng(11)
    first, second = front(0.2), front()
    truth = hypervolume(first, Z) - hypervolume(second, Z)
    covered = 0
    for _ in range(100):
        hard = rng.normal(0, 0.3, size=(60, 2))
        scores = [point + hard + rng.normal(0, 0.05, size=(60, 2)) for point in np.vstack([first, second])]
        draws = resampled_fronts(scores, np.arange(60), rng, 100)
        found = compare_draws(draws[:, :5], draws[:, 5:], Z)
        covered += found.low <= truth <= found.high
    assert 88 <= covered <= 99


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="2 draws of the first front and 1 of the second; expected as many of both"):
        compare_draws(np.zeros((2, 1, 2)), np.zeros((1, 1, 2)), Z)
    with pytest.raises(DataError, match="0 fronts against 1; expected at least one of both"):
        compare_fronts([], [front()], Z, np.random.default_rng(0))
