"""Cliques against enumeration, and mixtures whose best is known."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moalign.frontiers.mixtures import best_mixture, cliques

NAMED = st.sets(st.sampled_from(list(combinations(range(6), 2))))


@given(NAMED)
def test_cliques_are_the_largest_sets_of_mutual_neighbours(pairs):
    def mutual(members):
        return all(pair in pairs for pair in combinations(members, 2))

    sets = [m for size in range(1, 7) for m in combinations(range(6), size) if mutual(m)]
    largest = [m for m in sets if not any(set(m) < set(other) for other in sets)]
    assert cliques(6, sorted(pairs)) == sorted(largest)


@pytest.mark.parametrize("target", [[0.2, 0.3, 0.5], [0.0, 0.123, 0.877], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
def test_it_finds_a_smooth_top_to_a_millionth(target):
    """-|row - target|^2 is highest at the target, inside a triangle, on its edge and in its corner."""
    wanted = np.array([*target, 0.0])
    found = best_mixture(lambda rows: -((rows - wanted) ** 2).sum(axis=1), 4, [(0, 1), (1, 2), (0, 2), (2, 3)])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_it_finds_the_top_of_a_ridge():
    """min of two straight lines, 1 - x and 3 x, meets at x = 1/4."""
    found = best_mixture(lambda rows: np.minimum(1 - rows[:, 0], 3 * rows[:, 0]), 2, [(0, 1)])
    assert found == pytest.approx([0.25, 0.75], abs=1e-6)


def test_only_neighbours_are_mixed():
    """The middle of 0 and 2 would be best, and is not to be had: the nearest on 0-1 or 1-2 is half of either."""
    found = best_mixture(lambda rows: rows[:, 0] * rows[:, 2] + 0.1 * rows[:, 0], 3, [(0, 1), (1, 2)])
    assert found.tolist() == [1.0, 0.0, 0.0]


def test_one_adapter_is_its_own_mixture():
    assert best_mixture(lambda rows: np.zeros(len(rows)), 1, []).tolist() == [1.0]


def test_a_row_without_a_score_is_never_chosen():
    found = best_mixture(lambda rows: np.where(rows[:, 0] > 0.5, np.nan, rows[:, 0]), 2, [(0, 1)])
    assert found[0] == pytest.approx(0.5, abs=1e-6)
    assert found[0] <= 0.5


def test_many_neighbours_of_each_other_still_end_soon():
    """Nine corners: a clique of nine, of which the lattice has at most 500 rows."""
    sizes = []

    def score(rows):
        sizes.append(len(rows))
        return -(rows**2).sum(axis=1)

    found = best_mixture(score, 9, list(combinations(range(9), 2)))
    assert max(sizes) <= 500
    assert found.sum() == pytest.approx(1)
    assert found == pytest.approx(np.full(9, 1 / 9), abs=0.02)
