"""Linear support: exact on what can be enumerated, and calm under noise."""

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import linprog

from moalign.frontiers import corners
from moalign.frontiers.explorers import LinearSupport
from moalign.frontiers.explorers.linear_support import corner_weights, optimistic


def coverage_set(vectors):
    """By enumeration: those vectors that are the only best ones for some weights (a linear program for each)."""
    n, m = vectors.shape
    found = []
    for k in range(n):
        others = np.delete(vectors, k, axis=0)
        margin = linprog(  # maximise t with w.y_k >= w.y_j + t for all j
            np.append(np.zeros(m), -1.0),
            A_ub=np.hstack([others - vectors[k], np.ones((n - 1, 1))]),
            b_ub=np.zeros(n - 1),
            A_eq=[[1.0] * m + [0.0]],
            b_eq=[1.0],
            bounds=[(0, None)] * m + [(None, None)],
        )
        if -margin.fun > 1e-7:
            found.append(k)
    return set(found)


def sweep(vectors, batch=1, points=999):
    """Every answer is the best vector for the preference; returns the calls, and which vectors were found."""
    explorer, answers = LinearSupport(vectors.shape[1], points), []
    while len(rows := explorer.ask(batch)):
        best = (rows @ vectors.T).argmax(axis=1)
        explorer.tell(rows, vectors[best], np.zeros(rows.shape))
        answers += best.tolist()
    return len(answers), set(answers)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("m", "n", "seed"), [(2, 30, 0), (2, 200, 1), (3, 20, 2), (3, 60, 3), (4, 20, 4)])
def test_it_finds_the_whole_convex_coverage_set_and_stops(m, n, seed, batch):
    """Every call finds a new vector or proves that a corner weight has none: at most one call for each."""
    rng = np.random.default_rng(seed)
    vectors = np.abs(rng.normal(size=(n, m)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) ** rng.uniform(0.9, 1, size=(n, 1))
    calls, found = sweep(vectors * 100, batch)
    wanted = coverage_set(vectors)
    assert found == wanted
    assert len(wanted) > 5
    if batch == 1:
        assert calls <= len(wanted) + len(corner_weights(vectors[sorted(wanted)]))


@pytest.mark.parametrize(("m", "seed"), [(2, 0), (3, 1), (3, 2), (4, 3)])
def test_corner_weights_by_enumeration(m, seed):
    """Vertices: where m of the planes v = w.y_k and of the sides w_i = 0 meet, and no plane lies above."""
    values = np.random.default_rng(seed).normal(size=(7, m))
    planes = np.hstack([values, -np.ones((7, 1))])
    sides = np.hstack([np.eye(m), np.zeros((m, 1))])
    found = []
    for chosen in combinations(np.vstack([planes, sides]), m):
        system = np.vstack([*chosen, np.append(np.ones(m), 0.0)])
        if abs(np.linalg.det(system)) > 1e-9:
            vertex = np.linalg.solve(system, np.append(np.zeros(m), 1.0))
            if (vertex[:m] > -1e-9).all() and (values @ vertex[:m] <= vertex[m] + 1e-9).all():
                found.append(vertex[:m])
    expected = np.unique(np.round(np.abs(found), 6), axis=0)[::-1]
    np.testing.assert_allclose(corner_weights(values), expected, atol=2e-6)


@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.eye(3)[:1], np.eye(3)[[0, 0, 1]], np.tri(3)])
def test_corner_weights_of_flat_and_equal_values_hold_the_corners(values):
    found = {tuple(row) for row in corner_weights(values)}
    assert {tuple(row) for row in corners(3)} <= found


def test_the_bound_is_what_no_told_point_forbids():
    """Told (4, 0) and (0, 2) at the corners, (3, 1.5) at (1/2, 1/2): y <= (4, 2) and y_1 + y_2 <= 4.5.

    At (1/3, 2/3) the best is then y = (2.5, 2): 13/6.
    """
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    values = np.array([[4.0, 0.0], [0.0, 2.0], [3.0, 1.5]])
    found = optimistic(weights, values, np.array([[1 / 3, 2 / 3], [1.0, 0.0]]))
    np.testing.assert_allclose(found, [13 / 6, 4.0], rtol=1e-6)


def told(errors, values=((4.0, 0.0), (0.0, 2.0))):
    """The corners told; then the only kink is at (1/3, 2/3), where V is 4/3 and U is 8/3: a gain of 4/3."""
    explorer = LinearSupport(2, points=9)
    explorer.tell(explorer.ask(2), np.array(values), np.full((2, 2), errors))
    return explorer


@pytest.mark.parametrize(("error", "asked"), [(0.0, 1), (np.nan, 1), (1.32, 1), (1.35, 0)])
def test_it_ends_where_the_gain_is_below_the_noise(error, asked):
    """The error of w.y is 1/3 e + 2/3 e = e, against a gain of 4/3."""
    assert len(told(error).ask(9)) == asked


def test_the_larger_gain_comes_first():
    """Corners (9, 0) and (0, 9) and (8, 3) at the centre, so that y_1 + y_2 <= 11: kinks at 3/4 and at 3/7.

    At 3/7 the bound is y = (2, 9), 6 against 36/7: a gain of 6/7. At 3/4 it is (9, 2), 7.25 against 6.75: 1/2.
    """
    explorer = told(0.0, ((9.0, 0.0), (0.0, 9.0)))
    middle = explorer.ask(9)
    np.testing.assert_allclose(middle, [[0.5, 0.5]])
    explorer.tell(middle, np.array([[8.0, 3.0]]), np.zeros((1, 2)))
    asked = explorer.ask(9)
    np.testing.assert_allclose(asked[:, 0], [3 / 7, 3 / 4])
    known, values = np.vstack([corners(2), middle]), np.array([[9.0, 0.0], [0.0, 9.0], [8.0, 3.0]])
    gains = optimistic(known, values, asked) - (asked @ values.T).max(axis=1)
    np.testing.assert_allclose(gains, [6 / 7, 1 / 2])


def test_points_that_contradict_each_other_are_no_error():
    """At the centre (0.1, 0.1) was measured where (1, 0) attains 0.5: the larger one counts, and nothing is left."""
    explorer = told(0.01, ((1.0, 0.0), (0.0, 1.0)))
    explorer.tell(np.array([[0.5, 0.5]]), np.array([[0.1, 0.1]]), np.full((1, 2), 0.01))
    assert len(explorer.ask(9)) == 0


def test_a_corner_that_was_not_measured_is_bounded_by_the_best_that_was():
    """Without the corner of objective 2, its most is the 1 that is known; y_1 + y_2 <= 3 + 1 leaves nothing else."""
    explorer = told(0.0, ((4.0, 0.0), (np.nan, 2.0)))
    explorer.tell(np.array([[0.5, 0.5]]), np.array([[3.0, 1.0]]), np.zeros((1, 2)))
    assert len(explorer.ask(9)) == 0
    explorer.tell(np.array([[0.2, 0.8]]), np.array([[0.0, 2.0]]), np.zeros((1, 2)))
    assert len(explorer.ask(9)) > 0
