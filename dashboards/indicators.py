"""The indicators of a front: each by name, with its value and what it means in a line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from moalign.dashboards.wording import MISSING, number, short

# Key -> title, meaning. Everything an indicator of a run may be called; other keys are shown as they are.
INDICATORS: dict[str, tuple[str, str]] = {
    "hypervolume": (
        "Hypervolume",
        "How much of the objective space, above the reference point, the front reaches. Higher is better.",
    ),
    "normalised_hypervolume": (
        "Normalised hypervolume",
        "The same as a share of the box between the reference point and the ideal. At most 1.",
    ),
    "oracle_hypervolume": (
        "Hypervolume of the exact front",
        "What the best possible policies reach when each may move as far from the base model as its adapter did.",
    ),
    "hypervolume_ratio": (
        "Share of the exact front",
        "Hypervolume divided by that of the exact front at equal KL. 1 means that nothing is left to gain.",
    ),
    "oracle_hypervolume_at_beta": (
        "Hypervolume of the exact front at beta",
        "What the closed-form optimum reaches at the strength of regularisation that was trained with.",
    ),
    "hypervolume_ratio_at_beta": (
        "Share of the exact front at beta",
        "Hypervolume divided by that of the exact front at beta. Above 1 where adapters moved further than asked.",
    ),
    "expected_utility": (
        "Expected utility",
        "What users get on average when each takes the point that is best for their own weights. Higher is better.",
    ),
    "mip": (
        "Mean inner product",
        "What each point is worth under the very weights it was trained for, on average. Higher is better.",
    ),
    "sparsity": (
        "Sparsity",
        "Mean squared gap between neighbours on the front. Lower is denser.",
    ),
    "igd_plus": (
        "IGD+",
        "How far the front falls short of the exact front, on average. 0 is best.",
    ),
    "kendall_tau": (
        "Kendall's tau",
        "Whether asking for more gets more: 1 if always, 0 if there is no order, \N{MINUS SIGN}1 if it is reversed.",
    ),
}


@dataclass(frozen=True)
class Indicator:
    """One row: `title` and `value` as shown, and what it means; `of` is the objective it is about, or empty."""

    title: str
    of: str
    value: str
    meaning: str


@dataclass(frozen=True)
class IndicatorsInfo:
    """All indicators, and the point from which hypervolume is counted."""

    rows: tuple[Indicator, ...]
    reference_point: str


def indicators_info(
    indicators: Mapping[str, float | None], objectives: Sequence[str], reference_point: Float[np.ndarray, " m"]
) -> IndicatorsInfo:
    """The indicators in the order given; None and NaN are shown as a dash, with the reason where one is known.

    A key may end in the name of an objective, such as "kendall_tau helpful"; what it means is then told once.

    >>> info = indicators_info({"kendall_tau helpful": 0.5}, ["helpful"], np.zeros(1))
    >>> info.rows[0].title, info.rows[0].of, info.rows[0].value, info.reference_point
    ("Kendall's tau", 'helpful', '0.500', 'helpful 0.00')
    """
    kinds = [key.partition(" ")[0] for key in indicators]
    rows = tuple(_row(key, value, kinds.index(kinds[i]) == i) for i, (key, value) in enumerate(indicators.items()))
    places = [
        f"{short(name)} {number(value)}" for name, value in zip(objectives, reference_point.tolist(), strict=True)
    ]
    return IndicatorsInfo(rows, ", ".join(places))


def _row(key: str, value: float | None, first: bool) -> Indicator:
    kind, _, objective = key.partition(" ")
    title, meaning = INDICATORS.get(kind, (key, ""))
    meaning = meaning if first else ""
    shown = number(value)
    if shown == MISSING:
        meaning = f"{meaning} {_why_missing(value)}".strip()
    return Indicator(title, short(objective) if kind in INDICATORS else "", shown, meaning)


def _why_missing(value: float | None) -> str:
    if value is not None and math.isinf(value):
        return "Without bound here."
    return "Not known for this run." if value is None else "Not defined for these points."
