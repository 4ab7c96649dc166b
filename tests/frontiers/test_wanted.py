"""At least so much: the row is the best of all that a fine lattice has, and weights ask for it where any do."""

import numpy as np
import pytest

from moalign.errors import DataError
from moalign.frontiers import fit_calibration
from moalign.frontiers.calibration import Calibration
from moalign.frontiers.mixtures import lattices
from moalign.frontiers.wanted import goal_weights, row_at_least, weights_at_least

NAN = float("nan")


def bent(bend: float = 4.0) -> Calibration:
    """Two adapters on (4, 0) and (0, 4) whose middle lies `bend` / 4 above the line: V = 4 x + bend x (1 - x)."""
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    middle = [2 + bend / 4] * 2
    return fit_calibration(rows, np.array([[4.0, 0.0], [0.0, 4.0], middle]), np.full((3, 2), 1e-4), np.eye(2))


def three() -> Calibration:
    """Three adapters, all neighbours, of three objectives, with curvature of each sign."""
    corners = np.eye(3)
    rows = np.vstack([corners, [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]])
    values = np.vstack([4 * corners + 0.2, [[3.2, 3.0, 0.4], [0.3, 2.9, 3.1], [1.6, 0.1, 1.7]]])
    pairs = [(0, 1), (1, 2), (0, 2)]
    return fit_calibration(rows, values, np.full((6, 3), 0.05), corners, pairs=pairs)


def test_one_objective_is_had_exactly_and_the_other_as_much_as_then_remains() -> None:
    """Of helpful 3.5: 4 x + 4 x (1 - x) = 3.5, so x = 1 - sqrt(1 / 8), and 4 (1 - x) + 4 x (1 - x) of the other."""
    known = bent()
    row, reached, lacking = row_at_least(known, np.array([3.5, NAN]))
    share = 1 - np.sqrt(1 / 8)
    assert reached
    assert row.tolist() == pytest.approx([share, 1 - share], abs=1e-4)
    assert lacking.tolist() == [0.0, 0.0]
    assert known.predict(row)[0].tolist() == pytest.approx([3.5, 4 * (1 - share) * (1 + share)], abs=1e-3)


@pytest.mark.parametrize(
    "wanted", [[2.0, NAN, NAN], [NAN, 1.5, 1.5], [1.0, 1.0, 1.0], [NAN, NAN, 3.9], [3.0, 2.0, NAN]]
)
def test_the_row_is_the_best_of_a_fine_lattice_and_no_less(wanted: list[float]) -> None:
    """Enumerated to 1/280 of the triangle, over the mean of what is free in ranges."""
    known, asked = three(), np.array(wanted)
    (fine,) = lattices(3, known.pairs, 40000)
    values, goal = known.attained(fine), goal_weights(known.spread, asked)
    allowed = ~(values < asked).any(axis=1)
    row, reached, _ = row_at_least(known, asked)
    found = known.attained(row[None])[0]
    assert reached == allowed.any()
    assert not (found < asked - 1e-5).any()
    assert found @ goal >= (values @ goal)[allowed].max() - 1e-6
    assert found @ goal <= (values @ goal)[allowed].max() + 0.01


def test_what_no_row_attains_is_what_comes_nearest() -> None:
    known = bent()
    row, reached, lacking = row_at_least(known, np.array([5.0, NAN]))
    assert not reached
    assert row.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert lacking.tolist() == pytest.approx([1.0, 0.0], abs=1e-2)


@pytest.mark.parametrize("wanted", [1e18, 1e300, 1.7e308])
def test_what_comes_nearest_is_found_however_far_away_it_is(wanted: float) -> None:
    """Less 1e18, all that the map attains is one number: the row must still be the adapter with the most of it."""
    row, reached, lacking = row_at_least(bent(), np.array([NAN, wanted]))
    assert not reached
    assert row.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert lacking.tolist() == [0.0, pytest.approx(wanted)]
    row, reached, _ = row_at_least(bent(), np.array([NAN, -wanted]))
    assert reached
    assert row.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("wanted", [[3.5, NAN], [NAN, 3.9], [3.0, NAN], [2.9, 2.9], [0.5, NAN]])
def test_weights_ask_for_that_row_where_the_front_bends_outward(wanted: list[float]) -> None:
    """The argmax of w.V attains what is wanted, and of the rest within a hundredth of what can be had."""
    known, asked = bent(), np.array(wanted)
    row, _, _ = row_at_least(known, asked)
    weights = weights_at_least(known, asked, row)
    assert weights is not None
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
    found = known.attained(known.row_for_preference(weights)[None])[0]
    assert not (found < asked - 1e-5).any()
    goal = goal_weights(known.spread, asked)
    assert found @ goal >= known.attained(row[None])[0] @ goal - 0.01


@pytest.mark.parametrize("wanted", [[NAN, 2.93, 1.25], [NAN, 3.13, 2.01]])
def test_of_two_that_are_wanted_no_more_of_one_than_leaves_the_other(wanted: list[float]) -> None:
    """Raised together the multipliers overshoot one of the two; weights that get both do exist, on a lattice of 28."""
    known, asked = three(), np.array(wanted)
    weights = weights_at_least(known, asked, row_at_least(known, asked)[0])
    assert weights is not None
    found = known.attained(known.row_for_preference(weights)[None])[0]
    assert not (found < asked - 1e-5).any()
    goal = goal_weights(known.spread, asked)
    every = lattices(3, known.pairs, 100)[0]
    bests = known.attained(np.array([known.row_for_preference(each / known.spread) for each in every[::7]]))
    assert found @ goal >= (bests @ goal)[~(bests < asked).any(axis=1)].max(initial=-np.inf) - 0.01


def test_weights_ask_for_what_every_row_attains_however_little_that_is() -> None:
    known, asked = bent(), np.array([-1e300, NAN])
    weights = weights_at_least(known, asked, row_at_least(known, asked)[0])
    assert weights is not None
    assert known.row_for_preference(weights)[1] > 0.99


def test_where_the_front_bends_inward_weights_ask_for_the_next_row_that_attains_it_or_for_none() -> None:
    """Of an inward curve only its ends are anyone's best: 2 of one is had at its end alone, and (1, 1) nowhere."""
    known = bent(-4.0)
    asked = np.array([2.0, NAN])
    weights = weights_at_least(known, asked, row_at_least(known, asked)[0])
    assert weights is not None
    assert known.row_for_preference(weights).tolist() == [1.0, 0.0]
    both = np.array([1.0, 1.0])
    row, reached, _ = row_at_least(known, both)
    assert reached
    assert weights_at_least(known, both, row) is None


def test_nothing_wanted_and_infinity_are_refused() -> None:
    for wanted in ([NAN, NAN], [np.inf, NAN], [1.0]):
        with pytest.raises(DataError, match="the wanted values are"):
            row_at_least(bent(), np.array(wanted))
