"""At least so much of this: which of several ways to ask gets it, with the most of the rest, and what is said of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moalign.dashboards.wording import listing, number, short, span_decimals
from moalign.errors import DataError, PreferenceError, unknown
from moalign.frontiers.calibration import brought_near

_REACHED = 1e-6  # of the range: as near as a search comes
_WORTH = 0.01  # of the range: what another policy must bring before it is changed for it


@dataclass(frozen=True)
class Offer:
    """Weights under a policy and what they are expected to attain, in the objectives' units.

    `intervals` are those of 95 %, None where not known.
    """

    weights: dict[str, float]
    policy: str
    values: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]


@dataclass(frozen=True)
class AtLeast:
    """The offer that was taken, whether it attains what was wanted, what it lacks, and a note that says it all.

    `lacking` is in the objectives' units and empty where `reached`.
    """

    offer: Offer
    reached: bool
    lacking: dict[str, float]
    note: str


def wanted_values(objectives: Sequence[str], wanted: Mapping[str, float]) -> tuple[float, ...]:
    """What is wanted of each objective, NaN for nothing.

    Raises PreferenceError, with the near name, for an objective that there is not, and DataError if nothing is wanted
    or something infinite.

    >>> wanted_values(["helpful", "brief"], {"brief": 2.0})
    (nan, 2.0)
    """
    for name, value in wanted.items():
        if name not in objectives:
            raise PreferenceError(unknown("objective", name, objectives))
        if math.isinf(value):
            raise DataError(f"{value:g} of {name} is wanted; expected a finite number")
    found = tuple(float(wanted.get(name, math.nan)) for name in objectives)
    if all(map(math.isnan, found)):
        raise DataError("nothing is wanted; name at least one objective and how much of it")
    return found


def at_least(
    offers: Sequence[Offer], wanted: Mapping[str, float], spread: Mapping[str, float], policy: str | None = None
) -> AtLeast:
    """Of the offers that attain what is wanted, the one with the most of the rest; else the one that lacks least.

    argmax over offers of mean over free j of V_j / spread_j, subject to V_j >= wanted_j: free is what nothing is wanted
    of, or everything where something is wanted of each. The policy of now is changed only for what brings a hundredth
    of the range more. `spread` is the range of each objective, in whose order `offers` must hold values; NaN wants
    nothing. Raises DataError without an offer; and what `wanted_values` raises.

    >>> ends = {"helpful": None, "brief": None}
    >>> one = Offer({"helpful": 0.5, "brief": 0.5}, "interpolate", {"helpful": 2.0, "brief": 3.0}, ends)
    >>> two = Offer({"helpful": 0.2, "brief": 0.8}, "interpolate", {"helpful": 1.0, "brief": 4.0}, ends)
    >>> at_least([one, two], {"helpful": 1.0}, {"helpful": 4.0, "brief": 4.0}).offer == two
    True
    """
    names = list(spread)
    asked = np.array(wanted_values(names, wanted))
    if not offers:
        raise DataError("nothing that this run can serve has a known value; evaluate its adapters first")
    spans = np.array([spread[name] or 1.0 for name in names])
    values = np.array([[offer.values[name] for name in names] for offer in offers])
    lacks = np.nan_to_num(np.maximum(brought_near(asked, values, spans) - values, 0.0) / spans)
    reached = np.asarray((lacks <= _REACHED).all(axis=1))
    free = np.isnan(asked) if np.isnan(asked).any() else np.ones(len(names), dtype=bool)
    own = np.array([offer.policy == policy for offer in offers])
    gains = (values / spans)[:, free].mean(axis=1) if reached.any() else -lacks.max(axis=1) - 1e-3 * lacks.sum(axis=1)
    scores = np.where(reached | ~reached.any(), gains + _WORTH * own, -np.inf)
    best = int(scores.argmax())
    offer, missing = offers[best], np.maximum(asked - values[best], 0.0)
    lacking = {name: float(amount) for name, amount in zip(names, missing, strict=True) if amount > 0}
    known = {name: value for name, value in zip(names, asked.tolist(), strict=True) if not math.isnan(value)}
    places = {name: span_decimals((0.0, float(span))) for name, span in zip(names, spans, strict=True)}
    if reached[best]:
        return AtLeast(offer, True, {}, _reached(known, offer, places))
    return AtLeast(offer, False, lacking, _missed(known, offer, lacking, places))


def _reached(asked: Mapping[str, float], offer: Offer, places: Mapping[str, int]) -> str:
    """Also how sure it is: what is reached with nothing to spare is missed as often as not."""
    wish = listing([f"{short(name)} {number(value, places[name])}" for name, value in asked.items()])
    attained = [f"{short(name)} {_told(offer, name, places[name])}" for name in offer.values]
    unsure = [name for name, value in asked.items() if (offer.intervals[name] or (-math.inf,))[0] < value]
    blind = [name for name in unsure if offer.intervals[name] is None]
    if blind:
        sure = f"How sure that is of {listing([short(name) for name in blind])} is not known."
    elif unsure:
        sure = f"Within its interval {listing([short(name) for name in unsure])} may also be less than was asked."
    else:
        sure = "Even the low end of each interval is as much."
    return f"At least {wish} can be had: predicted are {listing(attained)}. {sure}"


def _missed(asked: Mapping[str, float], offer: Offer, lacking: Mapping[str, float], places: Mapping[str, int]) -> str:
    wish = listing([f"{short(name)} {number(value, places[name])}" for name, value in asked.items()])
    ends = [(asked[name], offer.intervals[name]) for name in lacking]
    hope = " Within the intervals it may." if all(end and end[1] >= value for value, end in ends) else ""
    if len(asked) > 1:
        missing = listing([f"{number(amount, places[name])} of {short(name)}" for name, amount in lacking.items()])
        return f"Nothing here reaches {wish} together: what comes nearest lacks {missing}.{hope}"
    (name,) = asked
    most, missing = _told(offer, name, places[name]), number(lacking[name], places[name])
    return f"Nothing here reaches {wish}: the most of it is {most}, which is {missing} less.{hope}"


def _told(offer: Offer, name: str, places: int) -> str:
    ends = offer.intervals[name]
    said = number(offer.values[name], places)
    return said if ends is None else f"{said} ({number(ends[0], places)} to {number(ends[1], places)})"
