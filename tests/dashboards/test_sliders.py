"""Sliders on the simplex: what holds for any weights, any move and any locks."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moalign.dashboards.sliders import moved
from moalign.errors import PreferenceError


@st.composite
def moves(draw):
    """Weights on the simplex, many of them 0 or 1, a slider, where it goes, and which are locked."""
    m = draw(st.integers(1, 9))
    parts = draw(st.lists(st.just(0.0) | st.floats(1e-9, 1.0), min_size=m, max_size=m).filter(any))
    weights = tuple(part / sum(parts) for part in parts)
    value = draw(st.floats(-0.5, 1.5) | st.sampled_from([0.0, 1.0, math.inf, -math.inf]))
    return weights, draw(st.integers(0, m - 1)), value, draw(st.sets(st.integers(0, m - 1)))


@settings(deadline=None, max_examples=400)
@given(moves())
@example(((0.0, 0.0, 0.8182029683349442, 0.09108900233416371, 0.0907080293308922), 0, 0.0, {2, 3, 4}))
def test_what_always_holds(move):
    """On the simplex, locks stand, the moved one is where it was put unless locks leave less, ratios are kept."""
    weights, place, value, locked = move
    result = moved(*move)
    free = [i for i in range(len(weights)) if i not in locked and i != place]
    if place in locked or not free:
        assert result == weights
        return
    held = math.fsum(weights[i] for i in locked)
    assert math.fsum(result) == 1.0 or (held >= 1.0 and math.fsum(result) == held)
    assert all(weight >= 0 for weight in result)
    assert all(result[i] == weights[i] for i in locked)
    room = 1 - sum(weights[i] for i in locked)
    assert result[place] == pytest.approx(max(min(value, room), 0), abs=1e-12)
    had = sum(weights[i] for i in free)
    for i in free:
        share = weights[i] / had if had else 1 / len(free)
        assert result[i] == pytest.approx((room - result[place]) * share, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(moves())
def test_the_same_move_again_changes_nothing(move):
    _, place, value, locked = move
    once = moved(*move)
    assert moved(once, place, value, locked) == pytest.approx(once, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(moves(), st.randoms())
def test_the_order_of_the_sliders_does_not_matter(move, random):
    weights, place, value, locked = move
    order = list(range(len(weights)))
    random.shuffle(order)
    shuffled = moved([weights[i] for i in order], order.index(place), value, {order.index(i) for i in locked})
    assert [shuffled[order.index(i)] for i in range(len(weights))] == pytest.approx(moved(*move), abs=1e-12)


def test_two_sliders_are_a_seesaw():
    assert moved((0.5, 0.5), 0, 0.8) == (0.8, pytest.approx(0.2))
    assert moved((1.0, 0.0), 0, 0.4) == (pytest.approx(0.4), pytest.approx(0.6))


def test_to_the_end_and_back_shares_evenly():
    """At 1 the others are 0 and what they were is gone."""
    end = moved((0.2, 0.7, 0.1), 0, 1.0)
    assert end == (1.0, 0.0, 0.0)
    assert moved(end, 0, 0.5) == (0.5, 0.25, 0.25)


def test_locks_of_all_others_hold_it_too():
    assert moved((0.2, 0.7, 0.1), 0, 0.9, {1, 2}) == (0.2, 0.7, 0.1)


@pytest.mark.parametrize("weights", [(0.5, 0.4), (-0.1, 1.1), (math.nan, 1.0), (math.inf, 0.0), ()])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(PreferenceError, match="expected weights >= 0 that sum to 1"):
        moved(weights, 0, 0.5)


def test_a_move_to_nowhere_is_refused():
    with pytest.raises(PreferenceError, match="moved to NaN"):
        moved((0.5, 0.5), 0, math.nan)
