"""The shipped contract: our own objectives keep it, and it notices those that do not."""

import numpy as np
import pytest

from moalign.batches import Completions
from moalign.errors import ObjectiveError
from moalign.objectives import Format, Length, Lexical, Repetition
from moalign.testing import check_objective


@pytest.mark.parametrize(
    "objective",
    [
        Length("brief"),
        Length("brief", unit="characters", per=10.0),
        Format("ends", pattern=r".*\."),
        Lexical("warm", {"hello": 1.0}),
        Repetition("varied"),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_built_in_objectives_keep_the_contract(objective):
    check_objective(objective)


class Broken:
    """Scores by the place in the batch, and changes its fingerprint."""

    name = "broken"
    fingerprint = "1"

    def __init__(self, score):
        self._score = score

    def score(self, completions: Completions):
        return self._score(completions)


def test_a_score_by_place_is_noticed():
    with pytest.raises(AssertionError, match="broken: the order of the batch matters"):
        check_objective(Broken(lambda completions: np.arange(len(completions), dtype=float)))


def test_a_score_relative_to_the_batch_is_noticed():
    def centred(completions: Completions):
        lengths = np.array([len(response) for response in completions.responses], dtype=float)
        return lengths - lengths.mean()

    with pytest.raises(AssertionError, match="broken: what else is in the batch matters"):
        check_objective(Broken(centred))


def test_nan_is_noticed():
    with pytest.raises(ObjectiveError, match="broken"):
        check_objective(Broken(lambda completions: np.full(len(completions), np.nan)))
