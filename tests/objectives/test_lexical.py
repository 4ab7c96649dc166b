"""Weights of the phrases found, once each."""

import pytest

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives import Lexical


def _score(objective: Lexical, *texts: str) -> list[float]:
    return objective.score(Completions(["p"] * len(texts), texts)).tolist()


def test_distinct_phrases_whatever_the_case() -> None:
    """ "Thank you" twice is 1, not 2; "please" adds 0.5."""
    warm = Lexical("warm", {"thank you": 1.0, "please": 0.5})
    assert _score(warm, "THANK you, thank\n you!", "Thank you, please.", "", "thanks") == [1.0, 1.5, 0.0, 0.0]


def test_only_whole_words_are_found() -> None:
    assert _score(Lexical("x", {"help": 1.0}), "helpful", "unhelp", "help-desk", "(help)", "help_me") == [0, 0, 1, 1, 0]


def test_signs_are_literal_and_may_stand_at_the_ends() -> None:
    """ "sorry!" and "c++" end in signs, where a word boundary would never be."""
    assert _score(Lexical("x", {"sorry!": 1.0, "c++": 2.0, "a.b": 4.0}), "Sorry! C++ it is", "sorry", "axb") == [
        3,
        0,
        0,
    ]


def test_the_cap_bounds_from_above_only() -> None:
    objective = Lexical("x", {"a": 1.0, "b": 1.0, "c": -5.0}, cap=1.5)
    assert _score(objective, "a b", "a", "a b c", "") == [1.5, 1.0, -3.0, 0.0]


def test_a_phrase_is_needed() -> None:
    for phrases in ({}, {" ": 1.0}):
        with pytest.raises(ConfigError, match="objective 'x': phrases holds no phrase or an empty one"):
            Lexical("x", phrases)


def test_the_order_of_the_phrases_is_no_difference() -> None:
    one, other = Lexical("x", {"a": 1.0, "b": 2.0}), Lexical("x", {"b": 2.0, "a": 1.0})
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != Lexical("x", {"a": 1.0, "b": 2.0}, cap=1.0).fingerprint
