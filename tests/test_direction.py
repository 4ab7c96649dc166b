"""Directions: normalised and readable, drawn as the closed forms say, and never outside their cone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from moalign.direction import Direction, along, choose, nearby, sample_directions
from moalign.errors import ConfigError, PreferenceError
from moalign.preference import Preference

names = st.text("abcdefgh_-. ", min_size=1).filter(lambda name: name == name.strip())
components = st.dictionaries(names, st.floats(-1e6, 1e6), min_size=1, max_size=5).filter(
    lambda items: max(map(abs, items.values())) > 1e-6
)
CENTRES = {2: [1.0, 1.0], 3: [0.2, -1.0, 2.0], 4: [-3.0, 0.1, 0.5, 1.0]}


@settings(deadline=None)
@given(components)
def test_length_is_one_in_the_components_ratios(items):
    """v / ||v||_2, to the twelve digits that are kept; and doing it again changes nothing."""
    direction = Direction.of(items)
    length = math.sqrt(math.fsum(value**2 for value in items.values()))
    assert direction.components == pytest.approx({n: c / length for n, c in items.items()}, abs=1e-12)
    assert Direction.of(direction.components).components == pytest.approx(direction.components, abs=2e-12)
    assert Direction.of(dict(reversed(items.items()))) == direction


@pytest.mark.parametrize("text", ["helpful=3,brief=-4", "brief=-0.8,helpful=0.6", " helpful = 30 , brief = -4e1, "])
def test_parse(text):
    """Ways to write one direction; it has one key, one vector and one text."""
    direction = Direction.parse(text)
    assert direction == Direction.of({"helpful": 0.6, "brief": -0.8})
    assert direction.key == "brief-m80-helpful60"
    assert str(direction) == "brief=-0.8,helpful=0.6"
    assert Direction.parse(str(direction)) == direction


def test_large_numbers_have_a_length_too():
    """Their squares' sum is infinite, and the direction is that of 3 and 4 all the same."""
    assert Direction.of({"a": 3e307 * 4, "b": -4e307 * 4}).components == pytest.approx({"a": 0.6, "b": -0.8})
    assert Direction.of({"a": 1.7e308, "b": 1.7e308}).components == pytest.approx(dict.fromkeys("ab", 0.5**0.5))


def test_component_zero_is_kept_and_not_in_the_key():
    axis = Direction.of({"helpful": 2.0, "brief": 0.0})
    assert axis.components == {"brief": 0.0, "helpful": 1.0}
    assert axis.key == "helpful100"


def test_vector_follows_the_objectives_order():
    direction = Direction.parse("helpful=3,brief=-4")
    np.testing.assert_array_equal(direction.vector(["brief", "warm", "helpful"]), [-0.8, 0.0, 0.6])
    with pytest.raises(PreferenceError, match="unknown objective 'helpful'; did you mean 'helpfull'"):
        direction.vector(["helpfull", "brief"])


@pytest.mark.parametrize("degrees", [0.0, 1e-5, 30.0, 90.0, 135.0, 180.0])
def test_angle(degrees):
    """Of (1, 0) and (cos a, sin a); the arc cosine of their product is off by 1e-6 degrees near 0, this by 1e-9."""
    turned = Direction.of({"a": math.cos(math.radians(degrees)), "b": math.sin(math.radians(degrees))})
    assert Direction.of({"a": 5.0}).angle(turned) == pytest.approx(degrees, abs=1e-9)
    assert turned.angle(Direction.of({"a": 5.0})) == pytest.approx(degrees, abs=1e-9)


def test_from_a_preference_and_back():
    """w / ||w||_2 and |v| / ||v||_1 are each other's inverse; a negative component is no weight."""
    preference = Preference.parse("helpful=0.7,brief=0.3")
    direction = Direction.toward(preference)
    assert direction.components == pytest.approx({"helpful": 0.7 / 0.58**0.5, "brief": 0.3 / 0.58**0.5}, abs=1e-12)
    back = direction.preference()
    assert back is not None
    assert back.weights == pytest.approx(preference.weights, abs=1e-11)
    assert Direction.parse("helpful=1,brief=0").preference() == Preference.parse("helpful=1,brief=0")
    assert Direction.parse("helpful=1,brief=-0.1").preference() is None


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({}, "a direction needs at least one component, such as helpful=0.7,brief=-0.2"),
        ({"a": math.nan, "b": 1.0}, "component of 'a' is nan; expected a finite number"),
        ({"a": -math.inf}, "component of 'a' is -inf"),
        ({"a": 0.0, "b": 0.0}, "all components are 0 (a, b); at least one must not be"),
    ],
)
def test_no_direction(items, message):
    with pytest.raises(PreferenceError) as caught:
        Direction.of(items)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" , ", "needs at least one component"),
        ("helpful", "cannot read 'helpful'; expected NAME=COMPONENT, such as helpful=0.7,brief=-0.2"),
        ("helpful=lots", "cannot read 'helpful=lots'"),
        ("=1", "cannot read '=1'"),
        ("a=b=1", "cannot read 'a=b=1'"),
        ("helpful=1,helpful=2", "'helpful' is given twice in 'helpful=1,helpful=2'"),
        ("helpful=nan", "component of 'helpful' is nan"),
    ],
)
def test_text_that_is_no_direction(text, message):
    with pytest.raises(PreferenceError) as caught:
        Direction.parse(text)
    assert message in str(caught.value)


# Drawing


def drawn(kind, m, cone, count=4000, seed=0):
    """Directions around a slanted centre; their angles to it, and the unit vectors of the side they open to."""
    centre = np.array(CENTRES[m]) / np.linalg.norm(CENTRES[m])
    found = sample_directions(count, np.array(CENTRES[m]), cone, kind, np.random.default_rng(seed))
    cosine = found @ centre
    rest = found - cosine[:, None] * centre
    sine = np.linalg.norm(rest, axis=1)
    sides = rest / np.where(sine > 1e-9, sine, 1.0)[:, None]
    return found, np.degrees(np.arctan2(sine, cosine)), sides


@pytest.mark.parametrize("kind", ["uniform_angle", "sphere_cone", "grid"])
@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("cone", [1.0, 45.0, 120.0, 180.0])
def test_length_one_and_within_the_cone(kind, m, cone):
    found, angles, _ = drawn(kind, m, cone, 500)
    assert found.shape == (500, m)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-12)
    assert angles.max() <= cone + 1e-9
    assert angles.max() > 0.9 * cone


def share_of_cap(degrees, m, cone):
    """Area of a cap over that of the cone's: a for m=2, 1 - cos a for m=3, a - sin a cos a for m=4."""
    area = {2: lambda a: a, 3: lambda a: 1 - np.cos(a), 4: lambda a: a - np.sin(a) * np.cos(a)}[m]
    return area(np.radians(degrees)) / area(np.radians(cone))


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("cone", [30.0, 150.0])
def test_angles_have_the_distribution_of_their_kind(m, cone):
    """Kolmogorov and Smirnov against the closed forms; each kind fails the other's test, but for two objectives."""
    _, even, _ = drawn("uniform_angle", m, cone)
    _, area, _ = drawn("sphere_cone", m, cone)
    assert kstest(even / cone, "uniform").pvalue > 0.01
    assert kstest(area, lambda a: share_of_cap(a, m, cone)).pvalue > 0.01
    if m > 2:
        assert kstest(area / cone, "uniform").pvalue < 1e-6
        assert kstest(even, lambda a: share_of_cap(a, m, cone)).pvalue < 1e-6


@pytest.mark.parametrize("kind", ["uniform_angle", "sphere_cone"])
def test_the_side_is_uniform(kind):
    """m=2: left as often as right. m=3: the azimuth. m=4: any coordinate of the sphere of sides (Archimedes)."""
    _, angles, sides = drawn(kind, 2, 45.0)
    left = sides @ [-1.0, 1.0] > 0
    assert abs(left.mean() - 0.5) < 3 * 0.5 / 4000**0.5
    assert abs(angles[left].mean() - angles[~left].mean()) < 3 * 13 * (2 / 2000) ** 0.5
    for m in (3, 4):
        _, angles, sides = drawn(kind, m, 45.0)
        basis = np.linalg.svd(np.array([CENTRES[m]]))[2][1:]  # across the centre
        across = sides @ basis.T
        if m == 3:
            azimuth = np.arctan2(across[:, 1], across[:, 0])
            assert kstest(azimuth / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01
        else:
            assert all(kstest((each + 1) / 2, "uniform").pvalue > 0.01 for each in across.T)
        # ... whatever the angle is: one half of the angles has its sides where the other has them.
        near = angles < np.median(angles)
        gap = across[near].mean(0) - across[~near].mean(0)
        assert np.abs(gap).max() < 4 * (m - 1) ** -0.5 * (2 / 2000) ** 0.5


def test_a_grid_of_two_objectives_is_the_papers_range():
    """Ten angles from -45 to 45 degrees, whatever the generator; one is the centre."""
    found = sample_directions(10, np.array([2.0, 0.0]), 45.0, "grid", np.random.default_rng(1))
    np.testing.assert_allclose(np.degrees(np.arctan2(found[:, 1], found[:, 0])), np.arange(-45, 46, 10), atol=1e-12)
    one = sample_directions(1, np.array([3.0, 4.0]), 45.0, "grid", np.random.default_rng(1))
    np.testing.assert_allclose(one, [[0.6, 0.8]], atol=1e-15)
    assert sample_directions(0, np.array([3.0, 4.0, 0.0]), 45.0, "grid", np.random.default_rng(1)).shape == (0, 3)


@pytest.mark.parametrize("centre", [[1.0, 1.0], [-1.0, 0.3], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])
def test_a_grid_of_two_objectives_turns_one_way_round_any_centre(centre):
    """Counter-clockwise, from -60 to 60 degrees of the centre."""
    found = sample_directions(5, np.array(centre), 60.0, "grid", np.random.default_rng(0))
    turned = np.arctan2(centre[0] * found[:, 1] - centre[1] * found[:, 0], found @ centre)
    np.testing.assert_allclose(np.degrees(turned), [-60, -30, 0, 30, 60], atol=1e-9)


@pytest.mark.parametrize("m", [3, 4])
def test_a_grid_of_more_objectives_spreads_evenly(m):
    """The i-th vector is at (i + 1/2)/n of the area, and the nearest two are further apart than of any random set."""
    found, angles, _ = drawn("grid", m, 60.0, 100)
    np.testing.assert_allclose(share_of_cap(angles, m, 60.0), (np.arange(100) + 0.5) / 100, atol=1e-3)

    def nearest(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(len(points), 1)].min()

    assert nearest(found) > max(nearest(drawn("sphere_cone", m, 60.0, 100, seed)[0]) for seed in range(20))


def test_the_generator_decides():
    one, same, other = (drawn("sphere_cone", 3, 45.0, 5, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize(
    ("centre", "cone", "kind", "message"),
    [
        ([1.0], 45.0, "grid", r"around \[1.0\]; expected at least 2 numbers"),
        ([0.0, 0.0], 45.0, "grid", "that are not all 0"),
        ([math.nan, 1.0], 45.0, "grid", "expected at least 2 numbers"),
        ([1.0, 1.0], 0.0, "grid", "a cone of 0 degrees; expected more than 0 and at most 180"),
        ([1.0, 1.0], 181.0, "grid", "a cone of 181 degrees"),
        ([1.0, 1.0], math.nan, "grid", "a cone of nan degrees"),
    ],
)
def test_what_cannot_be_drawn(centre, cone, kind, message):
    with pytest.raises(ConfigError, match=message):
        sample_directions(3, np.array(centre), cone, kind, np.random.default_rng(0))


# Choosing


def test_along_and_choose():
    """v . r = 0.6 a - 0.8 b, by hand: -0.2, 1.4, 0, nan; of a tie the first."""
    scores, direction = np.array([[1.0, 1.0], [1.0, -1.0], [4.0, 3.0], [np.nan, -9.0]]), np.array([0.6, -0.8])
    np.testing.assert_allclose(along(scores, direction), [-0.2, 1.4, 0.0, np.nan], atol=1e-15)
    assert choose(scores, direction) == 1
    assert choose(-scores, direction) == 0
    assert choose(scores[[0, 1, 1]], direction) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_chosen(bad):
    """Unless the direction has 0 there, and so asks for nothing."""
    scores = np.array([[bad, 1.0], [-5.0, 0.0]])
    assert choose(scores, np.array([0.6, 0.8])) == 1
    assert choose(scores, np.array([0.0, 1.0])) == 0
    assert choose(scores[:1], np.array([0.6, 0.8])) is None


def test_nearby_directions_stay_within_their_cone():
    centre = Direction.parse("helpful=2,brief=-1,warm=0")
    near = nearby(centre, 50, 30.0, np.random.default_rng(0))
    angles = [centre.angle(each) for each in near]
    assert len(set(near)) == 50
    assert max(angles) <= 30.0
    assert kstest(np.array(angles) / 30, "uniform").pvalue > 0.01
