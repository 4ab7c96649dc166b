"""Running means of what is not always known, and what a checkpoint keeps of them."""

import json

import numpy as np
import pytest

from moalign.integrations.progress import Progress, known_means

NAN = float("nan")


def progressed(memory, *means):
    """One objective whose deviation is 1."""
    progress = Progress.none(1)
    progress.measure(np.array([[-1.0], [1.0]]))
    for mean in means:
        progress.add(np.array([mean]), memory)
    return progress.values()[0]


def test_the_mean_of_all_until_memory_and_then_a_share_of_one_over_memory():
    """0, 1, 5: (0 + 1 + 5) / 3 = 2 with a memory of three; 0.5 + (5 - 0.5) / 2 = 2.75 with two; the last with one."""
    assert progressed(3, 0.0, 1.0, 5.0) == pytest.approx(2.0)
    assert progressed(2, 0.0, 1.0, 5.0) == pytest.approx(2.75)
    assert progressed(1, 0.0, 1.0, 5.0) == pytest.approx(5.0)


def test_a_batch_without_the_objective_moves_nothing():
    assert progressed(3, 0.0, NAN, 4.0, NAN) == progressed(3, 0.0, 4.0) == pytest.approx(2.0)
    assert progressed(3, NAN) == 0.0


def test_it_counts_from_where_the_objective_first_applies():
    """Absent from the first batch, 7 and 9 in the second (deviation 1), 10 in the third: (8 + 10) / 2 is 1 above 8."""
    progress = Progress.none(1)
    for rewards in ([[NAN], [NAN]], [[7.0], [9.0]], [[10.0], [NAN]]):
        progress.measure(np.array(rewards))
        progress.add(known_means(np.array(rewards)), 10)
    assert progress.deviation == 1.0
    assert progress.values()[0] == pytest.approx(1.0)


def test_equal_rewards_are_counted_in_their_own_units():
    """0.1 has no exact float, so the deviation of many of them is 1e-17: as a unit it would be a catastrophe."""
    progress = Progress.none(1)
    progress.measure(np.full((7, 1), 0.1))
    assert progress.deviation == 1.0


def test_infinite_rewards_are_left_out():
    rewards = np.array([[1.0, np.inf], [3.0, -np.inf]])
    np.testing.assert_array_equal(known_means(rewards), [2.0, NAN])
    progress = Progress.none(2)
    progress.measure(rewards)
    np.testing.assert_array_equal(progress.deviation, [1.0, NAN])


def test_a_state_goes_through_json_and_on_as_if_it_had_not():
    progress = Progress.none(2)
    progress.measure(np.array([[0.1, NAN], [0.7, NAN]]))
    progress.add(np.array([0.4, NAN]), 5)
    other = Progress.of(json.loads(json.dumps(progress.state_dict(), allow_nan=False)))
    for one in (progress, other):
        one.measure(np.array([[9.0, 1.0], [9.0, 2.0]]))
        one.add(np.array([9.0, 1.5]), 5)
        one.add(np.array([1 / 3, 1.7]), 5)
    np.testing.assert_array_equal(progress.values(), other.values())
    assert progress.state_dict() == other.state_dict()
