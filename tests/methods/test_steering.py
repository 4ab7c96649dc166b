"""What one preference carries from batch to batch, and how its weights enter its update."""

import json

import numpy as np
import pytest
import torch
from weighters import Scaled

from moalign.methods.steering import Moments, Steering
from moalign.weighting import Gradient, Observation, Weighting

ESTIMATORS = ("grpo", "rloo", "reinforce", "dr_grpo")
AGGREGATIONS = ("sum_then_normalize", "normalize_then_sum")


def rewards(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 4, 2)) * [1.0, 5.0] + [2.0, -1.0]


def steering(estimator: str = "grpo", aggregation: str = "normalize_then_sum", scale: float = 1.0) -> Steering:
    preference = np.array([0.3, 0.7])
    return Steering(Scaled(preference, scale=scale), Weighting(preference, scale), estimator, aggregation)  # type: ignore[arg-type]


def test_moments_are_those_of_the_batches_so_far_weighted_by_their_age() -> None:
    """Weights .1 * .9^age, divided by their sum: after two batches .9 and 1 to 1.9."""
    batches = [rewards(seed).reshape(-1, 2) for seed in (1, 2)]
    moments = Moments()
    assert moments.baseline() is None
    for batch in batches:
        moments.add(batch)
    first, second = (batch.mean(0) for batch in batches)
    np.testing.assert_allclose(moments.mean, (0.9 * first + second) / 1.9)
    square = (0.9 * (batches[0] ** 2).mean(0) + (batches[1] ** 2).mean(0)) / 1.9
    np.testing.assert_allclose(moments.deviation, np.sqrt(square - moments.mean**2))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_advantages_are_a_sum_of_the_parts_times_the_factors(estimator: str, aggregation: str) -> None:
    """What lets an update be put together from the objectives' own gradients."""
    each = steering(estimator, aggregation, scale=1.7)
    each.moments.add(rewards(1).reshape(-1, 2))
    parts = each.parts(rewards(2))
    torch.testing.assert_close(parts @ each.factors(parts), each.advantages(parts))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_batch_without_signal_has_no_advantages_and_no_factors_that_are_not_finite(aggregation: str) -> None:
    each = steering(aggregation=aggregation)
    parts = each.parts(np.ones((3, 4, 2)))
    assert torch.equal(each.advantages(parts), torch.zeros(3, 4, dtype=torch.float64))
    assert torch.isfinite(each.factors(parts)).all()


def test_validation_is_in_deviations_of_the_first_one() -> None:
    """An objective that is flat at first counts in its own units."""
    each, first = steering(), np.array([[1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(each.validated(first)[0], [0, 0])
    np.testing.assert_allclose(each.validated(first + np.array([2.0, 3.0])), [[2.0, 3.0], [4.0, 8.0]])
    np.testing.assert_allclose(each.validated(first * [2.0, 1.0])[0], [2.0, 0.0])


def test_the_state_survives_json() -> None:
    """A second one that loads it decides and normalises as the first one does."""

    def fresh() -> Steering:
        weighter = Gradient(np.array([0.3, 0.7]), clip=None)
        return Steering(weighter, Weighting(np.array([0.3, 0.7])), "reinforce", "normalize_then_sum")

    one, other = fresh(), fresh()
    seen = Observation(0, rewards(3).reshape(-1, 2), 1e-3, gram=np.array([[2.0, 0.5], [0.5, 1.0]]))
    one.decide(seen)
    one.moments.add(rewards(3).reshape(-1, 2))
    one.validated(rewards(3).reshape(-1, 2))
    one.entropy, one.collapsed, one.stopped = 0.7, True, {"step": 3, "reason": "why"}
    other.load(json.loads(json.dumps(one.state())))
    for each in (one, other):
        each.decide(seen)
    np.testing.assert_array_equal(one.weighting.weights, other.weighting.weights)
    assert torch.equal(one.parts(rewards(4)), other.parts(rewards(4)))
    np.testing.assert_array_equal(one.validated(rewards(5).reshape(-1, 2)), other.validated(rewards(5).reshape(-1, 2)))
    assert (other.entropy, other.collapsed, other.stopped) == (0.7, True, {"step": 3, "reason": "why"})
