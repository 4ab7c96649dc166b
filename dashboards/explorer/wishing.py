"""All the ways in which a run can be asked for at least so much of something."""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float

from moalign.dashboards.wishes import AtLeast, Offer, at_least, wanted_values
from moalign.errors import UserError
from moalign.exploring import FITTED, Seen, wish_of
from moalign.frontiers.calibration import brought_near
from moalign.frontiers.wanted import row_at_least, weights_at_least
from moalign.preference import Preference

_MEASURED = 3  # points that are tried
_SAME = 0.01  # of the range: mixtures that attain as much
_MAPPED = ("interpolate", "soup")  # policies that mix as the weights say, so that a row's own weights ask for it


def granted(seen: Seen, wanted: Mapping[str, float], works: list[str], policy: str | None) -> AtLeast:
    """The best way to ask for it: weights of the fitted map's best mixture, or of a measured point.

    Every offer is planned as a request with these weights would be, so that what is promised is what the page then
    shows. Raises DataError where nothing is wanted, or nothing can be predicted.
    """
    names = seen.run.objectives
    asked = np.array(wanted_values(names, wanted))
    spread = np.ptp(seen.front.values, axis=0)
    ways = (*_measured(seen, asked, spread, works), *_mixed(seen, asked, works, policy))
    offers = [offer for weights, by in ways if (offer := _planned(seen, weights, by)) is not None]
    return at_least(offers, wanted, dict(zip(names, spread.tolist(), strict=True)), policy)


def limits(seen: Seen) -> str:
    """What was not tried, in a sentence; empty where all was."""
    if len(seen.front) > FITTED:
        return f"Measured points alone were tried: mixtures are predicted for up to {FITTED} adapters."
    return ""


def _mixed(
    seen: Seen, asked: Float[np.ndarray, " m"], works: list[str], policy: str | None
) -> Iterable[tuple[dict[str, float], str]]:
    """Weights by which the map's best mixture can be asked for, and under which policy.

    Those for `calibrated` take longest to find, and are looked for where it is the policy of now or no other mixes that
    very row.
    """
    known, names = seen.calibration, seen.run.objectives
    if known is None:
        return
    row, reached, _ = row_at_least(known, asked)
    own = dict(zip(names, (row @ known.preferences).tolist(), strict=True))
    exact = False
    for each in _MAPPED:
        if each in works:
            yield own, each
            offer = _planned(seen, own, each)
            off = [] if offer is None else abs(np.array(list(offer.values.values())) - known.attained(row[None])[0])
            exact |= offer is not None and bool((off <= _SAME * known.spread).all())
    if reached and "calibrated" in works and (policy == "calibrated" or not exact):
        best = weights_at_least(known, asked, row)
        if best is not None:
            yield dict(zip(names, best.tolist(), strict=True)), "calibrated"


def _measured(
    seen: Seen, asked: Float[np.ndarray, " m"], spread: Float[np.ndarray, " m"], works: list[str]
) -> Iterable[tuple[dict[str, float], str]]:
    """The weights of the points that attain it with the most of the rest, or lack least."""
    spans = np.where(spread > 0, spread, 1.0)
    values, near = seen.front.values / spans, brought_near(asked, seen.front.values, spans) / spans
    lacks = np.nan_to_num(np.maximum(near - values, 0.0)).max(axis=1)
    free = np.isnan(asked) if np.isnan(asked).any() else np.ones(len(asked), dtype=bool)
    order = np.lexsort((-values[:, free].mean(axis=1), lacks))
    policy = next((each for each in ("direction", *_MAPPED) if each in works), None)
    for place in order[:_MEASURED] if policy else ():
        weights = seen.front.points[int(place)].preference.weights
        yield weights, str(policy)
        if "nearest" in works:  # two points may have been asked for the same: the better one is the nearest alone
            yield weights, "nearest"


def _planned(seen: Seen, weights: Mapping[str, float], policy: str) -> Offer | None:
    """What a request would be promised; None where nothing is."""
    names = seen.run.objectives
    wish: Preference = wish_of({name: weights.get(name, 0.0) for name in names}, names)
    try:
        plan = seen.planner.plan(wish, policy)
    except UserError:
        return None
    if not plan.predicted:
        return None
    values = {name: plan.predicted[name].value for name in names}
    ends = {name: plan.predicted[name].interval for name in names}
    return Offer({name: wish.weights.get(name, 0.0) for name in names}, policy, values, ends)
