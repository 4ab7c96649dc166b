"""Crowding: who is whose neighbour, which gap is the widest, and what is done where values are missing."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial import Delaunay

from moalign.frontiers import corners
from moalign.frontiers.explorers import Crowding
from moalign.frontiers.explorers.crowding import neighbours


def sweep(points, values, batch=1, m=2):
    """All that it asks for when the values are a function of the preferences."""
    explorer, asked = Crowding(m, points), np.zeros((0, m))
    while len(rows := explorer.ask(batch)):
        explorer.tell(rows, values(rows), np.zeros(rows.shape))
        asked = np.vstack([asked, rows])
    return asked


def test_of_two_objectives_neighbours_are_next_to_each_other():
    weights = np.random.default_rng(0).permutation(np.linspace(0, 1, 9))
    pairs = neighbours(np.stack([weights, 1 - weights], axis=1))
    found = {tuple(sorted(weights[pair])) for pair in pairs}
    assert found == set(pairwise(sorted(weights)))


def test_the_centre_does_not_come_between_two_corners():
    """It lies in their balls (2/3 + 2/3 < 2), but not on their face: the front along that edge would never be seen."""
    with_centre = np.vstack([corners(3), np.full((1, 3), 1 / 3)])
    assert len(neighbours(with_centre)) == 6
    between = np.vstack([with_centre, [[0.5, 0.5, 0.0]]])
    assert [0, 1] not in neighbours(between).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_are_edges_of_the_delaunay_triangulation(seed):
    """A pair whose ball is empty is one; on a side of the triangle, so is each pair next to each other."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(size=3)
    rows = np.vstack([corners(3), rng.dirichlet(np.ones(3), size=12), np.stack([side, 1 - side, 0 * side], axis=1)])
    plane = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]).T / np.sqrt([2.0, 6.0])
    triangles = Delaunay(rows @ plane).simplices
    edges = {tuple(sorted((t[i], t[i - 1]))) for t in triangles for i in range(3)}
    found = {tuple(pair) for pair in neighbours(rows)}
    assert found <= edges
    assert {i for pair in found for i in pair} == set(range(len(rows)))


def test_the_widest_gap_is_halved_in_units_of_the_range():
    """In raw units the second objective would decide: 900 of 1000 against 100; in ranges it is (.9, .1), (.1, .9).

    With a range of 10 in the first objective the two gaps are equal, and with 9.5 (here: 0.05 more) the first is wider.
    """
    explorer = Crowding(2, points=9)
    values = np.array([[10.0, 0.0], [0.0, 1000.0], [0.5, 900.0]])
    explorer.tell(explorer.ask(3), values, np.zeros((3, 2)))
    assert explorer.ask(1).tolist() == [[0.75, 0.25]]
    values = np.array([[10.0, 0.0], [0.0, 1000.0], [9.5, 100.0]])
    other = Crowding(2, points=9)
    other.tell(other.ask(3), values, np.zeros((3, 2)))
    assert other.ask(1).tolist() == [[0.25, 0.75]]


def test_within_a_batch_both_halves_of_a_gap_count_half():
    """Gaps 1.26 and 0.16: the first is halved, then each of its halves, 0.63; never the second."""
    explorer = Crowding(2, points=9)
    explorer.tell(explorer.ask(3), np.array([[9.0, 0.0], [0.0, 9.0], [1.0, 8.0]]), np.zeros((3, 2)))
    assert explorer.ask(3)[:, 0].tolist() == [0.75, 0.875, 0.625]


def test_before_anything_is_told_it_goes_on_as_an_even_grid():
    asked = Crowding(2, points=9).ask(9)[:, 0].tolist()
    assert asked[:5] == [1, 0, 0.5, 0.75, 0.25]
    assert sorted(asked[5:]) == [0.125, 0.375, 0.625, 0.875]


def test_a_point_without_values_stands_between_its_neighbours():
    """With the centre unmeasured, both halves are as wide as the other; the centre is not asked for again."""
    explorer = Crowding(2, points=9)
    values = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 5.0]])
    explorer.tell(explorer.ask(3), values, np.zeros((3, 2)))
    assert explorer.ask(2)[:, 0].tolist() == [0.75, 0.25]


def test_a_jump_does_not_take_all_the_points():
    """The front jumps at w = 0.3: halving there alone would reach gaps of 2^-30."""
    weights = sweep(33, lambda rows: (rows > 0.3).astype(float) * [1, -1])[:, 0]
    gaps = np.diff(np.sort(weights))
    assert gaps.min() >= 0.01
    assert gaps.max() <= 0.0625


def test_an_uneven_front_is_covered_more_evenly_than_by_even_weights():
    """Values (w^8, 1 - w^8): 17 even weights leave a gap of 1 - (15/16)^8 = 0.40; halving leaves less than 0.15."""

    def values(rows):
        return np.stack([rows[:, 0] ** 8, 1 - rows[:, 0] ** 8], axis=1)

    attained = np.sort(values(sweep(17, values))[:, 0])
    assert np.diff(attained).max() < 0.15
    assert np.diff(np.linspace(0, 1, 17) ** 8).max() > 0.4


def test_an_objective_far_from_the_others_is_reached_along_the_sides_too():
    """Only the side between the first two corners has a front: eight of the ten points after the opening lie on it."""
    asked = sweep(14, lambda rows: np.stack([rows[:, 0], rows[:, 1] ** 2, 0 * rows[:, 0]], axis=1), m=3)
    assert (asked[4:, 2] < 0.2).sum() >= 7
