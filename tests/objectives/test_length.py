"""Minus the length, in words or characters."""

import numpy as np
import pytest

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives import Length

TEXTS = ["one two  three\nfour", "ß…", "", " \n"]
GIVEN = Completions(["p"] * 4, TEXTS)


def test_words_are_what_stands_between_white_space() -> None:
    """4, 1, 0 and 0 words."""
    assert Length("brief").score(GIVEN).tolist() == [-4, -1, 0, 0]
    assert Length("brief", per=10.0).score(GIVEN).tolist() == [-0.4, -0.1, 0, 0]


def test_characters_are_code_points() -> None:
    """ "one two  three" is 14 characters, the line break and "four" make 19."""
    assert Length("brief", unit="characters").score(GIVEN).tolist() == [-19, -2, 0, -2]


def test_nothing_scores_minus_zero() -> None:
    assert not np.signbit(Length("brief").score(Completions(["p"], [""]))[0])


def test_the_unit_of_scale_is_positive() -> None:
    for per in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="objective 'brief': per is"):
            Length("brief", per=per)
