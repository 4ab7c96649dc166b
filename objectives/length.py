"""Shorter is better: minus the length of the response."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives.base import fingerprint


@dataclass(frozen=True)
class Length:
    """Minus the number of words, or of characters, in units of `per`.

    score(y) = -count(y) / per

    Source: the length penalty of MODPO's summarisation run (Zhou et al. 2023, arXiv:2310.03708), which counts tokens; a
    rule that sees only text counts words. A word is what stands between white space. The empty response scores 0,
    the most there is. Raises ConfigError if `per` is not a positive number.

    >>> Length("brief", per=10.0).score(Completions(["Hi"], ["one two three four five"]))
    array([-0.5])
    """

    name: str
    unit: Literal["words", "characters"] = "words"
    per: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.per < float("inf"):
            raise ConfigError(f"objective {self.name!r}: per is {self.per:g}; expected a number above 0")

    @property
    def fingerprint(self) -> str:
        """Unit and scale."""
        return fingerprint("length", unit=self.unit, per=self.per)

    def score(self, completions: Completions) -> Float[np.ndarray, " n"]:
        """-count / per for each response."""
        counts = [len(text.split() if self.unit == "words" else text) for text in completions.responses]
        return 0.0 - np.array(counts, dtype=np.float64) / self.per  # 0.0 - x, so that nothing scores -0.0
