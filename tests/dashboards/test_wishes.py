"""At least so much: targets inside the front are reached, others are missed by what a sum over a grid says."""

import numpy as np
import pytest

from moalign.dashboards.wishes import at_least
from moalign.errors import DataError, PreferenceError
from moalign.frontiers import fit_calibration

NAMES = ("helpful", "brief")
NAN = float("nan")


@pytest.fixture
def bent():
    """Three adapters on (4, 0), (2.6, 2.6), (0, 4): the mixtures of neighbours are lines between them."""
    values = np.array([[4.0, 0.0], [2.6, 2.6], [0.0, 4.0]])
    return fit_calibration(
        np.eye(3), values, np.full((3, 2), 0.1), np.array([[1, 0], [0.5, 0.5], [0, 1.0]]), pairs=[(0, 1), (1, 2)]
    )


@pytest.mark.parametrize("wanted", [{"helpful": 3.0}, {"brief": 3.5}, {"helpful": 2.0, "brief": 2.0}])
def test_what_lies_within_the_front_is_reached(bent, wanted):
    found = at_least(bent, NAMES, wanted)
    assert found.reached
    assert found.lacking == {}
    assert all(found.predicted[name] >= value - 1e-6 for name, value in wanted.items())
    assert found.note.startswith("At least ")
    values, errors = bent.predict(np.array(found.row))
    assert list(found.predicted.values()) == values.tolist()
    assert list(found.errors.values()) == errors.tolist()


def test_its_weights_are_what_the_mixture_asks_for(bent):
    """Of (3.3, 1.3), wanted with equal room: half of the first two adapters, so three quarters helpful."""
    found = at_least(bent, NAMES, {"helpful": 3.3, "brief": 1.3})
    assert found.row == pytest.approx((0.5, 0.5, 0.0), abs=1e-5)
    assert found.weights == pytest.approx({"helpful": 0.75, "brief": 0.25}, abs=1e-5)
    assert sum(found.weights.values()) == pytest.approx(1.0)


def test_what_lies_beyond_is_told_by_how_much(bent):
    """4 of one is all there is; (3.3, 2.3) is missed on the line from (4, 0) to (2.6, 2.6) by as much of each."""
    found = at_least(bent, NAMES, {"brief": 5.5})
    assert not found.reached
    assert found.lacking == pytest.approx({"brief": 1.5})
    assert found.note == "No mixture reaches brief 5.50: the most of it is 4.00, which is 1.50 less."
    both = at_least(bent, NAMES, {"helpful": 3.3, "brief": 2.3})
    share = np.linspace(0, 1, 100001)
    line = np.outer(1 - share, [4.0, 0.0]) + np.outer(share, [2.6, 2.6])
    slack = (np.array([3.3, 2.3]) - line).max(axis=1).min()
    assert both.lacking == pytest.approx({"helpful": slack, "brief": slack}, abs=1e-3)
    assert both.note == (
        "No mixture reaches helpful 3.30 and brief 2.30 together: "
        f"the nearest one lacks {slack:.2f} of helpful and {slack:.2f} of brief."
    )


def test_the_note_names_all_that_was_wanted_and_all_that_comes(bent):
    note = at_least(bent, NAMES, {"helpful": 2.6, "brief": 2.6}).note
    assert note == (
        "At least helpful 2.60 and brief 2.60 can be had: this mixture is predicted to attain "
        "helpful 2.60 ± 0.10 and brief 2.60 ± 0.10."
    )


def test_nan_wants_nothing(bent):
    assert at_least(bent, NAMES, {"helpful": 3.0, "brief": NAN}) == at_least(bent, NAMES, {"helpful": 3.0})


@pytest.mark.parametrize("wanted", [{}, {"helpful": NAN}])
def test_no_wish_is_refused(bent, wanted):
    with pytest.raises(DataError, match="nothing is wanted"):
        at_least(bent, NAMES, wanted)


def test_infinity_and_unknown_objectives_are_refused(bent):
    with pytest.raises(DataError, match="at least one finite"):
        at_least(bent, NAMES, {"helpful": float("inf")})
    with pytest.raises(PreferenceError, match="did you mean 'helpful'"):
        at_least(bent, NAMES, {"helpfull": 1.0})


def test_a_flat_objective_is_reached_or_missed_as_it_is():
    """All adapters have 1 of brief: 1 of it is reached, 2 is not."""
    flat = fit_calibration(np.eye(2), np.array([[4.0, 1.0], [0.0, 1.0]]), np.full((2, 2), 0.1), np.eye(2))
    assert at_least(flat, NAMES, {"brief": 1.0}).reached
    assert at_least(flat, NAMES, {"brief": 2.0}).lacking == pytest.approx({"brief": 1.0})
