"""What a report is told beside the Pareto set: blends, the band of the front, gains over the base, sampled texts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from moalign.preference import Preference

BASE = "base"  # the adapter name of the base model, on which all rows are zero


@dataclass(frozen=True)
class Blend:
    """A measured mixing row of several adapters; `row` is adapter name to weight, values as in a ParetoPoint.

    >>> Blend({"a1": 0.5, "a2": 0.5}, Preference.of({"brief": 1.0}), {"brief": 1.0}, {"brief": 0.1}).parents
    ('a1', 'a2')
    """

    row: dict[str, float]
    preference: Preference
    values: dict[str, float]
    standard_errors: dict[str, float]

    @property
    def parents(self) -> tuple[str, ...]:
        """The adapters that take part, in the order of the row."""
        return tuple(adapter for adapter, weight in self.row.items() if weight != 0)


@dataclass(frozen=True, eq=False)
class Band:
    """Where a front of two objectives may lie: the attainment surfaces of a small and of a large share of its draws.

    Surfaces are corners, a row each, as `attainment_bands` gives them; `meaning` completes the sentence "where the
    front lies": in how many draws, and of what.

    >>> Band(np.array([[2.0, 3.0]]), np.array([[1.0, 2.0]]), "in 90 % of all samples of the prompts").inner.tolist()
    [[1.0, 2.0]]
    """

    outer: Float[np.ndarray, "q 2"]
    inner: Float[np.ndarray, "s 2"]
    meaning: str


@dataclass(frozen=True)
class Gain:
    """What one adapter has more of an objective than the base, on the same prompts; `interval` is of the difference.

    >>> Gain("brief", Preference.of({"brief": 1.0}), -3.0, -1.0, 2.0, (1.5, 2.5)).difference
    2.0
    """

    objective: str
    preference: Preference
    base: float
    value: float
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Sample:
    """One response to one prompt, with its score under each objective; `adapter` is "base" for the base model.

    >>> Sample("base", "Hi", "Hello.", {"brief": -1.0}).adapter == BASE
    True
    """

    adapter: str
    prompt: str
    response: str
    scores: dict[str, float]
