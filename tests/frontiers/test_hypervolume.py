from itertools import combinations
from math import comb

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moalign.errors import DataError
from moalign.frontiers import hypervolume, hypervolume_contributions, lattice, normalised_hypervolume

few_points = st.tuples(st.integers(0, 6), st.integers(1, 5)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(-8, 16).map(lambda i: i / 4))
)


def by_inclusion_exclusion(values, reference_point):
    """|A u B u ...| = sum |A| - sum |A n B| + ...; boxes from one corner intersect in the box of the minima."""
    sides = np.maximum(values - reference_point, 0.0)
    return sum(
        (-1) ** (size + 1) * np.prod(sides[list(subset)].min(axis=0))
        for size in range(1, len(sides) + 1)
        for subset in combinations(range(len(sides)), size)
    )


@given(few_points)
def test_it_is_inclusion_and_exclusion(values):
    """Also with points below the reference in some coordinates, and with ties."""
    z = np.linspace(-0.5, 0.5, values.shape[1])
    assert hypervolume(values, z) == pytest.approx(by_inclusion_exclusion(values, z), abs=1e-9)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6, 9])
def test_one_point_is_a_box(m):
    """(1, 2, ..., m) from the origin: m!"""
    assert hypervolume(np.arange(1.0, m + 1)[None], np.zeros(m)) == pytest.approx(np.prod(np.arange(1, m + 1)))


@pytest.mark.parametrize(("m", "divisions"), [(2, 10), (3, 7), (4, 5), (5, 5)])
def test_the_simplex_lattice(m, divisions):
    """Of the cells of side 1/H, cell i is covered if sum(i) + m <= H: C(H, m) of them, so C(H, m) / H^m."""
    exact = comb(divisions, m) / divisions**m
    assert hypervolume(lattice(m, divisions), np.zeros(m)) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "z", "expected"),
    [
        # C-MORL's example: 1*3 + 1*2.5; the two corners have no volume.
        ([(0, 4), (1, 3), (2, 2.5), (4, 0)], (0, 0), 5.5),
        # By hand, from the right: 9*1 + 8.5*2.5 + 5*1.5; and 8*.5 + 7.5*2.5 + 4*1.5 from (1, .5).
        ([(8.5, 3), (8.5, 3.5), (5, 5), (9, 1), (4, 5)], (0, 0), 37.75),
        ([(8.5, 3), (8.5, 3.5), (5, 5), (9, 1), (4, 5)], (1, 0.5), 28.75),
        # 7*4 + 5*1 + 4*1 + 2*1
        ([(5, 5), (4, 6), (2, 7), (7, 4)], (0, 0), 39.0),
        # Where a recursion that does not clip returns -1, and .5.
        ([(1, -1)], (0, 0), 0.0),
        ([(0.5, 2), (1, -1)], (0, 0), 1.0),
    ],
)
def test_known_numbers(values, z, expected):
    assert hypervolume(np.array(values, dtype=float), np.array(z, dtype=float)) == pytest.approx(expected, abs=1e-12)


def test_what_changes_nothing(immutable):
    """Dominated points, duplicates, NaN rows, points below or on the reference, and the order of rows."""
    values, z = np.array([[3.0, 1.0], [1.0, 2.0]]), np.zeros(2)
    extra = [[1.0, 1.0], [3.0, 1.0], [np.nan, 9.0], [-1.0, 9.0], [9.0, 0.0]]
    assert immutable(hypervolume, np.vstack([values, extra])[::-1], z) == hypervolume(values, z) == 4.0


def test_empty_is_zero():
    assert hypervolume(np.zeros((0, 3)), np.zeros(3)) == 0.0
    assert hypervolume(np.full((2, 3), np.nan), np.zeros(3)) == 0.0


@given(few_points.filter(lambda values: len(values) > 1))
def test_one_more_point_never_takes_away(values):
    z = np.zeros(values.shape[1])
    assert hypervolume(values, z) >= hypervolume(values[:-1], z) - 1e-12


def test_normalised():
    """The front of volume 4 in the box 4 x 2: a half. The ideal itself: 1. Shifting and scaling change nothing."""
    values, z, ideal = np.array([[3.0, 1.0], [1.0, 2.0]]), np.zeros(2), np.array([4.0, 2.0])
    scale, shift = np.array([10.0, 0.1]), np.array([-3.0, 5.0])
    assert normalised_hypervolume(values, z, ideal) == 0.5
    assert normalised_hypervolume(ideal[None], z, ideal) == 1.0
    moved = normalised_hypervolume(values * scale + shift, z * scale + shift, ideal * scale + shift)
    assert moved == pytest.approx(0.5)


def test_a_flat_objective_cannot_be_normalised():
    with pytest.raises(DataError, match="not above the reference point"):
        normalised_hypervolume(np.ones((1, 2)), np.zeros(2), np.array([1.0, 0.0]))


def test_a_reference_point_that_is_none():
    with pytest.raises(DataError, match="expected 2 numbers, one per objective"):
        hypervolume(np.ones((1, 2)), np.array([0.0, np.nan]))


@given(few_points.filter(lambda values: values.shape[1] > 1))
def test_a_contribution_is_what_is_lost_without_the_point(values):
    """Against moocore's own, which wants no point below the reference: those are left out, and have 0 here."""
    z = np.full(values.shape[1], -0.25)
    found = hypervolume_contributions(values, z)
    above = (values > z).all(axis=1)
    expected = np.zeros(len(values))
    if above.any():
        expected[above] = moocore.hv_contributions(values[above], ref=z, maximise=True, ignore_dominated=False)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_contributions_by_hand():
    """(3, 1) alone has 1 x 1 beside (2, 2), of which (2.5, 1) would keep half; a copy keeps all of (1, 3)."""
    values = np.array([[3.0, 1.0], [2.0, 2.0], [2.5, 1.0], [1.0, 3.0], [1.0, 3.0], [9.0, -1.0], [np.nan, 9.0]])
    assert hypervolume_contributions(values, np.zeros(2)).tolist() == [0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert hypervolume_contributions(np.zeros((0, 2)), np.zeros(2)).shape == (0,)
