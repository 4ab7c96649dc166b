"""At least so much: of what can be asked for, what reaches it with the most of the rest; else what lacks least."""

from itertools import product

import numpy as np
import pytest

from moalign.dashboards.wishes import Offer, at_least, wanted_values
from moalign.errors import DataError, PreferenceError

NAMES = ("helpful", "brief")
SPREAD = {"helpful": 4.0, "brief": 2.0}
NAN = float("nan")


def offer(helpful: float, brief: float, policy: str = "interpolate", half: float | None = 0.25) -> Offer:
    values = {"helpful": helpful, "brief": brief}
    ends = {name: None if half is None else (value - half, value + half) for name, value in values.items()}
    return Offer({"helpful": helpful / (helpful + brief), "brief": brief / (helpful + brief)}, policy, values, ends)


OFFERS = [offer(4.0, 0.5), offer(3.0, 1.0), offer(2.0, 1.75), offer(0.5, 2.0)]


@pytest.mark.parametrize("wanted", list(product((NAN, 0.5, 2.0, 3.5), (NAN, 0.5, 1.5, 1.75)))[1:])
def test_it_is_the_best_of_all_that_reach_it(wanted: tuple[float, float]) -> None:
    """By enumeration: the largest mean, in ranges, of what nothing is wanted of, or of all."""
    asked = dict(zip(NAMES, wanted, strict=True))
    found = at_least(OFFERS, asked, SPREAD)
    fine = [one for one in OFFERS if all(not one.values[name] < asked[name] for name in NAMES)]
    assert found.reached == bool(fine)
    free = [name for name in NAMES if np.isnan(asked[name])] or NAMES
    if fine:
        best = max(fine, key=lambda one: sum(one.values[name] / SPREAD[name] for name in free))
        assert found.offer == best
        assert found.lacking == {}
        assert found.note.startswith("At least ")
    else:
        lacks = [np.nan_to_num([max(asked[n] - one.values[n], 0) / SPREAD[n] for n in NAMES]) for one in OFFERS]
        least = min(range(len(OFFERS)), key=lambda at: (lacks[at].max(), lacks[at].sum()))
        assert found.offer == OFFERS[least]
        assert found.lacking


def test_no_more_is_asked_for_than_is_wanted() -> None:
    """Helpful 3 is had at (3, 1); (4, .5) has more of it and less of the other."""
    assert at_least(OFFERS, {"helpful": 3.0}, SPREAD).offer == OFFERS[1]


def test_how_sure_it_is_is_said() -> None:
    """3 is reached with nothing to spare, 2.5 even by the low end of (2.75, 3.25), and without intervals who knows."""
    note = at_least(OFFERS, {"helpful": 3.0}, SPREAD).note
    assert note == (
        "At least helpful 3.00 can be had: predicted are helpful 3.00 (2.75 to 3.25) and brief 1.00 (0.75 to 1.25). "
        "Within its interval helpful may also be less than was asked."
    )
    assert at_least(OFFERS, {"helpful": 2.5}, SPREAD).note.endswith("Even the low end of each interval is as much.")
    blind = at_least([offer(3.0, 1.0, half=None)], {"helpful": 3.0}, SPREAD)
    assert blind.note.endswith("predicted are helpful 3.00 and brief 1.00. How sure that is of helpful is not known.")


def test_what_lies_beyond_is_told_by_how_much() -> None:
    one = at_least(OFFERS, {"brief": 3.0}, SPREAD)
    assert one.lacking == {"brief": 1.0}
    assert one.note == "Nothing here reaches brief 3.00: the most of it is 2.00 (1.75 to 2.25), which is 1.00 less."
    near = at_least(OFFERS, {"brief": 2.25}, SPREAD)
    assert near.note.endswith("which is 0.25 less. Within the intervals it may.")
    both = at_least(OFFERS, {"helpful": 3.5, "brief": 1.5}, SPREAD)
    assert both.note == (
        "Nothing here reaches helpful 3.50 and brief 1.50 together: "
        "what comes nearest lacks 0.50 of helpful and 0.50 of brief."
    )


def test_the_policy_of_now_is_kept_for_less_than_a_hundredth_of_the_range() -> None:
    """.03 of 4 helpful is less than a hundredth of the range, .05 is more."""
    own = offer(2.0, 1.0, "calibrated")
    assert at_least([own, offer(2.03, 1.0)], {"brief": 1.0}, SPREAD, "calibrated").offer == own
    assert at_least([own, offer(2.05, 1.0)], {"brief": 1.0}, SPREAD, "calibrated").offer.policy == "interpolate"


def test_what_cannot_be_wanted_is_refused() -> None:
    for nothing in ({}, {"helpful": NAN}):
        with pytest.raises(DataError, match="nothing is wanted"):
            wanted_values(NAMES, nothing)
    with pytest.raises(DataError, match="inf of helpful is wanted; expected a finite number"):
        wanted_values(NAMES, {"helpful": float("inf")})
    with pytest.raises(PreferenceError, match="did you mean 'helpful'"):
        wanted_values(NAMES, {"helpfull": 1.0})
    with pytest.raises(DataError, match="nothing that this run can serve"):
        at_least([], {"helpful": 1.0}, SPREAD)


def test_a_flat_objective_is_reached_or_missed_as_it_is() -> None:
    flat, spread = [offer(4.0, 1.0), offer(1.0, 1.0)], {"helpful": 3.0, "brief": 0.0}
    assert at_least(flat, {"brief": 1.0}, spread).offer == flat[0]
    assert at_least(flat, {"brief": 2.0}, spread).lacking == {"brief": 1.0}


def test_of_what_is_far_beyond_reach_the_nearest_is_still_told() -> None:
    """From 1e17 ranges away all offers are as far by floating point, and the best of them is still the best."""
    ends = dict.fromkeys(NAMES, None)
    low = Offer({"helpful": 0.0, "brief": 1.0}, "soup", {"helpful": 1.0, "brief": 2.0}, ends)
    high = Offer({"helpful": 1.0, "brief": 0.0}, "soup", {"helpful": 3.0, "brief": 0.0}, ends)
    found = at_least([low, high], {"helpful": 1e18}, SPREAD)
    assert (found.reached, found.offer) == (False, high)
