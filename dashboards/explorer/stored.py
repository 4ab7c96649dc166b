"""The texts that were stored when points were measured, by point and prompt: what can be read without a model."""

import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from moalign.dashboards.records import BASE, Sample
from moalign.dashboards.wording import preference_text
from moalign.errors import UserError
from moalign.exploring import Seen, prompt_text
from moalign.frontiers import ParetoPoint

FIVE = 5  # points of the front that answer the same prompt
_POINTS = 40  # whose texts are read where all are wanted: of thousands, some all along the front


def texts_of(seen: Seen, key: str) -> tuple[Sample, ...]:
    """The texts behind a point, or the base; none if there are none."""
    path = seen.run.folder / "samples" / f"{key}.jsonl"
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else ()


@lru_cache(maxsize=128)
def _read(path: Path, _written: int) -> tuple[Sample, ...]:
    """As `Run.samples` reads them, but once for each time that they were written."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return tuple(
        Sample(path.stem, prompt_text(row["prompt"]), row["response"], _numbers(row["scores"])) for row in rows
    )


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that are there."""
    return {name: float(score) for name, score in scores.items() if score is not None}


def stored_prompts(seen: Seen) -> list[str]:
    """The different prompts that points, or the base, were measured on; none where no texts are stored."""
    first = next(filter(None, (texts_of(seen, key) for key in (BASE, *seen.points))), ())
    return list(dict.fromkeys(sample.prompt for sample in first))


def answers(seen: Seen, key: str, prompt: str) -> list[Sample]:
    """What a point said to a prompt, in the order in which it was drawn."""
    return [sample for sample in texts_of(seen, key) if sample.prompt == prompt]


def some_texts(seen: Seen) -> list[Sample]:
    """The texts of the base and of all points; of many points, of 40 that lie all along their preferences."""
    keys = list(seen.points)
    if len(keys) > _POINTS:
        keys = [keys[round(at * (len(keys) - 1) / (_POINTS - 1))] for at in range(_POINTS)]
    return [sample for key in (BASE, *keys) for sample in texts_of(seen, key)]


def nearest(seen: Seen, weights: Mapping[str, float]) -> ParetoPoint | None:
    """The point with texts whose preference is nearest to the weights, by the sum of the differences.

    Of equally near ones, one on the front comes before one that is dominated. None where no point has texts.
    """
    names, front = seen.run.objectives, {point.adapter for point in seen.on_front}

    def far(point: ParetoPoint) -> tuple[float, bool]:
        asked = point.preference.weights
        distance = sum(abs(asked.get(name, 0.0) - weights[name]) for name in names)
        return round(distance, 9), point.adapter not in front

    return next((point for point in sorted(seen.front, key=far) if texts_of(seen, point.adapter)), None)


def text_key(prompt: str, response: str) -> str:
    """A word for a text under its prompt, the same in every state of the folder."""
    return blake2b(f"{prompt}\0{response}".encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def others(seen: Seen) -> list[dict[str, str]]:
    """Who may stand in column B: the base and every point by the name that the server knows it by."""
    found = [{"label": "base model", "value": BASE}]
    names = seen.front.objectives
    return found + [
        {"label": preference_text(point.preference, names), "value": name} for name, point in _served(seen).items()
    ]


def five_points(seen: Seen) -> list[dict[str, str]]:
    """Five points of the front, from one end of it to the other by the first objective, by their served names."""
    names = {point.adapter: name for name, point in _served(seen).items()}
    first = seen.front.objectives[0]
    along = sorted((point for point in seen.on_front if point.adapter in names), key=lambda point: point.values[first])
    places = {round(at * (len(along) - 1) / max(FIVE - 1, 1)) for at in range(FIVE)} if along else set()
    return [
        {
            "model": names[along[at].adapter],
            "adapter": along[at].adapter,
            "label": preference_text(along[at].preference, seen.front.objectives),
        }
        for at in sorted(places)
    ]


def _served(seen: Seen) -> Mapping[str, Any]:
    """The points by their served names; none where nothing can be planned yet, which the trade-off explains."""
    try:
        return seen.planner.names
    except UserError:
        return {}


def shown_stored(
    seen: Seen, prompt: str, turn: int, weights: Mapping[str, float], other: str, kept: Mapping[str, float] | None
) -> dict[str, Any]:
    """The stored texts of both columns and of the five points: the `turn`-th of each, counting on in a circle."""
    if other == "kept" and kept:
        second = nearest(seen, kept)
    else:
        second = seen.base if other == BASE else _served(seen).get(other)
    columns = [(nearest(seen, weights), "nearest measured point"), (second, "measured point")]
    two = [_voice(seen, point, prompt, turn, called) for point, called in columns]
    five = [
        {**_voice(seen, seen.points[each["adapter"]], prompt, turn, None), "head": each["label"]}
        for each in five_points(seen)
    ]
    return {"two": two, "five": five}


def _voice(seen: Seen, point: ParetoPoint | None, prompt: str, turn: int, called: str | None) -> dict[str, Any]:
    """One stored text, who said it, its scores, and what that point attains on average."""
    nobody = {"text": "", "scores": None, "mean": {}}
    if point is None:
        return {**nobody, "state": "no point with stored texts has been measured"}
    is_base = point is seen.base
    found = answers(seen, BASE if is_base else point.adapter, prompt)
    who = "base model" if is_base else f"{called}: {preference_text(point.preference, seen.run.objectives)}"
    begin = f"{who} · " if called else ""  # in the grid a heading says it
    if not found:
        return {**nobody, "state": f"{begin}no text is stored for this prompt"}
    at = turn % len(found)
    sample = found[at]
    state = f"{begin}sample {at + 1} of {len(found)}"
    return {"text": sample.response, "state": state, "scores": sample.scores, "mean": point.values}
