"""The current trade-off: which adapters and how much, what they are predicted to attain, and where that lies."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moalign.dashboards.bars import Bar
from moalign.dashboards.wording import listing, number, short, span_decimals
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet

_MOST = 8  # adapters that are told apart
SOURCES = {
    "measured": "Measured: this very policy was evaluated.",
    "calibrated": "Predicted by the map that was fitted on measured blends.",
    "interpolated": (
        "Predicted by a straight line between measured policies; how far the truth bends away is not in the interval."
    ),
    "unknown": "What this mixture attains has not been measured and cannot be predicted.",
}


@dataclass(frozen=True)
class Outlook:
    """One objective: the predicted value with its interval, None where not known, and the range to compare it with.

    `low` and `high` are the range over the front and the base model, None where neither was measured. All in the
    objective's units.
    """

    objective: str
    column: int
    value: float | None
    interval: tuple[float, float] | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TradeoffInfo:
    """`parts` are adapters and how much of each, the most first; `where` is "on the front", "inside" or "unknown".

    `source` says in a sentence how the values are known, and `note` all of it in words.
    """

    parts: tuple[Bar, ...]
    outlooks: tuple[Outlook, ...]
    source: str
    where: str
    note: str


def tradeoff_info(plan: Mapping[str, Any], front: ParetoSet, base: ParetoPoint | None = None) -> TradeoffInfo:
    """What a plan, as `moalign.serving.plan.Plan.as_dict` writes it, mixes and promises, against what was measured.

    Of several lanes each counts by its share. A plan that predicts nothing has outlooks without values.
    """
    parts = _parts(plan, front)
    outlooks = _outlooks(plan, front, base)
    source = SOURCES[plan["source"]]
    where, told = _where(outlooks, front)
    mixed = listing([f"{part.said} {part.name}" for part in parts])
    said = [f"Mixed: {mixed}."]
    if plan["direction"]:
        told_direction = listing([f"{short(n)} {number(c, 2)}" for n, c in plan["direction"].items()])
        said.append(f"The prompt states the direction {told_direction}.")
    known = [f"{short(one.objective)} {promise(one)}" for one in outlooks if one.value is not None]
    said += [f"Values: {listing(known)}."] if known else []
    return TradeoffInfo(parts, outlooks, source, where, " ".join([*said, source, *([told] if told else [])]))


def promise(one: Outlook) -> str:
    """A predicted value with its interval, as it is read.

    >>> promise(Outlook("helpful", 0, 2.5719, (2.4887, 2.6552), 1.7, 3.7))
    '2.57 (2.49 to 2.66)'
    """
    if one.value is None:
        return "not known"
    ends = [end for end in (one.low, one.high, *(one.interval or ())) if end is not None]
    places = span_decimals([one.value, *ends])
    said = number(one.value, places)
    return said if one.interval is None else f"{said} ({' to '.join(number(end, places) for end in one.interval)})"


def _parts(plan: Mapping[str, Any], front: ParetoSet) -> tuple[Bar, ...]:
    shares: dict[str, float] = {}
    for lane in plan["lanes"]:
        # A row of no adapters is the base model; a lane without a share only steers the others.
        for adapter, weight in (lane["row"] or {"": 1.0}).items():
            shares[adapter] = shares.get(adapter, 0.0) + lane["share"] * weight
    names = _names(front)
    ordered = sorted(((share, key) for key, share in shares.items() if share > 0), key=lambda pair: (-pair[0], pair[1]))
    shown = [Bar(short(names.get(key, key), 34), share, f"{100 * share:.3g} %") for share, key in ordered[:_MOST]]
    rest = math.fsum(share for share, _ in ordered[_MOST:])
    if rest:
        shown.append(Bar(f"{len(ordered) - _MOST} more", rest, f"{100 * rest:.3g} %"))
    return tuple(shown)


def _names(front: ParetoSet) -> dict[str, str]:
    """Adapter to what it is called: by what it was asked for, or as it is where others were asked for the same."""
    keys = {point.adapter: point.preference.key for point in front}
    often = Counter(keys.values())
    return {"": "base model", **{adapter: key if often[key] == 1 else adapter for adapter, key in keys.items()}}


def _outlooks(plan: Mapping[str, Any], front: ParetoSet, base: ParetoPoint | None) -> tuple[Outlook, ...]:
    ends = front.values[front.on_front]
    found = []
    for column, name in enumerate(front.objectives):
        predicted = plan["predicted"].get(name, {"value": None, "interval": None})
        at_base = math.nan if base is None else base.values.get(name, math.nan)
        measured = [value for value in (*ends[:, column].tolist(), at_base) if math.isfinite(value)]
        found.append(
            Outlook(
                name,
                column,
                predicted["value"],
                None if predicted["interval"] is None else tuple(predicted["interval"]),
                min(measured, default=None),
                max(measured, default=None),
            )
        )
    return tuple(found)


def _where(outlooks: tuple[Outlook, ...], front: ParetoSet) -> tuple[str, str]:
    """Whether some measured policy is at least as good in everything and better in something, and the sentence."""
    predicted = [one.value for one in outlooks if one.value is not None]
    if not len(front) or len(predicted) < len(outlooks):
        return "unknown", ""
    ahead = front.values - np.array(predicted)
    better = (ahead >= 0).all(axis=1) & (ahead > 0).any(axis=1)
    if not better.any():
        return "on the front", "It lies on the front: no measured policy is as good in everything."
    halves = [one.interval[1] - value if one.interval else 0.0 for one, value in zip(outlooks, predicted, strict=True)]
    told = (ahead > np.array(halves)).any(axis=1) & better
    point = front.points[int(np.flatnonzero(told if told.any() else better)[0])]
    name = short(_names(front)[point.adapter], 34)
    hedge = "" if told.any() else ", though by no more than the intervals allow"
    return "inside", f"It lies inside the front: {name} is at least as good in everything{hedge}."
