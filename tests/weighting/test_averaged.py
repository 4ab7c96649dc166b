"""The mean of what a weighter has answered: since `restart`, over a stop, and without a say in the answers."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moalign.testing import check_weighter
from moalign.weighting import Averaged, Constrained, Fixed, Observation, Weighting


class Listed:
    """Answers what is written, in turn."""

    needs: frozenset[str] = frozenset({"gram"})
    validation_every = 0

    def __init__(self, *answers: tuple[float, ...], scale: float = 1.0):
        self.answers, self.scale, self.place = answers, scale, 0

    def update(self, seen: Observation) -> Weighting:
        self.place += 1
        return Weighting(np.array(self.answers[self.place - 1]), self.scale)

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def see(weighter: Averaged, times: int = 1) -> list[list[float]]:
    seen = Observation(0, np.zeros((2, 2)), 1e-3)
    return [weighter.update(seen).weights.tolist() for _ in range(times)]


def test_the_mean_is_of_all_answers_since_the_restart() -> None:
    """(1, 0), (0, 1), (0, 1) have the mean (1/3, 2/3); of (1/2, 1/2) alone it is that."""
    weighter = Averaged(Listed((1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (0.5, 0.5)))
    assert not weighter.answered
    see(weighter, 3)
    assert weighter.answered
    assert weighter.mean.tolist() == pytest.approx([1 / 3, 2 / 3])
    weighter.restart()
    assert not weighter.answered
    see(weighter)
    assert weighter.mean.tolist() == [0.5, 0.5]


def test_the_answers_are_those_of_the_other_one_and_so_are_its_needs() -> None:
    weighter = Averaged(Listed((0.2, 0.8), (0.7, 0.3), scale=3.0))
    assert weighter.update(Observation(0, np.zeros((2, 2)), 1e-3)).scale == 3.0
    assert see(weighter) == [[0.7, 0.3]]
    assert (weighter.needs, weighter.validation_every) == (frozenset({"gram"}), 0)
    constrained = Averaged(Constrained(np.full(2, 0.5), objective=0, thresholds=[None, 0.0], every=7))
    assert (constrained.needs, constrained.validation_every) == (frozenset({"validation"}), 7)


@pytest.mark.parametrize("stop", range(4))
def test_a_stop_at_any_step_changes_neither_the_answers_nor_the_mean(stop: int) -> None:
    answers = [(1.0, 0.0), (0.25, 0.75), (0.5, 0.5), (0.0, 1.0)]
    whole, before, after = (Averaged(Listed(*answers)) for _ in range(3))
    expected = see(whole, 4)
    see(before, stop)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert see(after, 4 - stop) == expected[stop:]
    np.testing.assert_array_equal(after.mean, whole.mean)


@pytest.mark.parametrize(
    "make",
    [
        lambda preference: Averaged(Fixed(preference)),
        lambda preference: Averaged(Constrained(preference, objective=1, thresholds=[3.0, None, 2.5])),
    ],
    ids=["fixed", "constrained"],
)
def test_it_keeps_the_contract(make: Callable[[np.ndarray], Averaged]) -> None:
    check_weighter(make)
