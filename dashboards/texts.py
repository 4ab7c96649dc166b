"""The texts to read: the same prompt answered at two points of the front, with the scores of each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moalign.dashboards.records import BASE, Sample
from moalign.dashboards.wording import number, preference_text, short, span_decimals
from moalign.frontiers.pareto_set import ParetoSet


@dataclass(frozen=True)
class Voice:
    """Who answers: an adapter of the set, or the base model, and how it is called."""

    adapter: str
    label: str


@dataclass(frozen=True)
class Score:
    """A score as shown, as a number, and how far along its objective's range over all texts, from 0 to 1."""

    shown: str
    value: float
    place: float


@dataclass(frozen=True)
class Text:
    """One response: the positions of its prompt and its voice, what was said, and a score for each objective.

    None stands for a score that is not known.
    """

    prompt: int
    voice: int
    response: str
    scores: tuple[Score | None, ...]


@dataclass(frozen=True)
class TextsInfo:
    """Everything the reader may choose from; `first` are the two voices shown at first."""

    objectives: tuple[str, ...]
    prompts: tuple[str, ...]
    voices: tuple[Voice, ...]
    texts: tuple[Text, ...]
    first: tuple[int, int]
    note: str

    def as_dict(self) -> dict[str, Any]:
        """The record in what JSON can hold."""
        return asdict(self)


def texts_info(front: ParetoSet, samples: Sequence[Sample]) -> TextsInfo:
    """Arrange the samples by prompt and by voice; voices stand in the order of the set, the base model first.

    At first the two voices that ask most for the first and for the second objective are shown. A flat range puts
    every score in the middle. Samples of adapters that are not in the set are kept, under their adapter's name.
    """
    names = front.objectives
    if not samples:
        return TextsInfo(tuple(map(short, names)), (), (), (), (0, 0), "No texts were sampled for this report.")
    asked = {point.adapter: point.preference for point in front}
    spoken = dict.fromkeys(sample.adapter for sample in samples)
    order = [BASE, *asked, *(name for name in spoken if name not in asked)]
    adapters = [name for name in dict.fromkeys(order) if name in spoken]
    prompts = tuple(dict.fromkeys(sample.prompt for sample in samples))
    ranges = {name: _range([s.scores[name] for s in samples if name in s.scores]) for name in names}
    seats, pages = ({key: i for i, key in enumerate(keys)} for keys in (adapters, prompts))
    texts = tuple(
        Text(
            pages[sample.prompt],
            seats[sample.adapter],
            sample.response,
            tuple(_score(sample.scores.get(name), ranges[name]) for name in names),
        )
        for sample in samples
    )
    labels = [
        "base model" if name == BASE else preference_text(asked[name], names) if name in asked else short(name)
        for name in adapters
    ]
    voices = [
        Voice(name, label if labels.count(label) == 1 else f"{label} ({short(name, 14)})")
        for name, label in zip(adapters, labels, strict=True)
    ]
    weights = [asked[name].weights if name in asked else {} for name in adapters]
    first, *others = (_most(weights, name) for name in names[:2])
    second = others[0] if others else first
    if second == first:
        second = next((i for i in range(len(voices)) if i != first), first)
    return TextsInfo(tuple(map(short, names)), prompts, tuple(voices), texts, (first, second), "")


def _most(weights: Sequence[dict[str, float]], name: str) -> int:
    return max(range(len(weights)), key=lambda i: weights[i].get(name, 0.0))


def _range(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 0.0)


def _score(value: float | None, ends: tuple[float, float]) -> Score | None:
    if value is None or value != value:
        return None
    low, high = ends
    return Score(
        number(value, span_decimals(ends)), float(value), round((value - low) / (high - low), 4) if high > low else 0.5
    )
