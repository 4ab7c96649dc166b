"""The net of neighbours against its definition, and the sizes of the gaps by hand."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moalign.errors import DataError
from moalign.frontiers import Gap, gaps, lattice, neighbours, non_dominated

few_points = st.tuples(st.integers(0, 8), st.integers(1, 4)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(0, 6).map(float))
)


def connected(count, pairs):
    """Whether every place can be reached from the first."""
    reached = {0}
    for _ in range(count):
        reached |= {b for pair in pairs for b in pair if reached & set(pair)}
    return reached == set(range(count))


def test_a_front_of_two_objectives_is_a_path():
    """In the order of the first objective, each with the next, whatever the order of the rows."""
    x = np.random.default_rng(3).permutation(np.linspace(0, 1, 12) ** 2)
    front = np.column_stack([x, np.sqrt(1 - x**2)])
    order = np.argsort(x)
    assert set(neighbours(front)) == {tuple(sorted(pair)) for pair in pairwise(order.tolist())}


@given(few_points)
def test_it_is_the_definition(values):
    """Distinct points are neighbours unless a third is nearer to both; and the net holds together."""
    distinct = np.unique(values, axis=0)
    found = neighbours(distinct)
    span = np.ptp(distinct, axis=0) if len(distinct) else np.ones(values.shape[1])
    scaled = distinct / np.where(span > 0, span, 1.0)

    def apart(a, b):
        return float(np.sqrt(((scaled[a] - scaled[b]) ** 2).sum()))

    for a, b in combinations(range(len(distinct)), 2):
        between = [c for c in range(len(distinct)) if max(apart(a, c), apart(c, b)) < apart(a, b) - 1e-9]
        assert ((a, b) in found) == (not between)
    assert len(distinct) == 0 or connected(len(distinct), found)


def test_a_lattice_keeps_all_its_sides():
    """Equal sides differ by rounding: 3 * C(d + 1, 2) of them for d divisions, 165 for d = 10."""
    assert len(neighbours(lattice(3, 10))) == 165


def test_copies_and_unknown_rows_have_no_neighbours():
    values = np.array([[0.0, 4.0], [0.0, 4.0], [np.nan, 2.0], [4.0, 0.0]])
    assert neighbours(values) == [(0, 3)]
    assert neighbours(np.zeros((0, 3))) == neighbours(np.full((2, 2), np.nan)) == neighbours(np.ones((3, 2))) == []


def test_gaps_by_hand():
    """Ranges 10 and 2: (0, 2)-(3, 1.2) is sqrt(.3^2 + .4^2) = .5; (3, 1.2)-(9, .4) is sqrt(.6^2 + .4^2); (3, 1) lies
    behind (3, 1.2), and the copy of it is at distance 0."""
    front = np.array([[9.0, 0.4], [3.0, 1.2], [3.0, 1.0], [0.0, 2.0], [3.0, 1.2]])
    found = gaps(front, np.zeros(2), np.array([10.0, 2.0]))
    assert [gap.between for gap in found] == [(0, 1), (1, 3)]
    assert [gap.size for gap in found] == pytest.approx([np.sqrt(0.52), 0.5])


def test_the_range_is_the_given_one_and_a_flat_one_counts_nothing():
    front = np.array([[0.0, 4.0, 1.0], [4.0, 0.0, 1.0]])
    assert gaps(front, np.zeros(3), np.array([8.0, 8.0, 0.0])) == [Gap((0, 1), np.sqrt(0.5).item())]


@given(few_points)
def test_gaps_are_between_points_of_the_front_and_fall_in_size(values):
    found = gaps(values, np.zeros(values.shape[1]), np.full(values.shape[1], 6.0))
    sizes = [gap.size for gap in found]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size > 0 for size in sizes)
    assert all(non_dominated(values)[list(gap.between)].all() for gap in found)
    front = np.unique(values[non_dominated(values)], axis=0)
    assert len(found) >= len(front) - 1


@pytest.mark.parametrize(("lowest", "highest"), [([0, 1], [1, 0]), ([0, np.nan], [1, 1])])
def test_a_range_that_is_none_is_refused(lowest, highest):
    with pytest.raises(DataError, match=r"the objectives range from .*; expected 2 finite numbers each"):
        gaps(np.zeros((1, 2)), np.array(lowest, dtype=float), np.array(highest, dtype=float))


def test_nothing_is_written_to(immutable):
    values = np.random.default_rng(0).normal(size=(6, 2))
    immutable(neighbours, values.copy())
    immutable(gaps, values.copy(), np.full(2, -4.0), np.full(2, 4.0))
