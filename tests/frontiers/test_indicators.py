import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moalign.frontiers import (
    Violation,
    corners,
    expected_utility,
    igd_plus,
    kendall_tau,
    lattice,
    mean_inner_product,
    monotonicity_violations,
    sparsity,
)

FRONT = np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 2.5], [4.0, 0.0]])
numbers = st.floats(-10, 10).map(lambda x: round(x, 3))


def fronts(rows):
    return st.tuples(rows, st.integers(1, 4)).flatmap(lambda shape: arrays(float, shape, elements=numbers))


def test_expected_utility_of_the_example(immutable):
    """The best for w_1 = 0, 1/4, 1/2, 3/4, 1 are worth 4, 3, 2.25, 3, 4: mean 3.25."""
    assert immutable(expected_utility, FRONT, lattice(2, 4)) == pytest.approx(3.25)


@given(fronts(st.integers(1, 6)))
def test_expected_utility_is_its_definition(values):
    weights = lattice(values.shape[1], 3)
    best = [max(sum(w * y for w, y in zip(row, point, strict=True)) for point in values) for row in weights]
    assert expected_utility(values, weights) == pytest.approx(sum(best) / len(best), abs=1e-9)


def test_expected_utility_at_the_corners_is_the_mean_of_the_maxima():
    assert expected_utility(FRONT, corners(2)) == 4.0


def test_sparsity_of_the_example(immutable):
    """Gaps 1, 1, 2 and 2.5, .5, 1, squared and added: 6 + 7.5; over n - 1 = 3."""
    assert immutable(sparsity, FRONT) == pytest.approx(4.5)


def test_sparsity_is_of_the_front():
    """Neither dominated points nor duplicates nor NaN rows make the front denser."""
    extra = np.array([[0.5, 2.0], [1.0, 3.0], [np.nan, 9.0]])
    assert sparsity(np.vstack([FRONT, extra])) == pytest.approx(4.5)


@given(fronts(st.just(5)), st.floats(0.1, 10))
def test_sparsity_shifts_and_scales(values, scale):
    """It does not see a shift, and grows with the square of the scale."""
    assert sparsity(values * scale + 1.0) == pytest.approx(sparsity(values) * scale**2, rel=1e-6, abs=1e-9, nan_ok=True)


@given(fronts(st.integers(1, 6)), st.integers(0, 3))
def test_igd_plus_is_its_definition(values, seed):
    """The mean over the reference of the distance to the nearest point, counting only what is missing."""
    reference = np.random.default_rng(seed).normal(size=(4, values.shape[1]))
    short = [min(np.linalg.norm(np.maximum(z - y, 0)) for y in values) for z in reference]
    assert igd_plus(values, reference) == pytest.approx(np.mean(short), abs=1e-9)


def test_igd_plus_does_not_blame_what_is_better(immutable):
    """A front above the reference front is at distance 0 from it; one that is 1 lower everywhere, at sqrt 2 at most."""
    assert immutable(igd_plus, FRONT + 1.0, FRONT) == 0.0
    assert 0 < igd_plus(FRONT - 1.0, FRONT) <= np.sqrt(2)


def test_mean_inner_product(immutable):
    """(1,0).(0,4) + (0,1).(4,0) is 0: each point counts under its own preference, although the set serves both."""
    values = np.array([[0.0, 4.0], [4.0, 0.0]])
    assert immutable(mean_inner_product, values, corners(2)) == 0.0
    assert mean_inner_product(values[::-1], corners(2)) == 4.0
    assert expected_utility(values, corners(2)) == 4.0


@given(fronts(st.integers(1, 6)))
def test_mean_inner_product_is_at_most_the_expected_utility(values):
    """The best point for w is at least as good as the point that was trained for w."""
    weights = np.random.default_rng(0).dirichlet(np.ones(values.shape[1]), size=len(values))
    assert mean_inner_product(values, weights) <= expected_utility(values, weights) + 1e-9


def test_kendall_tau_by_counting(immutable):
    """asked 1 2 3 4, attained 1 3 2 4: 5 pairs agree, 1 does not: (5 - 1) / 6. Reversed: -1."""
    asked = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    attained = np.array([[1.0, 4.0], [3.0, 3.0], [2.0, 2.0], [4.0, 1.0]])
    assert immutable(kendall_tau, asked, attained).tolist() == pytest.approx([4 / 6, -1.0])


def test_kendall_tau_with_ties():
    """asked 1 1 2, attained 1 2 3: two pairs agree, one is tied in asked: 2 / sqrt(2 * 3)."""
    tau = kendall_tau(np.array([[1.0], [1.0], [2.0]]), np.array([[1.0], [2.0], [3.0]]))
    assert tau[0] == pytest.approx(2 / np.sqrt(6))


def test_kendall_tau_leaves_out_nan_and_flat_columns():
    """Objective 0 has one NaN, and perfect order without it; objective 1 is flat; objective 2 has one number."""
    asked = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    attained = np.array([[1.0, 5.0, 1.0], [np.nan, 5.0, np.nan], [2.0, 5.0, np.nan]])
    np.testing.assert_array_equal(kendall_tau(asked, attained), [1.0, np.nan, np.nan])


def test_nothing_defines_nothing():
    """NaN, and no warning."""
    none = np.zeros((0, 2))
    assert np.isnan(
        [
            expected_utility(none, corners(2)),
            expected_utility(FRONT, none),
            sparsity(FRONT[:1]),
            sparsity(none),
            igd_plus(none, FRONT),
            igd_plus(FRONT, none),
            mean_inner_product(none, none),
            *kendall_tau(none, none),
        ]
    ).all()


def test_a_row_with_nan_is_left_out():
    broken = np.vstack([FRONT, [[np.nan, 99.0]]])
    assert expected_utility(broken, lattice(2, 4)) == expected_utility(FRONT, lattice(2, 4))
    assert igd_plus(broken, FRONT) == 0.0
    assert igd_plus(FRONT, broken) == 0.0
    assert mean_inner_product(broken, np.ones((5, 2))) == mean_inner_product(FRONT, np.ones((4, 2)))


def test_violations_by_hand(immutable):
    """Helpful 1, .8, .5, 0 attains 5, 6, 6, 7: less for more at two of three steps, and a tie. Brief is in order."""
    asked = np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.8, 0.2]])
    attained = np.array([[6.0, 2.0], [5.0, 0.0], [7.0, 3.0], [6.0, 1.0]])
    helpful, brief = immutable(monotonicity_violations, asked, attained)
    assert helpful == [Violation((2,), (0,), 1.0), Violation((3,), (1,), 1.0)]
    assert brief == []


def test_a_violation_within_the_noise_is_none():
    """Drops of 1 with errors of .3 and .4, together .5: 1.96 x .5 = .98 is less than 1; of 1.01 each it is not."""
    asked, attained = np.array([[0.0], [1.0]]), np.array([[2.0], [1.0]])
    assert monotonicity_violations(asked, attained, np.array([[0.3], [0.4]])) == [[Violation((0,), (1,), 1.0)]]
    assert monotonicity_violations(asked, attained, np.array([[0.32], [0.4]])) == [[]]


def test_points_of_one_weight_are_averaged():
    """Weights 1/3, as a lattice of 3 and as 1 - 2/3: 1 and 3 average to 2, above 1.5 at weight 1 and below 2.5 at 0.

    Their errors .6 and .8 average to .5: 1.96 sqrt(.5^2 + 0) is above the drop of .5.
    """
    asked, attained = np.array([[1 / 3], [1 - 2 / 3], [1.0], [0.0]]), np.array([[1.0], [3.0], [1.5], [1.0]])
    assert monotonicity_violations(asked, attained) == [[Violation((0, 1), (2,), 0.5)]]
    errors = np.array([[0.6], [0.8], [0.0], [0.0]])
    assert monotonicity_violations(asked, attained, errors) == [[]]
    assert monotonicity_violations(asked, attained, errors / 2) == [[Violation((0, 1), (2,), 0.5)]]


@given(fronts(st.integers(0, 6)), st.integers(0, 9))
def test_violations_are_the_steps_down(values, seed):
    """For distinct weights: the negative differences of the values in their order; as many as in the reversed order
    there are steps up."""
    asked = np.random.default_rng(seed).permuted(np.tile(np.arange(len(values)) / 10, (values.shape[1], 1)), axis=1).T
    for j, found in enumerate(monotonicity_violations(asked, values)):
        steps = np.diff(values[np.argsort(asked[:, j]), j])
        assert [one.drop for one in found] == pytest.approx((-steps[steps < 0]).tolist())
        assert all(asked[one.more[0], j] > asked[one.less[0], j] for one in found)


def test_the_unknown_violates_nothing():
    asked, attained = np.array([[0.0], [0.5], [1.0]]), np.array([[3.0], [np.nan], [1.0]])
    assert monotonicity_violations(asked, attained) == [[Violation((0,), (2,), 2.0)]]
    assert monotonicity_violations(asked, attained, np.array([[0.1], [0.1], [np.nan]])) == [[]]
    assert monotonicity_violations(np.zeros((0, 2)), np.zeros((0, 2))) == [[], []]
