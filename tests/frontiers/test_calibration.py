"""The calibrated map: exact in a quadratic world, linear where nothing is known, inverted on known targets."""

import json

import numpy as np
import pytest

from moalign.errors import DataError
from moalign.frontiers import Calibration, blend, fit_calibration, lattice, neighbours

NAN = float("nan")


def quadratic(rows, adapters, curvatures):
    """V(x) = sum_a x_a V_a + sum_{a<b} x_a x_b c_ab, the sum written out."""
    k = rows.shape[1]
    bent = sum(np.outer(rows[:, a] * rows[:, b], curvatures[a, b]) for a in range(k) for b in range(a + 1, k))
    return rows @ adapters + bent


def arc(curve=1.2, blends=(0.5,)):
    """Two adapters at (4, 0) and (0, 4) whose middle lies curve / 4 above the line, in both objectives."""
    rows = np.array([[1.0, 0.0], [0.0, 1.0], *([t, 1 - t] for t in blends)])
    return rows, quadratic(rows, np.array([[4.0, 0.0], [0.0, 4.0]]), np.full((2, 2, 2), curve))


def fitted(rows, values, preferences=None, **settings):
    if preferences is None:
        preferences = np.eye(rows.shape[1])
    return fit_calibration(rows, values, np.zeros_like(values), preferences, **settings)


@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_world_is_recovered(seed):
    """Four adapters, random curvatures for all six pairs, twelve blends: elsewhere to 1e-4."""
    rng = np.random.default_rng(seed)
    adapters, curvatures = rng.normal(size=(4, 3)), rng.normal(size=(4, 4, 3))
    rows = np.vstack([np.eye(4), rng.dirichlet(np.ones(4), size=12)])
    found = fitted(rows, quadratic(rows, adapters, curvatures))
    elsewhere = rng.dirichlet(np.ones(4), size=20)
    predicted = np.array([found.predict(row)[0] for row in elsewhere])
    np.testing.assert_allclose(predicted, quadratic(elsewhere, adapters, curvatures), atol=1e-4)
    assert (found.error < 1e-3 * found.spread).all()


def test_without_blends_it_is_linear_and_says_how_much_it_may_bend():
    """Halfway the prior of c / 4 has deviation spread sqrt(1 + 1/4) / 4, beside the adapters' own errors."""
    values = np.array([[4.0, 0.0], [0.0, 2.0]])
    found = fit_calibration(np.eye(2), values, np.full((2, 2), 0.1), np.eye(2))
    attained, errors = found.predict(np.array([0.5, 0.5]))
    assert attained == pytest.approx([2.0, 1.0])
    assert errors == pytest.approx([np.sqrt(s**2 * 1.25 / 16 + 0.1**2 / 2) for s in (4.0, 2.0)])
    assert found.predict(np.array([1.0, 0.0]))[1] == pytest.approx([0.1, 0.1])
    assert np.isnan(found.error).all()


def test_the_error_is_that_of_refits_without_each_blend():
    """Noisy blends of three adapters; the adapters stay, so each refit has the same units and distances."""
    rng = np.random.default_rng(5)
    preferences = lattice(3, 1)
    rows = np.vstack([np.eye(3), rng.dirichlet(np.ones(3), size=6)])
    values = quadratic(rows, rng.normal(size=(3, 2)), rng.normal(size=(3, 3, 2))) + rng.normal(0, 0.1, size=(9, 2))
    errors = np.full((9, 2), 0.1)
    missed = []
    for i in range(3, 9):
        rest = np.delete(np.arange(9), i)
        refit = fit_calibration(rows[rest], values[rest], errors[rest], preferences)
        missed.append(values[i] - refit.predict(rows[i])[0])
    found = fit_calibration(rows, values, errors, preferences)
    assert found.error == pytest.approx(np.sqrt((np.array(missed) ** 2).mean(axis=0)))


def test_predictions_miss_by_what_they_say():
    """Worlds drawn from the model: the misses over the stated errors have a mean square of 1, within 15 %."""
    rng = np.random.default_rng(7)
    rows = np.vstack([np.eye(2), [[0.5, 0.5]]])
    x = np.array([0.2, 0.8])
    ratios = []
    for _ in range(400):
        ends = np.array([[0.0], [2.0]])
        curve = np.full((2, 2, 1), 2.0 * (rng.normal() + rng.normal(0, 0.5)))
        # The range is a given of the model: ends that are measured without error keep it so.
        errors = np.array([[0.0], [0.0], [0.3]])
        values = quadratic(rows, ends, curve) + errors * rng.normal(size=(3, 1))
        predicted, stated = fit_calibration(rows, values, errors, np.eye(2)).predict(x)
        ratios.append(((predicted - quadratic(x[None], ends, curve)[0]) / stated) ** 2)
    assert np.mean(ratios) == pytest.approx(1, abs=0.15)


def test_noise_is_shared_out_by_its_size():
    """Two measurements of one blend, 3.0 with error 0.1 and 1.0 with error 1: the first counts a hundred times more."""
    rows, values = arc(blends=(0.5, 0.5))
    values[2], values[3] = 3.0, 1.0
    errors = np.array([[0.0, 0.0], [0.0, 0.0], [0.1, 0.1], [1.0, 1.0]])
    middle = fit_calibration(rows, values, errors, np.eye(2)).predict(np.array([0.5, 0.5]))[0]
    assert middle == pytest.approx([(3.0 + 0.01) / 1.01] * 2, abs=0.02)


def test_the_best_row_for_a_preference():
    """w.V = 4 (w_1 x + w_2 (1 - x)) + c x (1 - x) is highest at x = 1/2 + 4 (w_1 - w_2) / (2 c), clipped."""
    found = fitted(*arc(curve=4.0))
    for weight in (0.5, 0.6, 0.8):
        row = found.row_for_preference(np.array([weight, 1 - weight]))
        assert row[0] == pytest.approx(0.5 + (2 * weight - 1) / 2, abs=1e-3)
    assert found.row_for_preference(np.array([1.0, 0.0])).tolist() == pytest.approx([1.0, 0.0], abs=1e-3)


def test_units_scale_the_weights():
    """Objective 1 in hundredths: its weight counts only after it is divided by its unit."""
    rows, values = arc(curve=4.0)
    values[:, 1] *= 100
    found = fitted(rows, values)
    plain = fitted(*arc(curve=4.0)).row_for_preference(np.array([0.6, 0.4]))
    scaled = found.row_for_preference(np.array([0.6, 0.4]), scale=np.array([1.0, 100.0]))
    assert scaled == pytest.approx(plain, abs=1e-3)
    assert found.row_for_preference(np.array([0.6, 0.4]))[0] < 0.1


@pytest.mark.parametrize("t", [0.1, 0.5, 0.77])
def test_values_on_the_front_are_hit(t):
    """What the row (t, 1 - t) attains is asked for: only that row attains it."""
    found = fitted(*arc())
    wanted = found.predict(np.array([t, 1 - t]))[0]
    row, reached, lacking = found.row_for_values(wanted)
    assert row == pytest.approx([t, 1 - t], abs=1e-5)
    assert reached
    assert lacking == pytest.approx([0, 0], abs=1e-5)


def test_values_in_a_triangle_are_hit():
    """Three objectives, a corner each, curved: the values of a row inside belong to no edge."""
    rows = np.vstack([np.eye(3), (np.ones((3, 3)) - np.eye(3)) / 2])
    values = quadratic(rows, np.eye(3) * 4, np.ones((3, 3, 3)))
    found = fitted(rows, values)
    inside = np.array([0.2, 0.5, 0.3])
    row, reached, _ = found.row_for_values(found.predict(inside)[0])
    assert reached
    assert row == pytest.approx(inside, abs=1e-4)


def test_values_beyond_the_front_are_missed_evenly():
    """(4, 4) lies 1.7 beyond the middle (2.3, 2.3) of the arc in both."""
    row, reached, lacking = fitted(*arc()).row_for_values(np.array([4.0, 4.0]))
    assert row == pytest.approx([0.5, 0.5], abs=1e-3)
    assert not reached
    assert lacking == pytest.approx([1.7, 1.7], abs=1e-2)


def test_where_anything_goes_nothing_is_lacked():
    row, reached, lacking = fitted(*arc()).row_for_values(np.array([NAN, 3.0]))
    assert reached
    assert lacking.tolist() == [0.0, 0.0]
    assert row[1] > 0.9  # the most room above 3 is at the corner
    _, reached, lacking = fitted(*arc()).row_for_values(np.array([NAN, 5.0]))
    assert not reached
    assert lacking == pytest.approx([0.0, 1.0], abs=1e-2)


def test_only_neighbours_are_mixed():
    """Three adapters on a line: rows of two, unless the pairs that are given say otherwise."""
    preferences = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    values = np.array([[4.0, 0.0], [2.0, 2.5], [0.0, 4.0]])
    found = fitted(np.eye(3), values, preferences)
    assert found.pairs == ((0, 1), (1, 2))
    wanted = np.array([3.0, 1.2])
    row, reached, _ = found.row_for_values(wanted)
    assert reached
    np.testing.assert_allclose(row, blend(preferences, np.array([row[0] + row[1] / 2, row[2] + row[1] / 2])), atol=1e-9)
    assert row[2] == 0
    far = fitted(np.eye(3), values, preferences, pairs=[(0, 2)]).row_for_values(wanted)
    assert far[0][1] == 0
    assert not far[1]


def test_a_branch_is_a_neighbour_though_it_has_the_preference_of_what_it_came_from():
    """The third adapter shares the first's preference: it bends against it, and is its neighbour in the values."""
    preferences = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    values = np.array([[4.0, 0.0], [0.0, 4.0], [3.0, 2.0]])
    rows = np.vstack([np.eye(3), [[0.5, 0.0, 0.5]]])
    found = fitted(rows, np.vstack([values, [[3.8, 1.3]]]), preferences)
    assert (0, 2) in found.pairs
    assert found.predict(rows[3])[0] == pytest.approx([3.8, 1.3], abs=1e-2)


def test_unknown_errors_and_values():
    """A NaN error is the median of the others, 0.2; a row with a NaN value is as if it were not there."""
    rows, values = arc(blends=(0.5, 0.3))
    values[3, 1] = NAN
    errors = np.array([[0.1, NAN], [0.2, NAN], [NAN, NAN], [0.9, 0.9]])
    found = fit_calibration(rows, values, errors, np.eye(2))
    assert found.rows.tolist() == rows[:3].tolist()
    assert found.errors[:, 0] == pytest.approx([0.1, 0.2, 0.15])
    assert found.errors[:, 1].tolist() == [0.04] * 3


def test_a_flat_objective_stays_flat():
    rows, values = arc()
    values[:, 1] = 7.0
    found = fitted(rows, values)
    assert found.predict(np.array([0.3, 0.7]))[0][1] == pytest.approx(7.0)
    assert found.row_for_preference(np.array([0.0, 1.0])).sum() == pytest.approx(1)


def test_one_adapter():
    found = fitted(np.ones((1, 1)), np.array([[1.0, 2.0]]), np.array([[0.5, 0.5]]))
    assert found.predict(np.ones(1))[0] == pytest.approx([1.0, 2.0])
    assert found.row_for_preference(np.array([0.5, 0.5])).tolist() == [1.0]
    assert found.row_for_values(np.array([1.0, 2.0]))[1]


def test_it_survives_json():
    rows, values = arc(blends=(0.5, 0.25))
    for found in (fitted(rows, values), fitted(rows[:2], values[:2])):
        record = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        again = Calibration.from_dict({**record, "fitted_at": 3})
        np.testing.assert_array_equal(again.error, found.error)
        for row in lattice(2, 7):
            np.testing.assert_array_equal(again.predict(row), found.predict(row))
        assert again.pairs == found.pairs
    with pytest.raises(DataError, match="lacks 'rows'; it has values"):
        Calibration.from_dict({"values": []})


def test_what_was_not_measured_alone_is_named():
    with pytest.raises(DataError, match="adapter 0, 2 of 3 was not measured alone"):
        fitted(np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]), np.zeros((2, 2)), np.eye(3))
    with pytest.raises(DataError, match="adapter 1 of 2 was not measured alone"):
        fitted(np.eye(2), np.array([[1.0], [NAN]]))


@pytest.mark.parametrize("row", [[0.5, 0.6], [1.5, -0.5], [0.5, 0.25, 0.25], [NAN, 0.5]])
def test_rows_that_are_no_mixture_are_refused(row):
    with pytest.raises(DataError, match=r"mixing rows of .*; expected 2 weights >= 0 of sum 1"):
        fitted(*arc()).predict(np.array(row))


@pytest.mark.parametrize("wanted", [[NAN, NAN], [1.0], [1.0, np.inf]])
def test_wanted_values_that_say_nothing_are_refused(wanted):
    with pytest.raises(DataError, match=r"the wanted values are .*; expected 2 numbers"):
        fitted(*arc()).row_for_values(np.array(wanted))


def test_weights_that_cannot_be_used_are_refused():
    with pytest.raises(DataError, match=r"weights \[nan, 1.0\] in units of .*; expected 2 finite weights"):
        fitted(*arc()).row_for_preference(np.array([NAN, 1.0]))
    with pytest.raises(DataError, match="units above 0"):
        fitted(*arc()).row_for_preference(np.array([1.0, 1.0]), scale=np.array([1.0, 0.0]))


def test_the_default_pairs_are_neighbours_in_preferences_or_values():
    rng = np.random.default_rng(0)
    preferences, values = lattice(3, 2), rng.normal(size=(6, 3))
    found = fitted(np.eye(6), values, preferences)
    assert set(found.pairs) == set(neighbours(preferences)) | set(neighbours(values))


def test_nothing_is_written_to(immutable):
    rows, values = arc()
    found = immutable(fit_calibration, rows, values, np.zeros_like(values), np.eye(2))
    immutable(found.predict, np.array([0.5, 0.5]))
    immutable(found.row_for_values, np.array([1.0, 1.0]))
