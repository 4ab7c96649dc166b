"""A preference: how much each objective counts.

It is the one thing that a user chooses, and everything in moalign is written in its terms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from moalign.errors import PreferenceError, unknown


@dataclass(frozen=True)
class Preference:
    """Named weights, none negative, that sum to 1.

    Build one with `Preference.of` or `Preference.parse`, which normalise. Two preferences with the same
    weights are equal and hash alike whatever the order they were written in; weights of 0 are kept, so that a
    preference says which objectives it is about.

    >>> Preference.parse("helpful=7,brief=3").weights
    {'brief': 0.3, 'helpful': 0.7}
    """

    items: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> "Preference":
        """Normalise `weights` to sum 1. Raises PreferenceError if one is negative or not finite, or all are 0."""
        if not weights:
            raise PreferenceError("a preference needs at least one weight, such as helpful=0.7,brief=0.3")
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise PreferenceError(f"weight of {name!r} is {weight}; expected a finite number >= 0")
            if weight < 0:
                raise PreferenceError(f"weight of {name!r} is {weight:g}; weights must be >= 0")
        largest = max(weights.values()) or 1.0  # first, so that the sum of large weights stays finite
        weights = {name: weight / largest for name, weight in weights.items()} if largest > 1e300 else weights
        total = math.fsum(weights.values())
        if total == 0:
            raise PreferenceError(f"all weights are 0 ({', '.join(weights)}); at least one must be positive")
        if math.isclose(total, 1.0, abs_tol=1e-9):
            total = 1.0  # already normalised: reading a preference back must give the same one
        # Rounded so that 7/10 and 0.7 are the same preference, with the same key on disk.
        return cls(tuple((name, round(weights[name] / total, 12)) for name in sorted(weights)))

    @classmethod
    def parse(cls, text: str) -> "Preference":
        """Read ``NAME=W,NAME=W,...``; the weights need not sum to 1."""
        return cls.of(named_numbers(text, "NAME=WEIGHT, such as helpful=0.7,brief=0.3"))

    @property
    def weights(self) -> dict[str, float]:
        """Name to weight, in alphabetical order."""
        return dict(self.items)

    @property
    def key(self) -> str:
        """A short name for people and folders: the percentages of what counts.

        >>> Preference.of({"helpful": 0.7, "brief": 0.3}).key
        'brief30-helpful70'
        """
        parts = [f"{name}{100 * weight:.4g}" for name, weight in self.items if weight > 0]
        return "-".join(parts)

    def vector(self, names: Sequence[str]) -> Float[np.ndarray, " m"]:
        """The weights in the order of `names`; objectives not mentioned count 0.

        Raises PreferenceError, with the near name, if the preference weighs an objective that is not in `names`.
        """
        for name, _ in self.items:
            if name not in names:
                raise PreferenceError(unknown("objective", name, names))
        weights = self.weights
        return np.array([weights.get(name, 0.0) for name in names])

    def __str__(self) -> str:
        return ",".join(f"{name}={weight:.4g}" for name, weight in self.items)


def named_numbers(text: str, expected: str) -> dict[str, float]:
    """Read ``NAME=NUMBER,NAME=NUMBER,...``. Raises PreferenceError, with what was expected, or for a name given twice.

    >>> named_numbers("helpful=7, brief=-3", "NAME=WEIGHT")
    {'helpful': 7.0, 'brief': -3.0}
    """
    found: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.rpartition("="))
        try:
            value = float(number)
        except ValueError:
            value = None
        if not equals or not name or "=" in name or value is None:
            raise PreferenceError(f"cannot read {part!r}; expected {expected}")
        if name in found:
            raise PreferenceError(f"{name!r} is given twice in {text!r}")
        found[name] = value
    return found
