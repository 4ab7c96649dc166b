"""The gradient weighter: the numbers of the paper's release, mirror descent's own identities, and each setting."""

import json
import math

import numpy as np
import pytest

from moalign.errors import ConfigError
from moalign.weighting import Gradient, Observation

ROWS = np.array([[1.0, 0.0], [0.0, 2.0], [-0.5, 0.0]])
UNIFORM = np.full(3, 1 / 3)


def move(weighter, *gradients, rate=1e-3):
    """The weights after each of the matrices whose rows are the objectives' gradients."""
    found = []
    for step, rows in enumerate(gradients):
        seen = Observation(step, np.zeros((2, len(rows))), rate, gram=rows @ rows.T)
        found.append(weighter.update(seen).weights)
    return found


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def test_the_numbers_of_the_authors_code():
    """I = (1 - .5, 4, -.5 + .25) = (.5, 4, -.25) and eta / mu = .1."""
    weighter = Gradient(UNIFORM, clip=None)
    (weights,) = move(weighter, ROWS)
    assert weights == pytest.approx([0.298792, 0.424006, 0.277202], abs=5e-7)
    assert weights == pytest.approx(softmax(np.array([0.05, 0.4, -0.025])))
    assert weighter.state_dict()["influence"] == [0.5, 4.0, -0.25]


def test_the_first_weights_are_the_preference():
    """A Gram of zero moves nothing; a preference of 0 starts at the floor of the logarithm."""
    assert move(Gradient(np.array([0.7, 0.3])), np.zeros((2, 2)))[0] == pytest.approx([0.7, 0.3], rel=1e-12)
    corner = move(Gradient(np.array([1.0, 0.0])), np.zeros((2, 2)))[0]
    assert 0 < corner[1] < 1e-11


def test_steps_add_up_in_the_logarithm():
    """w(t) ~ w(0) exp(sum of eta I / mu), whatever the path: the normalisation of each step cancels."""
    path = np.random.default_rng(0).normal(size=(30, 3, 5)) / 4
    preference = np.array([0.2, 0.5, 0.3])
    total = sum((rows @ rows.sum(axis=0) for rows in path), np.zeros(3))
    found = move(Gradient(preference, clip=None, mu=0.05), *path)[-1]
    assert found == pytest.approx(softmax(np.log(preference) + 1e-3 / 0.05 * total), rel=1e-10)


def test_the_sign_of_all_gradients_does_not_matter():
    assert move(Gradient(UNIFORM), ROWS)[0].tolist() == move(Gradient(UNIFORM), -ROWS)[0].tolist()


def test_a_saturated_objective_loses_weight():
    """No gradient, no influence; the two that agree share what it loses."""
    weights = move(Gradient(UNIFORM), *[np.array([[1.0, 0.2], [0.8, 0.1], [0.0, 0.0]])] * 50)
    assert all(np.diff([w[2] for w in weights]) < 0)
    assert weights[-1][2] < 0.01


def test_long_gradients_are_clipped_each_by_itself():
    """ROWS at norm 1: (1, 0), (0, 1), (-.5, 0), so I = (.5, 1, -.25); at norm .5 the influence is bounded by m / 4."""
    weighter = Gradient(UNIFORM, clip=1.0)
    move(weighter, ROWS)
    assert weighter.state_dict()["influence"] == [0.5, 1.0, -0.25]
    half = Gradient(UNIFORM, clip=0.5)
    move(half, 1e6 * np.random.default_rng(1).normal(size=(3, 4)))
    assert np.abs(half.state_dict()["influence"]).max() <= 3 * 0.25 + 1e-9


def test_without_itself_only_the_others_count():
    weighter = Gradient(UNIFORM, clip=None, include_self=False)
    move(weighter, ROWS)
    assert weighter.state_dict()["influence"] == [-0.5, 0.0, -0.5]


def test_cosines_do_not_depend_on_the_gradients_lengths():
    """cos of ROWS: (1, 0, -1), (0, 1, 0), (-1, 0, 1): I = (0, 1, 0), however long; a zero row has 0 with all."""
    for lengths in ([1, 1, 1], [1e-3, 5, 1e4]):
        weighter = Gradient(UNIFORM, influence="cosine")
        move(weighter, np.array(lengths)[:, None] * ROWS)
        assert weighter.state_dict()["influence"] == pytest.approx([0, 1, 0], abs=1e-12)
    zero = Gradient(UNIFORM, influence="cosine")
    move(zero, np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    assert zero.state_dict()["influence"] == pytest.approx([1 + math.sqrt(0.5), 1 + math.sqrt(0.5), 0])


def test_accumulated_influences_move_the_weights_by_their_mean():
    """Nothing moves for two steps; the third moves by the mean of three, at its own learning rate."""
    path = np.random.default_rng(3).normal(size=(6, 3, 4)) / 2
    influences = np.array([rows @ rows.sum(axis=0) for rows in path])
    found = move(Gradient(UNIFORM, accumulate=3, clip=None), *path)
    for step in (0, 1):
        assert found[step] == pytest.approx(UNIFORM)
    first = 0.1 * influences[:3].mean(axis=0)
    assert found[2] == pytest.approx(softmax(first))
    assert found[4].tolist() == found[2].tolist()
    assert found[5] == pytest.approx(softmax(first + 0.1 * influences[3:].mean(axis=0)))


def test_the_minimum_is_exact_and_the_start_is_still_the_preference():
    """Driven to a corner by 400 steps, the others keep exactly the minimum; the sum stays 1."""
    preference = np.array([0.6, 0.3, 0.1])
    weighter = Gradient(preference, minimum=0.05)
    assert move(weighter, np.zeros((3, 2)))[0] == pytest.approx(preference, rel=1e-12)
    last = move(weighter, *[np.array([[1.0, 0.0], [-0.1, 0.0], [-0.1, 0.0]])] * 2000)[-1]
    assert last == pytest.approx([0.9, 0.05, 0.05], rel=1e-12)
    assert last.min() >= 0.05
    below = move(Gradient(np.array([1.0, 0.0]), minimum=0.2), np.zeros((2, 2)))[0]
    assert below == pytest.approx([0.8, 0.2])


def test_weights_stay_finite_however_far_they_are_driven():
    """A log-weight of -1e6 is a weight of 0, and the way back is as long as the way there."""
    apart, back = np.array([[30.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [30.0, 0.0]])
    weighter = Gradient(np.array([0.5, 0.5]), clip=None, mu=1e-3)
    assert move(weighter, *[apart] * 1000)[-1].tolist() == [1.0, 0.0]
    assert move(weighter, *[back] * 1000)[-1] == pytest.approx([0.5, 0.5], rel=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gram_that_is_not_finite_is_passed_over(accumulate):
    path = np.random.default_rng(4).normal(size=(4, 3, 4))
    plain, disturbed = (Gradient(UNIFORM, accumulate=accumulate) for _ in range(2))
    expected = move(plain, *path)[-1]
    for rows in path:
        (found,) = move(disturbed, rows)
        (same,) = move(disturbed, np.full((3, 4), math.nan))
        assert same.tolist() == found.tolist()
    assert found.tolist() == expected.tolist()


def test_a_gram_that_is_not_there_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="weighting 'gradient' needs the Gram matrix"):
        Gradient(UNIFORM).update(Observation(0, np.zeros((2, 3)), 1e-3))


def test_it_goes_on_from_its_state_between_two_moves():
    path = np.random.default_rng(5).normal(size=(7, 3, 4))
    whole, start, resumed = (Gradient(UNIFORM, accumulate=3, minimum=0.01) for _ in range(3))
    expected = move(whole, *path)
    move(start, *path[:4])
    resumed.load_state_dict(json.loads(json.dumps(start.state_dict())))
    assert resumed.state_dict() == start.state_dict()
    for found, same in zip(move(resumed, *path[4:]), expected[4:], strict=True):
        assert found.tolist() == same.tolist()


@pytest.mark.parametrize(
    "settings",
    [{"mu": 0.0}, {"mu": math.nan}, {"accumulate": 0}, {"clip": 0.0}, {"clip": math.nan}]
    + [{"minimum": value} for value in (-0.1, 1 / 3, 0.5, math.nan)],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"weighting 'gradient': {next(iter(settings))} is .*; expected"):
        Gradient(UNIFORM, **settings)
