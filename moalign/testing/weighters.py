"""What moalign relies on in a weighter of rewards."""

import json
from collections.abc import Callable, Sequence, Set

import numpy as np
from jaxtyping import Float

from moalign.weighting import Observation, RewardWeighter, Weighting

Make = Callable[[Float[np.ndarray, " m"]], RewardWeighter]


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
