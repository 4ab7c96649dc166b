"""What an objective is, and a fixed order of several: the columns of every score array in the house."""

import json
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

import moalign
from moalign.batches import Completions
from moalign.errors import ConfigError, ObjectiveError, UserError
from moalign.files import digest


@runtime_checkable  # the tests check annotations at run time
class Objective(Protocol):
    """One thing to be had more of: a number for each completion, higher is better, always.

    `score` must look at one completion at a time: a score may not depend on its neighbours, because scores are
    cached one by one. `fingerprint` is a digest of all that determines the scores (the rule, its settings, the
    weights of a model) and of nothing else, so that a renamed objective is not scored again.
    """

    @property
    def name(self) -> str:
        """What the user calls it; the name of a weight in a preference."""
        ...

    @property
    def fingerprint(self) -> str:
        """A digest of all that determines the scores."""
        ...

    def score(self, completions: Completions) -> Float[np.ndarray, " n"]:
        """One finite number per completion."""
        ...


def fingerprint(kind: str, **settings: Any) -> str:
    """The fingerprint of a built-in rule: its kind, its settings and the version of moalign.

    The version is in it because another release may score the same text otherwise.

    >>> fingerprint("length", per=1.0) == fingerprint("length", per=2.0)
    False
    """
    return digest(kind, json.dumps(settings, sort_keys=True), moalign.__version__)


def checked_scores(
    objective: Objective, completions: Completions, numbers: Sequence[int] | None = None, *, finite: bool = True
) -> Float[np.ndarray, " n"]:
    """The scores of one objective, as float64, refused unless there is one finite number per completion.

    `numbers` says which completions these are in the caller's list, for the error text; by default 0, 1, 2, ...
    The text itself is never quoted: prompts are not logged. Raises ObjectiveError, naming the objective, if it raises,
    or returns the wrong length, something that is no number, NaN or infinity; a UserError it raises passes as it is.
    Without `finite`, NaN and infinity pass: whoever asks so looks at them.

    >>> class Constant:
    ...     name, fingerprint = "constant", "v1"
    ...     def score(self, completions):
    ...         return [1.0] * len(completions)
    >>> checked_scores(Constant(), Completions(["Hi"], ["Hello"]))
    array([1.])
    """
    name = objective.name
    try:
        scores = np.asarray(objective.score(completions), dtype=np.float64)
    except UserError:
        raise
    except Exception as error:
        raise ObjectiveError(f"objective {name!r} raised {type(error).__name__}: {error}") from error
    if scores.shape != (len(completions),):
        raise ObjectiveError(
            f"objective {name!r} returned an array of shape {scores.shape} for {len(completions)} responses; "
            f"expected one number per response, shape ({len(completions)},)"
        )
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad) and finite:
        first = int(bad[0]) if numbers is None else numbers[int(bad[0])]
        raise ObjectiveError(
            f"objective {name!r} returned {scores[bad[0]]} for response {first} (counted from 0; {len(bad)} of "
            f"{len(scores)} are not finite); expected a finite number for every response, the empty one included"
        )
    return scores


class ObjectiveSet:
    """Objectives in a fixed order: the columns of every (n, m) array of scores.

    Raises ConfigError if there is none, or two share a name.

    >>> from moalign.objectives import Length, Repetition
    >>> objectives = ObjectiveSet([Length("brief"), Repetition("varied", n=1)])
    >>> objectives.names
    ('brief', 'varied')
    >>> objectives.score(Completions(["Hi", "Hi"], ["yes yes", ""]))
    array([[-2. , -0.5],
           [ 0. ,  0. ]])
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = tuple(objectives)
        self.names = tuple(objective.name for objective in self.objectives)
        if not self.names:
            raise ConfigError("there is no objective; expected at least one")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ConfigError(f"objective {twice[0]!r} is named twice; every objective needs a name of its own")

    def __len__(self) -> int:
        return len(self.names)

    def score(self, completions: Completions) -> Float[np.ndarray, "n m"]:
        """Every objective's score of every completion; n may be 0. Raises ObjectiveError as `checked_scores` does."""
        return np.stack([checked_scores(objective, completions) for objective in self.objectives], axis=1)
