import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moalign.frontiers import non_dominated

# Few distinct numbers, so that ties and duplicates are common.
grids = st.tuples(st.integers(0, 12), st.integers(1, 5)).flatmap(
    lambda shape: arrays(float, shape, elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, np.nan]))
)


def by_definition(values):
    known = ~np.isnan(values).any(axis=1)
    flags = []
    for i, point in enumerate(values):
        beaten = any((other >= point).all() and (other > point).any() for other in values[known])
        flags.append(bool(known[i]) and not beaten)
    return flags


@given(grids)
def test_it_is_the_definition(values):
    """A point is out when some other is at least as good everywhere and better somewhere."""
    assert non_dominated(values).tolist() == by_definition(values)


def test_ties_duplicates_and_nan(immutable):
    """(2,1) twice: both stay. (2,0) is beaten by (2,1). (nan,9) is out, and does not beat (1,2)."""
    values = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 0.0], [np.nan, 9.0], [1.0, 2.0]])
    assert immutable(non_dominated, values).tolist() == [True, True, False, False, True]


def test_empty_and_all_nan():
    assert non_dominated(np.zeros((0, 3))).shape == (0,)
    assert non_dominated(np.full((2, 3), np.nan)).tolist() == [False, False]


@pytest.mark.parametrize("m", [1, 2, 3, 9])
def test_order_and_scale_do_not_matter(m):
    """Dominance is ordinal: an increasing map of each objective and a shuffle of the rows leave the flags."""
    rng = np.random.default_rng(m)
    values = rng.normal(size=(60, m))
    flags = non_dominated(values)
    shuffle = rng.permutation(60)
    assert non_dominated(values[shuffle]).tolist() == flags[shuffle].tolist()
    assert non_dominated(np.exp(values) * 7 - 3).tolist() == flags.tolist()


def test_a_large_set_of_nine_objectives():
    """2,000 points, the algorithm for many: spot checks against the definition on 50 of them."""
    values = np.random.default_rng(0).normal(size=(2000, 9))
    flags = non_dominated(values)
    for i in range(0, 2000, 40):
        beaten = ((values >= values[i]).all(axis=1) & (values > values[i]).any(axis=1)).any()
        assert flags[i] == (not beaten)
