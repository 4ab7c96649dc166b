"""Attainment surfaces against a count of the fronts, and resampled fronts against the means they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moalign.errors import ConfigError, DataError
from moalign.frontiers import attainment_bands, clustered_mean, hypervolume, non_dominated, resampled_fronts

NUMBERS = st.integers(0, 6).map(lambda i: i / 2)


@st.composite
def some_fronts(draw):
    """One to six fronts of no to five points, of one to three objectives, with ties and negative values."""
    m = draw(st.integers(1, 3))
    point = st.lists(NUMBERS.map(lambda value: value - 1), min_size=m, max_size=m)
    fronts = draw(st.lists(st.lists(point, max_size=5), min_size=1, max_size=6))
    return [np.array(front, dtype=float).reshape(-1, m) for front in fronts]


def attained(points, z):
    """Whether one of the points is at least z in every objective."""
    return bool((points >= z).all(axis=1).any())


@given(some_fronts())
def test_a_place_is_under_the_surface_when_enough_fronts_attain_it(fronts):
    """At the middle of every cell of the grid on which all values lie, for every number of fronts."""
    m, count = fronts[0].shape[1], len(fronts)
    places = np.stack(np.meshgrid(*[np.arange(-1.25, 2.5, 0.5)] * m), axis=-1).reshape(-1, m)
    levels = [c / count for c in range(1, count + 1)]
    shares = [sum(attained(front, z) for front in fronts) for z in places]
    for number, surface in enumerate(attainment_bands(fronts, levels), 1):
        assert [attained(surface, z) for z in places] == [share >= number for share in shares]
        assert non_dominated(surface).all()
        assert len(np.unique(surface, axis=0)) == len(surface)


def test_by_hand():
    """Of (1, 3)-(3, 1) and (2, 2), one attains each of the three points, both what is below their meeting."""
    fronts = [np.array([[3.0, 1.0], [1.0, 3.0]]), np.array([[2.0, 2.0]])]
    outer, inner = attainment_bands(fronts, (0.5, 1.0))
    assert outer.tolist() == [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]
    assert inner.tolist() == [[1.0, 2.0], [2.0, 1.0]]


def test_the_band_narrows_inward():
    """The surface of 5 % dominates more than the median, and that more than the surface of 95 %."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 6)
    fronts = [np.column_stack([x, 1 - x**2]) + rng.normal(0, 0.05, size=(6, 2)) for _ in range(40)]
    volumes = [hypervolume(surface, np.full(2, -1.0)) for surface in attainment_bands(fronts)]
    assert volumes[0] > volumes[1] > volumes[2]


def test_one_front_is_its_own_surface_at_every_level():
    front = np.array([[0.0, 2.0], [1.0, 1.0], [0.5, 0.5], [np.nan, 9.0]])
    for surface in attainment_bands([front]):
        assert surface.tolist() == [[0.0, 2.0], [1.0, 1.0]]


@pytest.mark.parametrize("count", [3, 7, 20, 100])
def test_a_level_is_the_least_number_of_fronts_with_that_share(count):
    """Fronts of one point, at 1 to `count`: the level p is attained by those from count + 1 - ceil(p count) on."""
    fronts = [np.array([[float(i), float(i)]]) for i in range(1, count + 1)]
    for share in (0.05, 0.5, 0.95, 3 / count, 1.0):
        expected = count + 1 - np.ceil(round(share * count, 9))
        assert attainment_bands(fronts, (share,))[0].tolist() == [[expected, expected]]


def test_what_no_surface_can_show_is_refused():
    with pytest.raises(DataError, match="0 fronts of no objectives; expected at least one"):
        attainment_bands([])
    with pytest.raises(DataError, match="1 fronts of 4 objectives; expected at least one front, of 1 to 3"):
        attainment_bands([np.zeros((2, 4))])
    for level in (0.0, 1.1):
        with pytest.raises(ConfigError, match="expected shares of the fronts"):
            attainment_bands([np.zeros((2, 2))], (level,))


def scored(points=3, prompts=40, answers=3, seed=0):
    """Scores of points on the same prompts, unequal numbers of answers, and a difficulty that prompts share."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(prompts), rng.integers(1, answers + 1, size=prompts))
    hard = rng.normal(size=(prompts, 2))[cluster]
    return [hard + rng.normal(i, 0.3, size=(len(cluster), 2)) for i in range(points)], cluster


def test_draws_have_the_mean_and_the_error_of_the_clustered_mean():
    """2000 draws: the mean within 4 of its errors, the deviation within 6 % (one part in sqrt(4000), and 1/G)."""
    scores, cluster = scored()
    drawn = resampled_fronts(scores, cluster, np.random.default_rng(1), 2000)
    assert drawn.shape == (2000, 3, 2)
    for i, one in enumerate(scores):
        mean, error = clustered_mean(one, cluster)
        np.testing.assert_allclose(drawn[:, i].mean(axis=0), mean, atol=4 * error.max() / np.sqrt(2000))
        np.testing.assert_allclose(drawn[:, i].std(axis=0), error, rtol=0.06)


def test_all_points_share_the_draw():
    """Points that differ by a constant differ by it in every draw, whatever the prompts; and each draw is a mean."""
    scores, cluster = scored(points=1)
    drawn = resampled_fronts([scores[0], scores[0] + 2.0], cluster, np.random.default_rng(2), 50)
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], 2.0)
    one = resampled_fronts([scores[0]], cluster, np.random.default_rng(2), 50)
    np.testing.assert_allclose(one[:, 0], drawn[:, 0])


def test_one_prompt_is_always_drawn():
    drawn = resampled_fronts([np.array([[1.0], [4.0]])], np.array(["p", "p"]), np.random.default_rng(0), 5)
    assert drawn.tolist() == [[[2.5]]] * 5


def test_an_unknown_score_spoils_the_draws_that_have_it():
    """Two prompts, one unknown in objective 1: known only when the other was drawn twice, a quarter of the draws."""
    scores = np.array([[1.0, np.nan], [3.0, 5.0]])
    drawn = resampled_fronts([scores], np.array([0, 1]), np.random.default_rng(0), 400)[:, 0]
    twice = drawn[:, 0] == 3.0
    assert 60 < twice.sum() < 140
    assert np.isnan(drawn[~twice, 1]).all()
    assert (drawn[twice, 1] == 5.0).all()


def test_points_scored_on_other_prompts_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="2 points with 2, 3 scores each, for 3 answers; expected"):
        resampled_fronts([np.zeros((3, 2)), np.zeros((2, 2))], np.zeros(3), rng)
    with pytest.raises(DataError, match="0 points with no scores each, for 3 answers; expected at least one point"):
        resampled_fronts([], np.zeros(3), rng)
