"""A preference: normalised, comparable, readable, and refused where it is none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.errors import PreferenceError, UserError
from moalign.preference import Preference

names = st.text("abcdefgh_-. ", min_size=1).filter(lambda name: name == name.strip())
weights = st.dictionaries(names, st.floats(0, 1e6), min_size=1, max_size=5).filter(
    lambda items: sum(items.values()) > 1e-6
)


@settings(deadline=None)
@given(weights)
def test_weights_sum_to_one_in_their_ratios(items):
    """w_k / sum w, to the twelve digits that are kept."""
    preference = Preference.of(items)
    total = math.fsum(items.values())
    assert math.fsum(preference.weights.values()) == pytest.approx(1, abs=1e-11)
    assert preference.weights == pytest.approx({name: weight / total for name, weight in items.items()}, abs=1e-12)


@settings(deadline=None)
@given(weights, st.floats(1e-3, 1e3))
def test_scale_and_order_do_not_matter_much(items, scale):
    """Written backwards or ten times as large it is the same wish; to the last digit where the numbers allow."""
    preference = Preference.of(items)
    backwards = Preference.of(dict(reversed(items.items())))
    assert preference == backwards
    assert hash(preference) == hash(backwards)
    scaled = Preference.of({name: weight * scale for name, weight in items.items()})
    assert scaled.weights == pytest.approx(preference.weights, abs=2e-12)


@settings(deadline=None)
@given(weights)
def test_normalising_again_changes_nothing(items):
    preference = Preference.of(items)
    assert Preference.of(preference.weights).weights == pytest.approx(preference.weights, abs=2e-12)


@pytest.mark.parametrize(
    "text", ["helpful=7,brief=3", "brief=0.3,helpful=0.7", " helpful = 70 , brief = 30, ", "brief=3e-1,helpful=.7"]
)
def test_parse(text):
    """Ways to write one preference; it has one key, one vector and one text."""
    preference = Preference.parse(text)
    assert preference == Preference.of({"helpful": 0.7, "brief": 0.3})
    assert preference.key == "brief30-helpful70"
    assert str(preference) == "brief=0.3,helpful=0.7"
    assert Preference.parse(str(preference)) == preference


def test_weight_zero_is_kept():
    """It says what the preference is about, but it is not in the key."""
    corner = Preference.of({"helpful": 1.0, "brief": 0.0})
    assert corner.weights == {"brief": 0.0, "helpful": 1.0}
    assert corner.key == "helpful100"
    assert corner != Preference.of({"helpful": 1.0})
    assert Preference.of({"a": 1.0, "b": 1.0, "c": 1.0}).key == "a33.33-b33.33-c33.33"


def test_vector_follows_the_objectives_order():
    preference = Preference.parse("helpful=7,brief=3")
    np.testing.assert_array_equal(preference.vector(["brief", "warm", "helpful"]), [0.3, 0.0, 0.7])
    with pytest.raises(PreferenceError, match="unknown objective 'helpful'; did you mean 'helpfull'"):
        preference.vector(["helpfull", "brief"])
    with pytest.raises(PreferenceError, match="unknown objective 'brief'"):
        Preference.of({"helpful": 1.0, "brief": 0.0}).vector(["helpful"])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({}, "needs at least one weight, such as helpful=0.7,brief=0.3"),
        ({"a": -0.1, "b": 1.0}, "weight of 'a' is -0.1; weights must be >= 0"),
        ({"a": math.nan, "b": 1.0}, "weight of 'a' is nan; expected a finite number >= 0"),
        ({"a": math.inf}, "weight of 'a' is inf"),
        ({"a": 0.0, "b": 0.0}, "all weights are 0 (a, b); at least one must be positive"),
    ],
)
def test_no_preference(items, message):
    with pytest.raises(PreferenceError) as caught:
        Preference.of(items)
    assert message in str(caught.value)
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs at least one weight"),
        (" , ", "needs at least one weight"),
        ("helpful", "cannot read 'helpful'; expected NAME=WEIGHT"),
        ("helpful=lots", "cannot read 'helpful=lots'"),
        ("=1", "cannot read '=1'"),
        ("helpful=", "cannot read 'helpful='"),
        ("helpful=1,helpful=2", "'helpful' is given twice in 'helpful=1,helpful=2'"),
        ("helpful=nan", "weight of 'helpful' is nan"),
        ("helpful=-1,brief=2", "weight of 'helpful' is -1"),
        ("helpful=0,brief=0", "all weights are 0"),
    ],
)
def test_text_that_is_no_preference(text, message):
    with pytest.raises(PreferenceError) as caught:
        Preference.parse(text)
    assert message in str(caught.value)
