"""Variety: minus the share of word n-grams that a response says again."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives.base import fingerprint


@dataclass(frozen=True)
class Repetition:
    """Minus the share of repeated n-grams, between -1 and 0.

    score(y) = distinct n-grams of y / n-grams of y - 1

    Source: distinct-n (Li et al. 2016, arXiv:1510.03055), minus 1; that is -(seq-rep-n) of Welleck et al. 2019
    (arXiv:1908.04319). Words are what stands between white space, whatever their case. A response of fewer than n
    words, the empty one included, repeats nothing and scores 0. Raises ConfigError if n is below 1.

    >>> Repetition("varied", n=2).score(Completions(["a", "b"], ["no no no", "no"]))
    array([-0.5,  0. ])
    """

    name: str
    n: int = 3

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"objective {self.name!r}: n is {self.n}; expected at least 1 word")

    @property
    def fingerprint(self) -> str:
        """The length of the n-grams."""
        return fingerprint("repetition", n=self.n)

    def score(self, completions: Completions) -> Float[np.ndarray, " n"]:
        """distinct / all - 1 for each response."""
        return np.array([self._variety(text) for text in completions.responses], dtype=np.float64)

    def _variety(self, text: str) -> float:
        words = text.casefold().split()
        grams = [tuple(words[i : i + self.n]) for i in range(len(words) - self.n + 1)]
        return len(set(grams)) / len(grams) - 1 if grams else 0.0
