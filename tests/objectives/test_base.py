"""An objective set has a fixed order, and no score enters that is not a finite number for its own response."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from moalign.batches import Completions
from moalign.errors import ConfigError, DataError, ObjectiveError
from moalign.objectives import Length, ObjectiveSet, Repetition, checked_scores, fingerprint

TWO = Completions(["secret prompt", "another"], ["a b", ""])


@dataclass
class Returns:
    """Scores with whatever it was given."""

    value: Any
    name: str = "odd"
    fingerprint: str = "odd/1"

    def score(self, completions: Completions) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_columns_stand_in_the_order_given() -> None:
    """Two words and none, minus the count; no repetition in either."""
    objectives = ObjectiveSet([Repetition("varied"), Length("brief")])
    assert objectives.names == ("varied", "brief")
    assert len(objectives) == 2
    assert objectives.score(TWO).tolist() == [[0.0, -2.0], [0.0, 0.0]]
    assert objectives.score(Completions([], [])).shape == (0, 2)


@pytest.mark.parametrize("value", [[1, 2], (1.0, 2.0), np.float32([1, 2]), torch.tensor([1.0, 2.0])])
def test_any_row_of_numbers_becomes_float64(value: Any) -> None:
    scores = checked_scores(Returns(value), TWO)
    assert scores.dtype == np.float64
    assert scores.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([0.0, float("nan")], r"returned nan for response 1 \(counted from 0; 1 of 2 are not finite\)"),
        ([float("inf"), float("nan")], r"returned inf for response 0 \(counted from 0; 2 of 2"),
        ([1.0], r"returned an array of shape \(1,\) for 2 responses; expected one number per response, shape \(2,\)"),
        ([[1.0], [2.0]], r"shape \(2, 1\) for 2 responses"),
        (3.0, r"shape \(\) for 2 responses"),
        (None, r"returned an array of shape \(\)|raised TypeError"),
        (["good", "bad"], "raised ValueError: could not convert string to float: 'good'"),
        (KeyError("weights"), "raised KeyError: 'weights'"),
    ],
)
def test_a_bad_score_names_the_objective(value: Any, reason: str) -> None:
    """The objective and the place are named; what was asked is not, since prompts are not logged."""
    with pytest.raises(ObjectiveError, match=rf"objective 'odd' .*({reason})") as caught:
        ObjectiveSet([Returns(value)]).score(TWO)
    assert "secret" not in str(caught.value)


def test_the_callers_numbers_are_used() -> None:
    with pytest.raises(ObjectiveError, match="for response 71 "):
        checked_scores(Returns([0.0, float("nan")]), TWO, numbers=[70, 71])


def test_an_error_for_the_user_passes_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^a clear line$"):
        checked_scores(Returns(DataError("a clear line")), TWO)


def test_names_are_needed_once_each() -> None:
    with pytest.raises(ConfigError, match="objective 'brief' is named twice"):
        ObjectiveSet([Length("brief"), Length("brief", per=10.0)])
    with pytest.raises(ConfigError, match="there is no objective"):
        ObjectiveSet([])


def test_the_fingerprint_is_of_the_settings_and_not_of_the_name() -> None:
    assert Length("brief").fingerprint == Length("short").fingerprint
    assert Length("brief").fingerprint == Length("brief", per=1.0).fingerprint
    assert Length("brief").fingerprint != Length("brief", unit="characters").fingerprint
    assert fingerprint("a", x=1) != fingerprint("b", x=1)
    assert len({Repetition("r", n=n).fingerprint for n in range(1, 5)}) == 4
