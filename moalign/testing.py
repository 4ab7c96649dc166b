"""Contracts that extensions must keep, to be run in their own test suites.

from moalign.testing import check_explorer, check_objective, check_weighter

def test_mine():
    check_objective(MyObjective("mine"))
    check_weighter(lambda preference: MyWeighter(preference, pace=0.5))
    check_explorer(lambda m, points, seed: MyExplorer(m, points, seed))
"""

import json
from collections.abc import Callable, Sequence, Set

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions
from moalign.frontiers.explorers import Explorer
from moalign.objectives import Objective, ObjectiveSet
from moalign.weighting import Observation, RewardWeighter, Weighting

Make = Callable[[Float[np.ndarray, " m"]], RewardWeighter]
MakeExplorer = Callable[[int, int, int], Explorer]

SAMPLES = Completions(
    prompts=["Hi", "Hi", "What is 2 + 2?", [{"role": "user", "content": "Bonjour"}], "Write nothing."],
    responses=["Hello there, how are you?", "Hello there, how are you?", "It is 4.", "Salut \N{WAVING HAND SIGN}", ""],
)

# What is attained at the preferences asked for.
WORLDS: dict[str, Callable[[Float[np.ndarray, "n m"]], Float[np.ndarray, "n m"]]] = {
    "an uneven front": lambda asked: asked ** np.arange(1, asked.shape[1] + 1),
    "all points equal": lambda asked: np.full(asked.shape, 0.5),
    "a flat objective": lambda asked: np.where(np.arange(asked.shape[1]) > 0, np.sqrt(asked), 0.5),
    "a NaN row": lambda asked: np.where(asked[:, :1] < 1, asked, np.nan),
    "a NaN objective": lambda asked: np.where(np.arange(asked.shape[1]) > 0, asked, np.nan),
    "NaN alone": lambda asked: np.full(asked.shape, np.nan),
}


def check_objective(objective: Objective, completions: Completions = SAMPLES) -> None:
    """Assert what moalign relies on in an objective; AssertionError says which promise is broken.

    One finite number per completion, the empty response included; the same number for the same text, whatever the
    order and whatever else is in the batch; a name, and a fingerprint that stays the same while nothing changes,
    because scores are cached under it.

    >>> from moalign.objectives import Length
    >>> check_objective(Length("brief"))
    """
    assert objective.name, "an objective needs a name"
    before = objective.fingerprint
    scores = ObjectiveSet([objective]).score(completions)[:, 0]  # checks length, NaN and infinity
    again = ObjectiveSet([objective]).score(completions)[:, 0]
    np.testing.assert_array_equal(again, scores, err_msg=f"{objective.name}: scored twice, two results")
    order = list(reversed(range(len(completions))))
    turned = Completions([completions.prompts[i] for i in order], [completions.responses[i] for i in order])
    np.testing.assert_allclose(
        ObjectiveSet([objective]).score(turned)[:, 0],
        scores[order],
        atol=1e-5,
        err_msg=f"{objective.name}: the order of the batch matters",
    )
    alone = [
        ObjectiveSet([objective]).score(Completions([prompt], [response]))[0, 0]
        for prompt, response in zip(completions.prompts, completions.responses, strict=True)
    ]
    np.testing.assert_allclose(alone, scores, atol=1e-5, err_msg=f"{objective.name}: what else is in the batch matters")
    assert objective.fingerprint == before, f"{objective.name}: the fingerprint changed by scoring"


def check_weighter(make: Make, objectives: int = 3) -> None:
    """Assert what moalign relies on in a weighter; AssertionError says which promise is broken.

    `make(preference)` must give a new weighter every time. Weights of the right length, >= 0 and of sum 1, and a
    finite scale > 0, for preferences inside the simplex, with zeros and at a corner; also while rewards are flat, the
    Gram is zero and the validation vector does not move. Only the fields it needs are measured, and the rest may be
    there or not. What it is given is left as it was, and what it has answered stays. Its state survives JSON: from
    every step, a new weighter that loads it goes on exactly as the old one would have.

    >>> from moalign.weighting import Fixed
    >>> check_weighter(Fixed)
    """
    generator = np.random.default_rng(0)
    inside = generator.dirichlet(np.ones(objectives))
    name = type(make(inside)).__name__
    for preference in (inside, np.eye(objectives)[0], np.full(objectives, 1 / objectives)):
        weighter = make(preference.copy())
        needs, every = weighter.needs, weighter.validation_every
        assert needs <= {"gram", "validation"}, f"{name}: needs {set(needs)}; expected of gram and validation only"
        assert ("validation" in needs) == (every > 0), f"{name}: validation_every is {every}, but it needs {set(needs)}"
        for fields, flat in ((needs, False), (needs, True), ({"gram", "validation"}, False)):
            seen = [_observation(step, objectives, fields, flat, generator) for step in range(10)]
            _check_answers(make, preference, seen, name)
            _check_resume(make, preference, seen, name)


def _observation(
    step: int, objectives: int, fields: Set[str], flat: bool, generator: np.random.Generator
) -> Observation:
    rewards, gradients, values = (generator.normal(size=(n, objectives)) * (not flat) for n in (8, objectives, 1))
    validated = "validation" in fields and step % 3 == 0
    return Observation(
        step=step,
        rewards=rewards + 3.0,
        learning_rate=1e-3 / (1 + step),
        gram=gradients @ gradients.T if "gram" in fields else None,
        validation=values[0] if validated else None,
        attained=values[0] + 3.0 if validated else None,
    )


def _arrays(seen: Observation) -> list[np.ndarray]:
    return [array for array in (seen.rewards, seen.gram, seen.validation, seen.attained) if array is not None]


def _check_answers(make: Make, preference: np.ndarray, seen: Sequence[Observation], name: str) -> None:
    given = preference.copy()
    weighter = make(given)
    answers: list[tuple[Weighting, np.ndarray]] = []
    for one in seen:
        before = [array.copy() for array in _arrays(one)]
        found = weighter.update(one)
        weights, where = found.weights, f"{name}, step {one.step}"
        assert weights.shape == preference.shape, f"{where}: weights of shape {weights.shape}, not {preference.shape}"
        assert (weights >= 0).all(), f"{where}: a weight is negative or NaN: {weights}"
        assert abs(weights.sum() - 1) < 1e-6, f"{where}: the weights sum to {weights.sum():g}, not 1"
        assert 0 < found.scale < np.inf, f"{where}: the scale is {found.scale}; expected a finite number > 0"
        for array, copy in zip(_arrays(one), before, strict=True):
            np.testing.assert_array_equal(array, copy, err_msg=f"{where}: it changed what it was given")
        answers.append((found, weights.copy()))
    for found, copy in answers:
        np.testing.assert_array_equal(found.weights, copy, err_msg=f"{name}: a later update changed a former answer")
    np.testing.assert_array_equal(given, preference, err_msg=f"{name}: it changed the preference it was given")


def _check_resume(make: Make, preference: np.ndarray, seen: Sequence[Observation], name: str) -> None:
    whole = make(preference.copy())
    saved, expected = [], []
    for one in seen:
        try:
            saved.append(json.dumps(whole.state_dict(), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise AssertionError(f"{name}: its state cannot be written as JSON at step {one.step}: {error}") from error
        expected.append(whole.update(one))
    for stop, text in enumerate(saved):
        resumed = make(preference.copy())
        resumed.load_state_dict(json.loads(text))
        for one, answer in zip(seen[stop:], expected[stop:], strict=True):
            found = resumed.update(one)
            line = f"{name}: resumed at step {stop}, another answer at step {one.step}"
            np.testing.assert_array_equal(found.weights, answer.weights, err_msg=line)
            assert found.scale == answer.scale, line


def check_explorer(make: MakeExplorer, objectives: int = 3) -> None:
    """Assert what moalign relies on in an explorer; AssertionError says which promise is broken.

    `make(m, points, seed)` must give a new explorer every time; the values that it is told lie in [0, 1]. It asks for
    at most as many preferences as it is asked for and has left, on the simplex, and never for one that it asked for or
    was told before: on an uneven front, with points that are all equal or flat in one objective, with NaN in a row,
    in an objective or everywhere, before it is told anything, after one point alone, after preferences that it never
    asked for, and after the same ones with other values. What it is given is left as it was, and what it has answered
    stays. One that is made anew with the same seed and told the same asks the same.

    >>> from moalign.frontiers.explorers import Grid
    >>> check_explorer(Grid)
    """
    m, name = objectives, type(make(objectives, 1, 0)).__name__
    for world, values in WORLDS.items():
        sweep = _Sweep(make, m, m + 5, f"{name}, {world}")
        for count in (m + 1, 2, m + 5):
            sweep.tell(asked := sweep.ask(count), values(asked))
        sweep.ask(1)  # of those left: none, unless it found nothing worth asking for before
    alone = _Sweep(make, m, 1, f"{name}, one point to train")
    assert len(alone.ask(9)) == 1, f"{name}: made for one point, it asks for none"
    assert len(alone.ask(9)) == 0, f"{name}: made for one point, it asks for more"
    before = _Sweep(make, m, m + 9, f"{name}, told before it asked")
    middle = np.vstack([np.full(m, 1 / m), (np.eye(m)[0] + np.eye(m)[1]) / 2])
    before.tell(middle[:1], middle[:1])
    before.ask(2)  # not told of: a worker is still at it
    before.tell(middle, middle[::-1].copy())  # measured again
    for count in (m, 3):
        before.ask(count)


class _Sweep:
    """An explorer, all that it was asked and told so far, and a check of every answer."""

    def __init__(self, make: MakeExplorer, m: int, points: int, name: str) -> None:
        self.make, self.m, self.points, self.name = make, m, points, name
        self.explorer = make(m, points, 7)
        self.asked: list[np.ndarray] = []
        self.answers: list[tuple[np.ndarray, np.ndarray]] = []
        self.told: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def ask(self, count: int) -> np.ndarray:
        answer = self.explorer.ask(count)
        known = [*self.asked, *(preferences for preferences, _, _ in self.told)]
        different = len(np.unique(np.vstack([np.zeros((0, self.m)), *known]).round(9), axis=0))
        limit = max(min(count, self.points - different), 0)
        assert answer.shape[1:] == (self.m,), f"{self.name}: preferences of shape {answer.shape}, not (q, {self.m})"
        assert len(answer) <= limit, f"{self.name}: asked for {count} with {limit} left, it gave {len(answer)}"
        assert (answer >= 0).all(), f"{self.name}: a weight is negative or NaN: {answer.tolist()}"
        assert (np.abs(answer.sum(axis=1) - 1) < 1e-9).all(), f"{self.name}: weights do not sum to 1: {answer.tolist()}"
        for row in answer:
            assert not any(np.abs(rows - row).max(axis=1, initial=0).min(initial=1) < 1e-9 for rows in known), (
                f"{self.name}: it asks again for {row.tolist()}"
            )
            known.append(row[None])
        self._check_anew(answer, count)
        self.asked.append(answer.copy())
        self.answers.append((answer, answer.copy()))
        return answer.copy()

    def _check_anew(self, answer: np.ndarray, count: int) -> None:
        """Only while nothing is asked for and not told: what is on its way, a new explorer cannot know."""
        preferences = [tuple(row) for told, _, _ in self.told for row in told]
        if all(tuple(row) in preferences for rows in self.asked for row in rows):
            anew = self.make(self.m, self.points, 7)
            for told in self.told:
                anew.tell(*told)
            line = f"{self.name}: made anew and told the same, it asks for something else"
            np.testing.assert_array_equal(anew.ask(count), answer, err_msg=line)

    def tell(self, preferences: np.ndarray, values: np.ndarray) -> None:
        given = preferences, values, np.where(np.isnan(values), np.nan, 0.01)
        self.told.append((given[0].copy(), given[1].copy(), given[2].copy()))
        self.explorer.tell(*given)
        for array, copy in zip(given, self.told[-1], strict=True):
            np.testing.assert_array_equal(array, copy, err_msg=f"{self.name}: it changed what it was told")
        for answer, copy in self.answers:
            np.testing.assert_array_equal(answer, copy, err_msg=f"{self.name}: what it had answered has changed")
