"""1 for the form that was asked for, 0 for any other."""

import pytest

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives import Format


def _score(objective: Format, *texts: str) -> list[float]:
    return objective.score(Completions(["p"] * len(texts), texts)).tolist()


def test_a_pattern_must_match_the_whole_response() -> None:
    objective = Format("dated", pattern=r"\d{4}-\d\d")
    assert _score(objective, "2024-05", "2024-05 ", "on 2024-05", "") == [1, 0, 0, 0]
    assert _score(Format("any", pattern=".*"), "a\nb", "") == [0, 1]
    assert _score(Format("any", pattern="(?s).*"), "a\nb") == [1]


def test_an_empty_pattern_is_the_empty_response() -> None:
    assert _score(Format("silent", pattern=""), "", "a") == [1, 0]


def test_contains_is_literal() -> None:
    assert _score(Format("sourced", contains="[1]"), "See [1].", "See 1.", "") == [1, 0, 0]


def test_json_is_what_the_rfc_calls_json() -> None:
    """NaN is none; an integer beyond Python's limit of 4300 digits, and a bare number, are."""
    objective = Format("json", json=True)
    good = ['{"a": [1, 2.5e3, null]}', " [] \n", "3", '"text"', "9" * 5000]
    bad = ["", "{'a': 1}", '{"a": 1} thanks', "NaN", "[-Infinity]", "[" * 100_000]
    assert _score(objective, *good) == [1] * len(good)
    assert _score(objective, *bad) == [0] * len(bad)


def test_exactly_one_form_is_given() -> None:
    for settings in ({}, {"pattern": "a", "json": True}, {"contains": "a", "pattern": "b"}):
        with pytest.raises(ConfigError, match=r"objective 'f': \d forms are given; expected one of pattern"):
            Format("f", **settings)
    with pytest.raises(ConfigError, match="objective 'f': pattern is no regular expression: missing"):
        Format("f", pattern="(")


def test_forms_have_fingerprints_of_their_own() -> None:
    assert Format("f", pattern="a").fingerprint != Format("f", contains="a").fingerprint
