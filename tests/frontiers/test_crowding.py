"""Crowding distances by hand, and what the truncation and the selection keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moalign.errors import ConfigError
from moalign.frontiers import crowding_distance, non_dominated, select, truncate

few_points = st.tuples(st.integers(0, 9), st.integers(1, 4)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(0, 12).map(lambda i: i / 4))
)


def test_by_hand():
    """Ranges 4 and 8: at (1, 6), 2/4 + (8-5)/8; at (2, 5), (4-1)/4 + (6-0)/8; the ends are infinite."""
    front = np.array([[2.0, 5.0], [0.0, 8.0], [4.0, 0.0], [1.0, 6.0]])
    assert crowding_distance(front).tolist() == [0.75 + 0.75, np.inf, np.inf, 0.5 + 0.375]


def test_three_objectives_by_hand():
    """The middle of three lies inside all three orders: (2 + 2) / 4 in each; every other is an end of one."""
    points = np.array([[0.0, 4.0, 2.0], [2.0, 2.0, 2.5], [4.0, 0.0, 3.0]])
    assert crowding_distance(points).tolist() == [np.inf, 3.0, np.inf]


@given(few_points)
def test_units_do_not_matter(values):
    """Each objective is divided by its range: 8 f + 3 has the same distances, to the bit, for a power of 2."""
    np.testing.assert_array_equal(crowding_distance(values * 8 + 3), crowding_distance(values))


@given(few_points)
def test_a_copy_changes_nothing_and_has_zero(values):
    found = crowding_distance(np.concatenate([values, values]))
    np.testing.assert_array_equal(found[: len(values)], crowding_distance(values))
    assert found[len(values) :].tolist() == [0.0] * len(values)


def test_a_flat_objective_adds_nothing():
    front = np.array([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0]])
    flat = np.column_stack([front, np.full(3, 7.0)])
    assert crowding_distance(flat).tolist() == crowding_distance(front).tolist() == [np.inf, 2.0, np.inf]


def test_few_points_are_all_ends_and_the_unknown_has_zero():
    assert crowding_distance(np.zeros((0, 2))).shape == (0,)
    assert crowding_distance(np.array([[1.0, 2.0], [np.nan, 1.0]])).tolist() == [np.inf, 0.0]
    assert crowding_distance(np.array([[1.0, 2.0], [2.0, 1.0]])).tolist() == [np.inf, np.inf]


def test_truncation_keeps_a_dense_stretch_alive():
    """Five points close together and three apart: dropping the four least at once would leave none of the five.

    Distances of 0.2 apart on a line of 8 are all below those of the loose ones; one by one, the last of them stays.
    """
    x = np.array([0.0, 3.9, 4.0, 4.1, 4.2, 4.3, 6.0, 8.0])
    front = np.column_stack([x, 8 - x])
    at_once = np.sort(np.argsort(-crowding_distance(front), kind="stable")[:4])
    assert not {2, 3, 4} & set(at_once.tolist())
    kept = truncate(front, 4).tolist()
    assert {0, 7} < set(kept)
    assert {1, 2, 3, 4, 5} & set(kept)


@given(few_points, st.integers(0, 10))
def test_truncation_is_one_step_repeated(values, keep):
    """As many as asked, in order, and the same as keeping one more first; copies go before what is distinct."""
    kept = truncate(values, keep)
    assert len(kept) == min(keep, len(values))
    assert (np.diff(kept) > 0).all()
    more = truncate(values, keep + 1)
    np.testing.assert_array_equal(more[truncate(values[more], keep)], kept)
    assert len(np.unique(values[kept], axis=0)) == min(keep, len(np.unique(values, axis=0)))


def test_truncation_drops_the_unknown_first():
    values = np.array([[np.nan, 1.0], [0.0, 4.0], [0.0, 4.0], [4.0, 0.0], [1.0, np.nan]])
    assert truncate(values, 3).tolist() == [1, 2, 3]
    assert truncate(values, 2).tolist() == [1, 3]


def test_the_selection_leaves_out_what_was_selected_before_and_what_is_not_on_the_front():
    front = np.array([[0.0, 4.0], [1.0, 3.0], [1.0, 1.0], [2.0, 2.0], [4.0, 0.0], [2.0, 2.0], [np.nan, 9.0]])
    nothing = np.zeros((0, 2))
    first = select(front, 3, nothing)
    assert first.tolist() == [0, 4, 3]
    second = select(front, 3, seen=front[first])
    assert second.tolist() == [1]
    assert select(front, 3, seen=front[np.concatenate([first, second])]).tolist() == []


@given(few_points, st.integers(0, 10))
def test_the_selection_is_a_ranking_of_the_front(values, count):
    """Distinct points of the front, by falling distance; and asking for fewer gives the head of the list."""
    chosen = select(values, count, np.zeros((0, values.shape[1])))
    front = values[non_dominated(values)]
    assert len(chosen) == min(count, len(np.unique(front, axis=0)))
    assert non_dominated(values)[chosen].all()
    assert len(np.unique(values[chosen], axis=0)) == len(chosen)
    everything = select(values, 99, np.zeros((0, values.shape[1])))
    assert everything[:count].tolist() == chosen.tolist()


def test_negative_counts_are_refused():
    with pytest.raises(ConfigError, match="truncate to -1 points; expected"):
        truncate(np.zeros((1, 2)), -1)
    with pytest.raises(ConfigError, match="select -1 points; expected"):
        select(np.zeros((1, 2)), -1, np.zeros((0, 2)))


def test_nothing_is_written_to(immutable):
    values = np.random.default_rng(0).normal(size=(6, 2))
    immutable(crowding_distance, values.copy())
    immutable(truncate, values.copy(), 3)
    immutable(select, values.copy(), 3, values[:1].copy())
