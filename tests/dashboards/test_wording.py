import math

import pytest

from moalign.dashboards.wording import (
    decimals,
    listing,
    measured,
    number,
    plotly_text,
    preference_text,
    row_text,
    short,
    span_decimals,
)
from moalign.preference import Preference


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.00"),
        (0.04567, "0.0457"),
        (-1.5, "\N{MINUS SIGN}1.50"),
        (99.96, "100.0"),
        (123456.7, "123,457"),
        (-1e-12, "0.000000"),
        (math.nan, "\N{EN DASH}"),
        (-math.inf, "\N{EN DASH}"),
    ],
)
def test_number(value: float, shown: str) -> None:
    """Three digits, a true minus, no exponent, never a negative zero, and a dash for what is no number."""
    assert number(value) == shown


def test_number_rounds_to_no_negative_zero() -> None:
    """-0.004 to two decimals is 0.00."""
    assert number(-0.004, 2) == "0.00"


def test_decimals_ignore_what_says_nothing() -> None:
    """Zero and NaN errors are left out; with no error at all a typical value decides; with nothing, two."""
    assert decimals([0.0, math.nan, 0.02]) == 3
    assert decimals([0.0], [250.0, 300.0]) == 0
    assert decimals([]) == 2


def test_span_decimals_tell_close_values_apart() -> None:
    """0.500 and 0.503 span 0.003: two digits below its leading one would be 5, of which 4 are shown at most."""
    assert span_decimals([0.500, 0.503]) == 4
    assert span_decimals([-2.0, 48.0]) == 1


def test_measured_uses_the_decimals_of_its_error() -> None:
    """An error of 0.31 shows two digits, and so does its value."""
    assert measured(12.3456, 0.31) == "12.35 ± 0.31"
    assert measured(12.3456, math.nan) == "12.3"


def test_short_keeps_head_and_tail() -> None:
    """Long names often differ at the end only; white space of any kind becomes one space."""
    assert short("x" * 300 + "end", 9) == "xxxx…xend"
    assert len(short("n" * 200)) == 22
    assert short("two\nlines") == "two lines"


def test_plotly_text_leaves_no_markup() -> None:
    """Plotly reads <b>, <a href> and entities; after escaping it finds none."""
    assert plotly_text("<a href='x'>&lt;") == "&lt;a href='x'&gt;&amp;lt;"


def test_listing() -> None:
    assert [listing(items) for items in ([], ["a"], ["a", "b"])] == ["", "a", "a and b"]


def test_preference_text_is_short() -> None:
    """Nine equal weights: four are named, five are counted; weights of 0 are left out."""
    names = [f"o{i}" for i in range(9)]
    text = preference_text(Preference.of(dict.fromkeys(names, 1.0)), names)
    assert text == "o0 0.11 · o1 0.11 · o2 0.11 · o3 0.11 · +5 more"
    assert preference_text(Preference.of({"o0": 1.0, "o1": 0.0}), names) == "o0 1"


def test_row_text() -> None:
    assert row_text({"a": -0.5, "b": 1.5}) == "-0.5 a + 1.5 b"
