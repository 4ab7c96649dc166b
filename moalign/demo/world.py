"""A help desk whose every answer is known: 200 questions, 600 answers to each, and four objectives that conflict.

An answer is a path through five slots:

    opening | one to four steps | reason or not | caution | closing

    Happy to help with that! Open the sign in page. Then choose the forgotten password link. Good luck!

All answers to a prompt can be listed, so the optimum of a KL-regularised objective is a sum and not an estimate.
The base model beside this file (`base/`, made by build.py) has read the answers to all prompts in these frequencies;
the evaluation prompts are held out from alignment, not from the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product

import numpy as np
import yaml

from moalign.batches import Prompt
from moalign.demo.objectives import brief, careful, helpful, warm
from moalign.errors import DataError, unknown

__all__ = ["Topic", "answers", "brief", "careful", "helpful", "prompts", "sample_answer", "topics", "warm"]
__all__ += ["weighted_answers"]

Option = tuple[str, float]  # a text and how often the help desk says it

# No option is rare: a preference can then move far from the base without leaving what the base can say.
OPENINGS: tuple[Option, ...] = (
    ("", 0.30),
    ("Noted.", 0.15),
    ("Sure, gladly!", 0.20),
    ("Happy to help with that!", 0.20),
    ("Thank you so much for asking!", 0.15),
)
CONNECTORS = ("", "Then", "Next", "Finally")
STEP_COUNTS: tuple[float, ...] = (0.25, 0.30, 0.25, 0.20)
REASON = 0.4
CAUTIONS = (0.40, 0.30, 0.30)  # none, the guard alone, the precaution and the guard
CLOSINGS: tuple[Option, ...] = (
    ("", 0.30),
    ("That is all.", 0.15),
    ("Good luck!", 0.20),
    ("I hope this helps you!", 0.20),
    ("We are always so glad to help!", 0.15),
)


@dataclass(frozen=True)
class Topic:
    """One thing that people ask the help desk about."""

    name: str
    prompts: tuple[str, ...]  # five phrasings; the last one is the evaluation split
    steps: tuple[str, ...]
    reason: str
    precaution: str
    guard: str

    @property
    def cautions(self) -> tuple[str, str, str]:
        """None, short and fuller."""
        return "", sentence(self.guard), f"Be careful: {self.precaution} first, and {self.guard}."

    def stated(self, count: int) -> str:
        """The first `count` steps, each as a sentence."""
        pairs = zip(CONNECTORS, self.steps[:count], strict=False)
        return " ".join(sentence(f"{connector} {step}".strip()) for connector, step in pairs)


def sentence(text: str) -> str:
    """A capital in front and a full stop behind.

    >>> sentence("open the page")
    'Open the page.'
    """
    return f"{text[0].upper()}{text[1:]}."


@cache
def topics() -> tuple[Topic, ...]:
    """The 40 topics, in the order of topics.yaml."""
    rows = yaml.safe_load((files("moalign.demo") / "topics.yaml").read_text(encoding="utf-8"))
    return tuple(Topic(**row | {"prompts": tuple(row["prompts"]), "steps": tuple(row["steps"])}) for row in rows)


def prompts(split: str) -> list[str]:
    """The 160 prompts to align on, or the 40 to evaluate on: a fifth phrasing of every topic.

    Raises DataError for another split.

    >>> len(prompts("train")), prompts("eval")[0]
    (160, 'What should I do about a lost password?')
    """
    if split not in ("train", "eval"):
        raise DataError(unknown("split", split, ["eval", "train"]))
    return [text for topic in topics() for text in (topic.prompts[:-1] if split == "train" else topic.prompts[-1:])]


def weighted_answers(prompt: Prompt) -> list[tuple[str, float]]:
    """Every answer to `prompt` with its probability in the help desk's own words.

    p(answer) = p(opening) p(number of steps) p(reason) p(caution) p(closing): the slots are independent. `prompt` is a
    text or a conversation, of which the last user turn counts. Raises DataError if the world does not know the prompt.

    >>> both = weighted_answers("How do I reset my password?")
    >>> len(both), round(sum(probability for _, probability in both), 9), both[0][0]
    (600, 1.0, 'Open the sign in page.')
    """
    return list(_weighted(_topic(prompt)))


def answers(prompt: Prompt) -> list[str]:
    """Every answer to `prompt`, each once, in a fixed order. Raises DataError if the world does not know the prompt.

    >>> answers([{"role": "user", "content": "I lost my bank card."}])[-1]  # doctest: +ELLIPSIS
    'Thank you so much for asking! Call the card line. Then ... pin. We are always so glad to help!'
    """
    return [text for text, _ in _weighted(_topic(prompt))]


def sample_answer(prompt: Prompt, rng: np.random.Generator) -> str:
    """One answer in the help desk's own frequencies. Raises DataError if the world does not know the prompt.

    >>> sample_answer("I lost my bank card.", np.random.default_rng(1)) in answers("I lost my bank card.")
    True
    """
    weighted = _weighted(_topic(prompt))
    return weighted[rng.choice(len(weighted), p=[probability for _, probability in weighted])][0]


@cache
def _by_prompt() -> dict[str, Topic]:
    return {text: topic for topic in topics() for text in topic.prompts}


def _topic(prompt: Prompt) -> Topic:
    text = prompt if isinstance(prompt, str) else _last_user_turn(prompt)
    found = _by_prompt().get(text)
    if found is None:
        raise DataError(
            f"{unknown('prompt', text[:80], _by_prompt()).partition(' (known')[0]}; the help desk can list its answers "
            'only to moalign.demo.world.prompts("train") and prompts("eval")'
        )
    return found


def _last_user_turn(messages: Sequence[dict[str, str]]) -> str:
    return next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")


@cache
def _weighted(topic: Topic) -> tuple[tuple[str, float], ...]:
    bodies = [(topic.stated(count), share) for count, share in enumerate(STEP_COUNTS, start=1)]
    reasons = [("", 1 - REASON), (sentence(topic.reason), REASON)]
    cautions = list(zip(topic.cautions, CAUTIONS, strict=True))
    paths = product(OPENINGS, bodies, reasons, cautions, CLOSINGS)
    return tuple(
        (" ".join(text for text, _ in path if text), float(np.prod([share for _, share in path]))) for path in paths
    )
