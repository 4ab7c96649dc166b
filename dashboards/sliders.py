"""Sliders that stay on the simplex: one moves, the free ones give way, the locked ones stand."""

import math
from collections.abc import Collection, Sequence

from moalign.errors import PreferenceError

_ROUNDING = 1e-6  # weights that a page has rounded need not sum to 1 more exactly than that


def moved(weights: Sequence[float], place: int, value: float, locked: Collection[int] = ()) -> tuple[float, ...]:
    """The weights after slider `place` was moved to `value`: none negative, and their exact sum rounds to 1.

    (Unless the locked ones alone are above 1, by a rounding: they keep what they have.)

    The locked ones keep theirs, and the moved one gets at most what they leave; the other free ones share the rest in
    proportion to what they had, evenly if that was nothing. Where no other is free, and where `place` itself is
    locked, nothing moves. Raises PreferenceError unless the weights are at least 0 and sum to 1 within 1e-6, and for
    a value that is no number.

    >>> moved((0.5, 0.25, 0.25), 0, 0.75)
    (0.75, 0.125, 0.125)
    >>> moved((0.5, 0.25, 0.25), 0, 0.9, locked={1})
    (0.75, 0.25, 0.0)
    """
    _check(weights, value)
    others = [i for i in range(len(weights)) if i != place and i not in locked]
    if place in locked or not others:
        return tuple(weights)
    fixed = [weight for i, weight in enumerate(weights) if i != place and i not in others]
    room = max(math.fsum((1.0, *(-weight for weight in fixed))), 0.0)
    result = list(weights)
    result[place] = min(max(value, 0.0), room)
    had = math.fsum(weights[i] for i in others)
    for i in others:
        share = weights[i] / had if had > 0 else 1 / len(others)
        result[i] = (room - result[place]) * share
    # One of them takes up the rounding; the largest, where it does not show and cannot lead below 0.
    filler = max((place, *others), key=lambda i: (result[i], i != place))
    result[filler] = math.fsum((1.0, *(-weight for i, weight in enumerate(result) if i != filler)))
    return tuple(max(weight, 0.0) for weight in result)


def _check(weights: Sequence[float], value: float) -> None:
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or abs(math.fsum(weights) - 1) > _ROUNDING:
        shown = ", ".join(f"{weight:g}" for weight in weights)
        raise PreferenceError(f"sliders at {shown}; expected weights >= 0 that sum to 1")
    if math.isnan(value):
        raise PreferenceError("a slider was moved to NaN; expected a number from 0 to 1")
