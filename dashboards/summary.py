"""The front in a sentence."""

from collections.abc import Mapping

from moalign.dashboards.wording import listing, number, short, span_decimals
from moalign.frontiers.pareto_set import ParetoSet

_WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


def summary_sentence(front: ParetoSet, indicators: Mapping[str, float | None]) -> str:
    """How many points are on the front, what it spans, and how much of what is possible it reaches.

    For two objectives it tells the trade: what one costs in the other, from end to end of the front. The last clause
    needs the indicator "hypervolume_ratio".

    >>> import numpy as np
    >>> summary_sentence(ParetoSet((), np.zeros(0)), {})
    'No adapter has been measured yet.'
    """
    if len(front) == 0:
        return "No adapter has been measured yet."
    if len(front) == 1:
        return f"One adapter has been measured, at {_place(front)}; a front needs at least two."
    count, total = len(front.front), len(front)
    alone = all(point.row is None and point.direction is None for point in front)
    policies = "adapters" if alone else "policies"  # mixtures, or one adapter in several directions
    if all(point.values == front.points[0].values for point in front):
        return f"{_count(total)} {policies} were measured, and all have the same values: {_place(front)}."
    if count == 1:
        best = f"One of {_count(total).lower()} {policies}"
        return f"{best} is at least as good as all others in everything: {_place(front)}."
    of = f"All {_count(total).lower()}" if count == total else f"{_count(count)} of {_count(total).lower()}"
    return f"{of} {policies} lie on the front: {_span(front)}{_share(indicators.get('hypervolume_ratio'))}."


def _count(number_of: int) -> str:
    return _WORDS[number_of] if number_of < len(_WORDS) else f"{number_of:,}"


def _place(front: ParetoSet) -> str:
    return listing([f"{short(name)} {number(front.front[0].values[name])}" for name in front.objectives])


def _span(front: ParetoSet) -> str:
    ends = []
    for name in front.objectives:
        values = [point.values[name] for point in front.front]
        places = span_decimals(values)
        ends.append((short(name), number(min(values), places), number(max(values), places)))
    if len(ends) == 2 and all(low != high for _, low, high in ends):
        (gained, low, high), (paid, bottom, top) = ends
        return f"from one end to the other {gained} rises from {low} to {high}, and {paid} falls from {top} to {bottom}"
    spans = [f"{name} {low} to {high}" if low != high else f"{name} {low}" for name, low, high in ends]
    more = [f"{len(spans) - 4} more"] if len(spans) > 5 else []
    return f"it spans {listing(spans[: 4 if more else 5] + more)}"


def _share(ratio: float | None) -> str:
    if ratio is None or ratio != ratio:
        return ""
    return f"; together they reach {100 * ratio:.0f} % of the hypervolume of the exact front at equal KL"
