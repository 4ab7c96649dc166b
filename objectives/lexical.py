"""The words that are wanted, or not: a weight for each phrase found."""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives.base import fingerprint


@dataclass(frozen=True)
class Lexical:
    """The weights of the phrases that a response holds, each counted once, and at most `cap` in all.

    score(y) = min(cap, sum_p weight[p] * [p stands in y])

    A phrase is found whatever its case and the white space between its words, but only as whole words: "help" is not in
    "helpful". Negative weights are for phrases that are not wanted. Once each, so that repeating a phrase earns
    nothing. The empty response scores 0 (or `cap`, where that is negative). Raises ConfigError if there is no phrase,
    or an empty one.

    >>> warm = Lexical("warm", phrases={"thank you": 1.0, "please": 0.5, "whatever": -1.0})
    >>> warm.score(Completions(["a", "b"], ["Thank  you, thank you! Please.", "Whatever."]))
    array([ 1.5, -1. ])
    """

    name: str
    phrases: dict[str, float]
    cap: float | None = None

    def __post_init__(self) -> None:
        if not self.phrases or not all(phrase.strip() for phrase in self.phrases):
            raise ConfigError(
                f"objective {self.name!r}: phrases holds no phrase or an empty one; expected phrase: weight"
            )

    @property
    def fingerprint(self) -> str:
        """Phrases, weights and cap."""
        return fingerprint("lexical", phrases=self.phrases, cap=self.cap)

    def score(self, completions: Completions) -> Float[np.ndarray, " n"]:
        """The capped sum of weights for each response."""
        finders = [(_finder(phrase), weight) for phrase, weight in self.phrases.items()]
        totals = np.array(
            [sum(weight for find, weight in finders if find.search(text)) for text in completions.responses],
            dtype=np.float64,
        )
        return totals if self.cap is None else np.minimum(totals, self.cap)


def _finder(phrase: str) -> re.Pattern[str]:
    # Look-arounds and not \b, which would never match beside a phrase that ends in a sign, such as "sorry!".
    words = r"\s+".join(re.escape(word) for word in phrase.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
