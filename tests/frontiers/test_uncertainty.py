import numpy as np
import pytest

from moalign.frontiers import bootstrap_interval, clustered_mean


def grouped(prompts, answers, between, within, rng):
    """Scores with a common part per prompt, standard deviation `between`, and a part of their own, `within`."""
    scores = rng.normal(0, between, (prompts, 1)) + rng.normal(0, within, (prompts, answers))
    return scores.reshape(-1, 1), np.repeat(np.arange(prompts), answers)


def test_by_hand(immutable):
    """Prompts (0,2), (4,6), (5,7): prompt means 1, 5, 6, mean 4, deviations -3, 1, 2: SE = sqrt(14/2/3)."""
    scores, cluster = np.array([[0.0], [2.0], [4.0], [6.0], [5.0], [7.0]]), np.array([0, 0, 1, 1, 2, 2])
    mean, error = immutable(clustered_mean, scores, cluster)
    assert (mean[0], error[0]) == (pytest.approx(4.0), pytest.approx(np.sqrt(14 / 2 / 3)))


def test_prompts_of_different_size():
    """(0,3) and (9): mean 4; residual sums -5 and 5; SE^2 = 2/1 * 50 / 9."""
    mean, error = clustered_mean(np.array([[0.0], [3.0], [9.0]]), np.array(["a", "a", "b"]))
    assert (mean[0], error[0]) == (pytest.approx(4.0), pytest.approx(np.sqrt(100 / 9)))


def test_one_answer_per_prompt_is_the_usual_standard_error():
    scores = np.random.default_rng(0).normal(size=(50, 3))
    mean, error = clustered_mean(scores, np.arange(50))
    np.testing.assert_allclose(mean, scores.mean(axis=0))
    np.testing.assert_allclose(error, scores.std(axis=0, ddof=1) / np.sqrt(50))


def test_copies_of_an_answer_are_no_news():
    """Each answer four times: the error stays, where the usual one would halve."""
    scores, cluster = grouped(30, 2, 1.0, 1.0, np.random.default_rng(0))
    once, copied = clustered_mean(scores, cluster), clustered_mean(np.repeat(scores, 4, 0), np.repeat(cluster, 4))
    np.testing.assert_allclose(once, copied)


def test_labels_and_order_do_not_matter():
    rng = np.random.default_rng(1)
    scores, cluster = grouped(10, 3, 1.0, 1.0, rng)
    shuffle = rng.permutation(30)
    names = np.array([f"prompt {i}" for i in cluster])
    np.testing.assert_allclose(clustered_mean(scores, cluster), clustered_mean(scores[shuffle], names[shuffle]))


def test_the_error_is_right_on_average():
    """Var of the mean of 40 prompts of 5 answers is (between^2 + within^2 / 5) / 40 = .03; so is the mean SE^2."""
    rng = np.random.default_rng(0)
    squares = [clustered_mean(*grouped(40, 5, 1.0, 1.0, rng))[1][0] ** 2 for _ in range(400)]
    assert np.mean(squares) == pytest.approx((1 + 1 / 5) / 40, rel=0.05)


def test_one_prompt_says_nothing_about_the_error():
    scores, cluster = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([7, 7])
    mean, error = clustered_mean(scores, cluster)
    assert mean.tolist() == [2.0, 5.0]
    assert np.isnan(error).all()
    interval = bootstrap_interval(scores, cluster, np.random.default_rng(0))
    assert interval.tolist() == [[2.0, 2.0], [5.0, 5.0]]


def test_nothing_and_nan():
    """No scores: NaN everywhere. A NaN stays in its own objective."""
    rng = np.random.default_rng(0)
    none, no_labels = np.zeros((0, 2)), np.zeros(0, dtype=int)
    assert np.isnan(clustered_mean(none, no_labels)).all()
    assert np.isnan(bootstrap_interval(none, no_labels, rng)).all()
    broken, cluster = np.array([[1.0, np.nan], [2.0, 1.0], [3.0, 1.0]]), np.arange(3)
    assert np.isnan(clustered_mean(broken, cluster)).tolist() == [[False, True], [False, True]]
    assert np.isnan(bootstrap_interval(broken, cluster, rng)).tolist() == [[False, False], [True, True]]


def test_the_interval_is_the_normal_one_for_many_prompts(immutable):
    """mean +- 1.96 SE, to a tenth of SE."""
    scores, cluster = grouped(200, 3, 1.0, 1.0, np.random.default_rng(3))
    mean, error = clustered_mean(scores, cluster)
    interval = immutable(bootstrap_interval, scores, cluster, np.random.default_rng(0), 0.95, 4000)
    np.testing.assert_allclose(interval[0], mean[0] + np.array([-1.96, 1.96]) * error[0], atol=0.1 * error[0])


def test_the_interval_covers():
    """Of 100 worlds, about 90 of the 90 % intervals hold the true mean, 0; ignoring the prompts, far fewer."""
    rng = np.random.default_rng(0)
    held = ignoring = 0
    for _ in range(100):
        scores, cluster = grouped(40, 5, 1.0, 0.5, rng)
        low, high = bootstrap_interval(scores, cluster, rng, level=0.9, resamples=200)[0]
        held += low <= 0 <= high
        low, high = bootstrap_interval(scores, np.arange(len(scores)), rng, level=0.9, resamples=200)[0]
        ignoring += low <= 0 <= high
    assert 82 <= held <= 97
    assert ignoring < 70


def test_a_wider_level_holds_the_narrower_and_a_seed_repeats():
    scores, cluster = grouped(20, 3, 1.0, 1.0, np.random.default_rng(5))
    narrow, wide, again = (
        bootstrap_interval(scores, cluster, np.random.default_rng(0), level=level)[0] for level in (0.5, 0.95, 0.5)
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert narrow.tolist() == again.tolist()
