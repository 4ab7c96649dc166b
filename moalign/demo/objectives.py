"""Four objectives of the help desk, computed from the text of an answer alone.

Each is about 1 wide: its standard deviation over the base's answers is 1. Whatever serves one costs the others: every
word costs brevity, talk beside the point costs helpfulness, warnings cost warmth, and each instruction is one more
thing that can go wrong. All four are finite on any text, and what counts for an objective counts once however often it
is said, so that saying it again only costs.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions

_CONNECTORS = ("then", "next", "finally", "first", "also", "please", "and", "now")
_VERBS = frozenset(
    re.findall(
        r"\w+",
        """
    add agree ask block book bring call change check choose claim clean click close collect compare
    connect contact cook copy cut delete describe disconnect download drink drive enter explain feel
    fill find follow free get give glue go hide install join keep label learn leave let list listen look
    lower make mark move name open order pay pick plan plug pour prepare press print pull pump push put
    raise read remove rent repeat replace reset rest restart reward run save screw search select send
    set sleep solve speak start stop study take talk tell test try turn type update use visit wait walk
    wash water wipe write
        """,
    )
)
_REASONS = ("usually", "often", "normally", "sometimes", "mostly", "because")
_CAUTION = (
    "careful",
    "carefully",
    "caution",
    "warning",
    "never",
    "do not",
    "don't",
    "avoid",
    "first",
    "unless",
    "risk",
)
_WARMTH = {"gladly": 1.0, "happy": 1.2, "thank": 1.2, "thanks": 1.2, "luck": 0.8, "hope": 1.2, "glad": 1.2}
_WARMTH |= {"always": 0.6, "much": 0.6, "welcome": 1.0, "delighted": 1.2, "great": 0.8, "wonderful": 1.0}
_WARMTH |= {"sorry": 0.8, "lovely": 1.0}
_COLDNESS = {"noted": 0.8, "that is all": 0.5, "never": 0.4, "do not": 0.4, "don't": 0.4, "avoid": 0.4, "careful": 0.2}


@dataclass(frozen=True)
class _Reading:
    """What a reader finds in a text; everything is counted once."""

    words: int
    instructions: int
    reasons: int
    asides: int  # words that neither instruct nor explain
    cautions: int
    warmth: float
    coldness: float


def helpful(completions: Completions) -> Float[np.ndarray, " n"]:
    """What can be done after reading: instructions and the reason for them, less the talk around them.

        1.3 (4 (1 - 0.75^instructions) + 0.7 [a reason is given] - 0.05 asides)

    In standard deviations of the base's answers. `instructions` are different sentences of three or more words that
    begin with a verb of doing; `asides` are the words of sentences that neither instruct nor explain. An empty text
    scores 0.

    >>> texts = ["Open the page.", "Open the page. Then choose a link.", "Open the page. Open the page."]
    >>> [round(float(score), 2) for score in helpful(Completions([""] * 3, texts))]
    [1.3, 2.27, 1.3]
    """
    return _scores(
        1.3 * (4 * (1 - 0.75**found.instructions) + 0.7 * found.reasons - 0.05 * found.asides)
        for found in map(_read, completions.responses)
    )


def brief(completions: Completions) -> Float[np.ndarray, " n"]:
    """Minus the words, in standard deviations of the base's answers: -max(words, 4) / 8.5.

    A stretch of letters counts one word for each twelve of them, so that leaving out spaces gains nothing, and below
    four words, where no answer is left, neither does saying less.

    >>> [round(float(score), 2) for score in brief(Completions([""] * 3, ["", "Open the page now.", "x" * 120]))]
    [-0.47, -0.47, -1.18]
    """
    return _scores(-max(found.words, 4) / 8.5 for found in map(_read, completions.responses))


def warm(completions: Completions) -> Float[np.ndarray, " n"]:
    """Friendly words, with diminishing returns, less cold ones and warnings.

        4 tanh(warmth / 4) - 0.8 coldness     warmth, coldness: weights of the different words found

    In standard deviations of the base's answers. An empty text scores 0.

    >>> texts = ["Gladly!", "Gladly, gladly, gladly!", "Noted.", "Never do that."]
    >>> [round(float(score), 2) for score in warm(Completions([""] * 4, texts))]
    [0.98, 0.98, -0.64, -0.32]
    """
    return _scores(4 * np.tanh(found.warmth / 4) - 0.8 * found.coldness for found in map(_read, completions.responses))


def careful(completions: Completions) -> Float[np.ndarray, " n"]:
    """Cautions given, with diminishing returns, less what is exposed: each instruction can go wrong.

        3 (1 - 0.6^cautions) - 0.2 instructions

    In standard deviations of the base's answers. `cautions` are the different words of warning found. An empty text
    scores 0.

    >>> texts = ["Open the page.", "Open the page. Never share it.", "Never, never, never!"]
    >>> [round(float(score), 2) for score in careful(Completions([""] * 3, texts))]
    [-0.2, 1.0, 1.2]
    """
    return _scores(
        3 * (1 - 0.6**found.cautions) - 0.2 * found.instructions for found in map(_read, completions.responses)
    )


def _scores(values: Iterable[float]) -> Float[np.ndarray, " n"]:
    return np.array(list(values), dtype=float)


@lru_cache(maxsize=65536)  # the four objectives read the same texts
def _read(text: str) -> _Reading:
    instructions: set[frozenset[str]] = set()
    cautions: set[str] = set()
    reasons, asides = 0, 0
    sentences = [re.findall(r"[\w']+", part) for part in re.split(r"[.!?\n]+", text.lower())]
    for words in filter(None, sentences):
        start = next((i for i, word in enumerate(words) if word not in _CONNECTORS), len(words))
        core = words[start:]
        cautions |= _found(_CAUTION, core)
        if len(core) >= 3 and core[0] in _VERBS:
            instructions.add(frozenset(core))
        elif _found(_REASONS, core):
            reasons = 1
        else:
            asides += len(words)
    said = [word for words in sentences for word in words]
    return _Reading(
        words=len(re.findall(r"[\w']{1,12}", text)),
        instructions=len(instructions),
        reasons=reasons,
        asides=asides,
        cautions=len(cautions),
        warmth=sum((_WARMTH[phrase] for phrase in sorted(_found(_WARMTH, said))), 0.0),
        coldness=sum((_COLDNESS[phrase] for phrase in sorted(_found(_COLDNESS, said))), 0.0),
    )


def _found(phrases: Iterable[str], words: list[str]) -> set[str]:
    text = f" {' '.join(words)} "
    return {phrase for phrase in phrases if f" {phrase} " in text}
