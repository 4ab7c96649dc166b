"""The grid: which preferences, and in which order."""

from math import comb

import numpy as np
import pytest

from moalign.frontiers import corners, lattice, riesz
from moalign.frontiers.explorers import Grid


@pytest.mark.parametrize(("m", "divisions"), [(2, 1), (2, 9), (3, 4), (3, 10), (4, 3)])
def test_it_is_the_lattice_where_there_is_one_of_that_many_points(m, divisions):
    asked = Grid(m, comb(divisions + m - 1, m - 1)).ask(99)
    np.testing.assert_array_equal(asked[np.lexsort(asked.T[::-1])][::-1], lattice(m, divisions))


def test_it_is_riesz_points_where_there_is_none():
    asked = Grid(3, 8, seed=3).ask(99)
    np.testing.assert_array_equal(asked[np.lexsort(asked.T[::-1])][::-1], riesz(3, 8, seed=3))


@pytest.mark.parametrize(("m", "points"), [(2, 11), (3, 8), (3, 66), (4, 20)])
def test_the_corners_come_first(m, points):
    np.testing.assert_array_equal(Grid(m, points).ask(m), corners(m))


@pytest.mark.parametrize("points", [1, 2])
def test_below_one_point_for_each_objective_the_corners_are_cut(points):
    np.testing.assert_array_equal(Grid(3, points).ask(9), corners(3)[:points])


def test_one_objective_has_one_preference():
    grid = Grid(1, 7)
    assert grid.ask(9).tolist() == [[1.0]]
    assert len(grid.ask(9)) == 0


def test_its_beginnings_are_spread_over_the_simplex():
    """After 15 of 66 no preference is further from a trained one than two steps of the lattice of 15, 1/4 each."""
    grid = Grid(3, 66)
    trained = grid.ask(15)
    gaps = np.linalg.norm(lattice(3, 20)[:, None] - trained[None], axis=2).min(axis=1)
    assert gaps.max() < 2 * np.sqrt(2) / 4 * 0.75
    assert len(np.unique(np.vstack([trained, grid.ask(66)]).round(9), axis=0)) == 66


def test_values_change_nothing():
    one, other = Grid(3, 15), Grid(3, 15)
    first = one.ask(6)
    one.tell(first, np.random.default_rng(0).normal(size=(6, 3)), np.zeros((6, 3)))
    other.ask(6)
    np.testing.assert_array_equal(one.ask(9), other.ask(9))
