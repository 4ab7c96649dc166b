import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from moalign.errors import DataError
from moalign.frontiers import (
    Answers,
    attained,
    lattice,
    log_partition,
    matched_beta,
    matched_front,
    oracle_front,
    tilt,
)

ONE = np.ones(1)
TABLE = Answers(np.log([0.5, 0.3, 0.2]), np.array([[0.0], [1.0], [2.0]]))


def random_world(seed, prompts=4, m=2):
    """Prompts with 2 to 9 answers; references that are not normalised, and scores of different scales."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 10, size=prompts)
    return [Answers(rng.normal(size=a), rng.normal(size=(a, m)) * rng.choice([0.1, 1.0, 5.0])) for a in sizes]


def reference(answers):
    masses = np.exp(answers.log_reference)
    return masses / masses.sum()


def divergence(p, q):
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


def test_the_table():
    """p exp(r / .5) = .5, .3 e^2, .2 e^4, over their sum 13.6364."""
    phi = tilt(TABLE, ONE, 0.5)
    masses = np.array([0.5, 0.3 * np.exp(2), 0.2 * np.exp(4)])
    np.testing.assert_allclose(phi, masses / masses.sum(), rtol=1e-14)
    np.testing.assert_allclose(phi, [0.03667, 0.16256, 0.80077], atol=5e-6)
    values, kl = attained([TABLE], ONE, 0.5)
    assert values[0] == pytest.approx(1.76411, abs=5e-6)
    assert kl == pytest.approx(0.91548, abs=5e-6)
    assert kl == pytest.approx(divergence(phi, np.array([0.5, 0.3, 0.2])), abs=1e-14)
    assert log_partition(TABLE, ONE, 0.5) == pytest.approx(np.log(masses.sum()), abs=1e-14)


@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_what_can_be_had_and_what_is_missed(seed, beta):
    """E_pi[w.r] - beta KL(pi || ref) = beta log Z - beta KL(pi || pi*), for any policy pi."""
    rng = np.random.default_rng(seed)
    (answers,), weights = random_world(seed, prompts=1, m=3), rng.dirichlet(np.ones(3))
    policy = rng.dirichlet(np.ones(len(answers.log_reference)))
    had = policy @ answers.scores @ weights - beta * divergence(policy, reference(answers))
    missed = beta * divergence(policy, tilt(answers, weights, beta))
    assert had == pytest.approx(beta * log_partition(answers, weights, beta) - missed, rel=1e-12, abs=1e-12)


def test_a_mixture_of_logits_is_the_tilt_of_the_mixture():
    """For sum w = 1 and one beta: pi*_w is proportional to prod_k (pi*_k)^(w_k)."""
    (answers,), weights = random_world(0, prompts=1, m=3), np.array([0.5, 0.3, 0.2])
    product = np.prod([tilt(answers, corner, 0.7) ** w for corner, w in zip(np.eye(3), weights, strict=True)], axis=0)
    np.testing.assert_allclose(tilt(answers, weights, 0.7), product / product.sum(), rtol=1e-12)


def test_no_policy_of_equal_kl_does_better():
    """600 random policies of a world of four prompts; half are tilts themselves, at another beta for each prompt."""
    world, weights, rng = random_world(1), np.array([0.6, 0.4]), np.random.default_rng(0)
    references = [reference(answers) for answers in world]
    nearest = math.inf
    for trial in range(600):
        if trial % 2:
            policies = [tilt(a, weights, beta) for a, beta in zip(world, rng.lognormal(size=4), strict=True)]
        else:
            policies = [rng.dirichlet(10 * p + 0.1) for p in references]
        kl = float(np.mean([divergence(p, q) for p, q in zip(policies, references, strict=True)]))
        had = np.mean([p @ a.scores @ weights for p, a in zip(policies, world, strict=True)])
        best = matched_front(world, weights[None], np.array([kl]))[0] @ weights
        assert had <= best + 1e-10
        nearest = min(nearest, best - had)
    assert nearest < 0.01  # the tries came close enough to mean something


def test_the_slope_is_the_variance():
    """d E[w.r] / d(1/beta) = Var[w.r] under the tilt, by central differences."""
    t, step = 1 / 0.7, 1e-5
    above, below = (attained([TABLE], ONE, 1 / (t + sign * step))[0][0] for sign in (1, -1))
    phi = tilt(TABLE, ONE, 0.7)
    mean = phi @ TABLE.scores[:, 0]
    assert (above - below) / (2 * step) == pytest.approx(phi @ (TABLE.scores[:, 0] - mean) ** 2, rel=1e-8)


def test_best_of_four_lies_under_the_curve():
    """P(best of 4 is 0) = .5^4, is <= 1: .8^4: (.0625, .3471, .5904); its KL, .5598, is below log 4 - 3/4 = .6363."""
    best_of = np.diff([0.0, 0.5**4, 0.8**4, 1.0])
    np.testing.assert_allclose(best_of, [0.0625, 0.3471, 0.5904], atol=1e-12)
    kl = divergence(best_of, np.array([0.5, 0.3, 0.2]))
    assert kl == pytest.approx(0.5598, abs=5e-5)
    assert kl <= np.log(4) - 3 / 4
    value = best_of @ TABLE.scores[:, 0]
    at_equal_kl = matched_front([TABLE], np.ones((1, 1)), np.array([kl]))[0, 0]
    assert value < at_equal_kl == pytest.approx(1.55016, abs=5e-6)


@given(st.integers(0, 10_000), st.floats(-3, 5))
def test_matched_beta_inverts_attained(seed, log_beta):
    """As a KL to rounding, whatever the beta; and as a beta, where the KL still depends on it."""
    world, weights, beta = random_world(seed), np.array([0.3, 0.7]), math.exp(log_beta)
    _, kl = attained(world, weights, beta)
    found = matched_beta(world, weights, kl)
    assert attained(world, weights, found)[1] == pytest.approx(kl, abs=1e-10)
    if 1e-4 < kl < 0.9 * attained(world, weights, 0.0)[1]:
        assert found == pytest.approx(beta, rel=1e-6)


def test_the_ends_of_beta():
    """inf: the reference, KL 0, log Z 0. 0: the best answers in the reference's proportions."""
    answers = Answers(np.log([0.5, 0.3, 0.2]), np.array([[0.0], [1.0], [1.0]]))
    np.testing.assert_allclose(tilt(answers, ONE, math.inf), [0.5, 0.3, 0.2], rtol=1e-14)
    assert attained([answers], ONE, math.inf)[1] == 0.0
    assert log_partition(answers, ONE, math.inf) == pytest.approx(0.0, abs=1e-15)
    np.testing.assert_allclose(tilt(answers, ONE, 0.0), [0.0, 0.6, 0.4], rtol=1e-14)
    assert attained([answers], ONE, 0.0)[1] == pytest.approx(-np.log(0.5))


def test_the_ends_of_kl():
    """None: inf. As much as the best answers cost, log 5 here, or more: 0. A hair less: a beta above 0."""
    dearest = attained([TABLE], ONE, 0.0)[1]
    assert dearest == pytest.approx(np.log(5))
    assert [matched_beta([TABLE], ONE, kl) for kl in (-1.0, 0.0, 1e-13)] == [math.inf] * 3
    assert [matched_beta([TABLE], ONE, kl) for kl in (dearest, 9.0)] == [0.0, 0.0]
    nearly = matched_beta([TABLE], ONE, float(np.nextafter(dearest, 0.0)))
    assert 0 < nearly < 0.05
    small = matched_beta([TABLE], ONE, 1e-8)
    assert small == pytest.approx(np.sqrt(0.61 / 2e-8), rel=1e-3)  # KL ~ Var / (2 beta^2), Var = .61


def test_equally_good_answers_leave_the_reference():
    """The utility is flat within each prompt, though not between them."""
    world = [Answers(np.log([0.5, 0.5]), np.full((2, 1), float(level))) for level in range(3)]
    assert matched_beta(world, ONE, 0.3) == 0.0
    values, kl = attained(world, ONE, 0.0)
    assert (values.tolist(), kl) == ([1.0], 0.0)


def test_no_overflow():
    """Utilities of 1e6, references of e^-800, betas of 1e-300: finite, and the KL is that of the best answer."""
    answers = Answers(np.array([0.0, -800.0]), np.array([[-1e6], [1e6]]))
    for beta in (1e-300, 1e-3, 1.0):
        values, kl = attained([answers], ONE, beta)
        assert (values[0], kl) == (1e6, pytest.approx(800.0))
    assert log_partition(answers, ONE, 1.0) == pytest.approx(1e6 - 800)


def test_the_reference_is_normalised_and_shifts_of_the_score_cancel():
    shifted = Answers(TABLE.log_reference + 3.0, TABLE.scores - 7.0)
    np.testing.assert_allclose(tilt(shifted, ONE, 0.5), tilt(TABLE, ONE, 0.5), rtol=1e-13)
    assert log_partition(shifted, ONE, 0.5) == pytest.approx(log_partition(TABLE, ONE, 0.5) - 7 / 0.5)


@pytest.mark.parametrize("beta", [0.0, 1e-300, 0.5, math.inf])
def test_impossible_answers_stay_impossible(beta):
    """The third answer is the best and has probability 0: as if it were not there."""
    answers = Answers(np.array([np.log(0.5), np.log(0.5), -np.inf]), np.array([[0.0], [1.0], [50.0]]))
    without = Answers(answers.log_reference[:2], answers.scores[:2])
    np.testing.assert_allclose(tilt(answers, ONE, beta), [*tilt(without, ONE, beta), 0.0], rtol=1e-14)
    assert attained([answers], ONE, beta)[1] == pytest.approx(attained([without], ONE, beta)[1], abs=1e-15)


def test_every_prompt_counts_the_same():
    """The mean of the prompts alone, however many answers each has."""
    world, weights = random_world(5), np.array([0.5, 0.5])
    alone = [attained([answers], weights, 0.8) for answers in world]
    values, kl = attained(world, weights, 0.8)
    np.testing.assert_allclose(values, np.mean([v for v, _ in alone], axis=0), rtol=1e-12)
    assert kl == pytest.approx(np.mean([k for _, k in alone]), rel=1e-12)


def test_fronts_are_their_points():
    world, weights = random_world(6, m=3), lattice(3, 2)
    values, kls = oracle_front(world, weights, 0.4)
    for row, value, kl in zip(weights, values, kls, strict=True):
        expected, expected_kl = attained(world, row, 0.4)
        np.testing.assert_array_equal(value, expected)
        assert kl == expected_kl
    np.testing.assert_allclose(matched_front(world, weights, kls), values, atol=1e-9)


def test_no_weights_give_no_points():
    world = random_world(7)
    values, kls = oracle_front(world, np.zeros((0, 2)), 1.0)
    assert (values.shape, kls.shape) == ((0, 2), (0,))
    assert matched_front(world, np.zeros((0, 2)), np.zeros(0)).shape == (0, 2)


def test_arguments_are_not_changed(immutable):
    weights = np.array([1.0])
    for array in (TABLE.log_reference, TABLE.scores):
        array.flags.writeable = False
    immutable(tilt, TABLE, weights, 0.5)
    immutable(matched_front, [TABLE], weights[None], np.array([0.3]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Answers(np.zeros(2), np.array([[0.0], [np.nan]])), "NaN or infinite"),
        (lambda: Answers(np.full(2, -np.inf), np.zeros((2, 1))), "at least one of them a number"),
        (lambda: Answers(np.array([0.0, np.nan]), np.zeros((2, 1))), "at least one of them a number"),
        (lambda: Answers(np.zeros(0), np.zeros((0, 1))), "at least one of them a number"),
        (lambda: tilt(TABLE, ONE, -1.0), "beta is -1.0; expected a number >= 0"),
        (lambda: attained([TABLE], ONE, math.nan), "beta is nan"),
        (lambda: log_partition(TABLE, ONE, 0.0), "expected beta > 0"),
        (lambda: attained([], ONE, 1.0), "no prompts"),
        (lambda: attained([TABLE, Answers(np.zeros(1), np.zeros((1, 2)))], ONE, 1.0), "number of objectives"),
        (lambda: matched_beta([TABLE], ONE, math.nan), "KL to match is NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_scores_of_another_length():
    """Refused with a line of its own, or by the shape check where that is on."""
    with pytest.raises((DataError, TypeCheckError), match=r"one row of scores per answer|scores"):
        Answers(np.zeros(2), np.zeros((3, 1)))
