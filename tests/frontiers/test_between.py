"""What may lie between two points, on fronts whose every point is known."""

import numpy as np
import pytest

from moalign.frontiers import hypervolume
from moalign.frontiers.between import expected_between, expected_gain, gain_noise, most_between


def parabola(slopes: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Points of y = 1 - x^2 and the weights for which each is the best: w ~ (2x, 1), the normal there."""
    x = np.array(slopes)
    weights = np.stack([2 * x, np.ones_like(x)], axis=1)
    return np.stack([x, 1 - x**2], axis=1), weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("left", "right"), [(0.0, 1.0), (0.2, 0.5), (0.7, 0.71)])
def test_on_a_parabola_the_expectation_is_exact(left: float, right: float) -> None:
    """The tangents of 1 - x^2 at a and b meet at ((a + b)/2, 1 - ab); the curve itself is at 1 - ((a + b)/2)^2."""
    values, weights = parabola([left, right])
    middle = (left + right) / 2
    np.testing.assert_allclose(most_between(values, weights, (0, 1)), [middle, 1 - left * right], atol=1e-9)
    np.testing.assert_allclose(expected_between(values, weights, (0, 1)), [middle, 1 - middle**2], atol=1e-9)


def test_other_points_bound_what_can_lie_between() -> None:
    """A third adapter on the curve, between the two, leaves only its own tangent's room."""
    values, weights = parabola([0.0, 0.5, 1.0])
    third = most_between(values, weights, (0, 2))
    assert (weights @ third <= (weights @ values.T).max(1) + 1e-9).all()
    assert third @ weights[1] == pytest.approx(values[1] @ weights[1])


def test_units_do_not_matter() -> None:
    values, weights = parabola([0.1, 0.8])
    scale = np.array([1e4, 1e-3])
    turned = weights / scale
    turned /= turned.sum(1, keepdims=True)
    found = most_between(values * scale, turned, (0, 1)) / scale
    np.testing.assert_allclose(found, most_between(values, weights, (0, 1)), rtol=1e-6)


def test_three_objectives_stay_in_the_box_and_under_all_tangents() -> None:
    """On the unit sphere, whose normal is the point itself, nothing found goes past a tangent plane."""
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=(12, 3)))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    weights = values / values.sum(1, keepdims=True)
    for pair in [(0, 1), (2, 7), (5, 11)]:
        found, ends = most_between(values, weights, pair), values[list(pair)]
        assert (weights @ found <= (weights @ values.T).max(1) + 1e-9).all()
        assert (found >= ends.min(0) - 1e-12).all()
        assert (found <= ends.max(0) + 1e-12).all()
        middle = weights[list(pair)].mean(0)
        assert found @ middle >= ends.mean(0) @ middle - 1e-9


def test_gain_is_the_volume_of_the_expected_point_and_what_covers_it_leaves_none() -> None:
    values, weights = parabola([0.0, 1.0])
    reference = np.array([-0.5, -0.5])
    expected = expected_between(values, weights, (0, 1))
    by_hand = hypervolume(np.concatenate([values, expected[None]]), reference) - hypervolume(values, reference)
    assert expected_gain(values, weights, (0, 1), reference) == pytest.approx(by_hand)
    assert expected_gain(values, weights, (0, 1), reference, others=expected[None]) == 0.0
    halfway = np.array([[0.5, 0.6]])
    assert 0 < expected_gain(values, weights, (0, 1), reference, others=halfway) < by_hand


def test_equal_points_have_nothing_between_them() -> None:
    values, weights = np.array([[0.3, 0.4], [0.3, 0.4]]), np.array([[0.5, 0.5], [0.4, 0.6]])
    np.testing.assert_allclose(expected_between(values, weights, (0, 1)), [0.3, 0.4])


# The noise of a gain: the ends of 1 - x^2 for x in [0, 1], between which a point is expected that adds 3/8

ENDS, MIDDLE, ORIGIN = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.5, 0.75]), np.zeros(2)


def drawn(*shifts: tuple[float, float]) -> np.ndarray:
    """The ends over prompts drawn again: each draw lifts the first and the second end by so much of objective 1."""
    return np.array([np.add(ENDS, [[0.0, first], [0.0, second]]) for first, second in shifts])


def test_without_draws_there_is_no_noise() -> None:
    assert gain_noise(MIDDLE, ENDS, np.zeros((0, 2, 2)), (0, 1), ORIGIN) == 0.0


def test_prompts_that_lift_all_points_alike_are_no_noise_of_a_gain() -> None:
    """The box between the ends moves as a whole: its 3/8 stays, though every volume changes."""
    common = drawn((0.1, 0.1), (0.3, 0.3), (0.0, 0.0), (0.2, 0.2))
    assert np.ptp([hypervolume(draw, ORIGIN) for draw in common]) > 0.1
    assert gain_noise(MIDDLE, ENDS, common, (0, 1), ORIGIN) == pytest.approx(0.0, abs=1e-12)


def test_the_noise_is_the_deviation_of_the_gains_by_hand() -> None:
    """The point moves with the first end in every other draw, and with the second, which stays, in the others.

    Over (0, 0) the ends have no volume, and the point (1/2, 3/4 + c) has 3/8 + c/2: the gains are 3/8 plus +c/2, 0,
    -c/2, 0, of deviation c / sqrt(8).
    """
    c = 0.2
    found = gain_noise(MIDDLE, ENDS, drawn((c, 0), (c, 0), (-c, 0), (-c, 0)), (0, 1), ORIGIN)
    assert found == pytest.approx(c / np.sqrt(8))
    turned = gain_noise(MIDDLE, ENDS, drawn((c, 0), (c, 0), (-c, 0), (-c, 0)), (1, 0), ORIGIN)
    assert turned == pytest.approx(c / np.sqrt(8))  # the even draws are the second end's, the odd ones the first's


def test_what_is_covered_in_every_draw_has_neither_gain_nor_noise() -> None:
    """A third point above the expected one, which moves far less than it stands above."""
    values = np.concatenate([ENDS, [[0.9, 0.9]]])
    rng = np.random.default_rng(0)
    draws = values + 0.01 * rng.normal(size=(20, 3, 2))
    assert gain_noise(MIDDLE, values, draws, (0, 1), ORIGIN) == 0.0
