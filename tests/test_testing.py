"""The shipped contract: our own objectives keep it, and it notices those that do not."""

import numpy as np
import pytest

from moalign.batches import Completions
from moalign.errors import ObjectiveError
from moalign.objectives import Format, Length, Lexical, Repetition
from moalign.testing import check_objective, check_weighter
from moalign.weighting import WEIGHTERS, Fixed, Gradient, Hypervolume, Weighting


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


@pytest.mark.parametrize("objectives", [1, 2, 4])
@pytest.mark.parametrize("kind", [kind for kind in WEIGHTERS if kind != "constrained"])
def test_built_in_weighters_that_need_no_settings_keep_the_contract(kind, objectives):
    check_weighter(WEIGHTERS[kind], objectives)


@pytest.mark.parametrize(
    "settings",
    [{"accumulate": 3}, {"clip": None, "mu": 1e-5}, {"influence": "cosine"}, {"include_self": False, "minimum": 0.1}],
)
def test_the_gradient_weighter_keeps_the_contract_with_any_setting(settings):
    check_weighter(lambda preference: Gradient(preference, **settings))


def test_the_hypervolume_weighter_keeps_the_contract_with_a_margin():
    check_weighter(lambda preference: Hypervolume(preference, every=1, margin=1.0))


class BrokenWeighter:
    """Answers by a function of itself and what it sees, and remembers only how many it saw."""

    needs = frozenset()
    validation_every = 0

    def __init__(self, preference, answer):
        self.preference, self.answer, self.count = preference, answer, 0

    def update(self, seen):
        self.count += 1
        return self.answer(self, seen)

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def spoil(weighter, seen):
    seen.rewards[:] = 0
    return Weighting(weighter.preference.copy())


def spoil_preference(weighter, seen):
    weighter.preference += 0.0 if weighter.count < 5 else 1e-9
    return Weighting(weighter.preference.copy())


def reuse(weighter, seen):
    """The same array every time, changed in place."""
    weighter.kept = getattr(weighter, "kept", np.zeros_like(weighter.preference))
    weighter.kept[:] = np.roll(weighter.preference, weighter.count)
    return Weighting(weighter.kept)


def remember(weighter, seen):
    """Depends on rewards that its state does not tell."""
    weighter.total = getattr(weighter, "total", 0.0) + abs(float(seen.rewards.sum()))
    return Weighting(weighter.preference.copy(), 1 + weighter.total)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda weighter, seen: Weighting(np.ones(2) / 2), r"weights of shape \(2,\), not \(3,\)"),
        (lambda weighter, seen: Weighting(2 * weighter.preference), "the weights sum to 2"),
        (lambda weighter, seen: Weighting(weighter.preference * np.nan), "negative or NaN"),
        (lambda weighter, seen: Weighting(np.array([1.5, -0.5, 0.0])), "negative or NaN"),
        (lambda weighter, seen: Weighting(weighter.preference, 0.0), "the scale is 0.0"),
        (lambda weighter, seen: Weighting(weighter.preference, float(np.ptp(seen.rewards))), "the scale is 0.0"),
        (lambda weighter, seen: Weighting(weighter.preference, float("inf")), "the scale is inf"),
        (spoil, "it changed what it was given"),
        (spoil_preference, "it changed the preference it was given"),
        (reuse, "a later update changed a former answer"),
        (remember, "resumed at step 1, another answer at step 1"),
    ],
)
def test_a_weighter_that_breaks_a_promise_is_noticed(answer, line):
    with pytest.raises(AssertionError, match=line):
        check_weighter(lambda preference: BrokenWeighter(preference, answer))


class Changed(Fixed):
    """A good weighter with one attribute or state of another."""

    def __init__(self, preference, state=None, **attributes):
        super().__init__(preference)
        self.state = state or {}
        vars(self).update(attributes)

    def state_dict(self):
        return self.state


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"needs": frozenset({"gramm"})}, "needs {'gramm'}; expected of gram and validation only"),
        ({"needs": frozenset({"validation"})}, "validation_every is 0, but it needs {'validation'}"),
        ({"validation_every": 5}, "validation_every is 5, but it needs set()"),
        ({"state": {"weights": np.ones(3)}}, "its state cannot be written as JSON at step 0"),
        ({"state": {"best": float("-inf")}}, "its state cannot be written as JSON at step 0"),
    ],
)
def test_wrong_needs_and_a_state_that_is_no_json_are_noticed(change, line):
    with pytest.raises(AssertionError) as caught:
        check_weighter(lambda preference: Changed(preference, **change))
    assert line in str(caught.value)
