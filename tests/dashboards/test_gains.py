"""The rows of the table against the base."""

import pytest

from moalign.dashboards.gains import gains_info
from moalign.dashboards.records import Gain
from moalign.preference import Preference


@pytest.mark.parametrize(
    ("difference", "interval", "shown", "verdict"),
    [
        (2.0, (1.5, 2.5), "+2.00 (1.50 to 2.50)", "more"),
        (-2.0, (-2.5, -1.5), "\N{MINUS SIGN}2.00 (\N{MINUS SIGN}2.50 to \N{MINUS SIGN}1.50)", "less"),
        (0.1, (-0.1, 0.3), "+0.100 (\N{MINUS SIGN}0.100 to 0.300)", "not told apart"),
    ],
)
def test_the_verdict_is_whether_the_interval_leaves_out_zero(
    difference: float, interval: tuple[float, float], shown: str, verdict: str
) -> None:
    (row,) = gains_info([Gain("brief", Preference.of({"brief": 1.0}), -3.0, -1.0, difference, interval)], ["brief"])
    assert (row.difference, row.verdict) == (shown, verdict)
    assert (row.objective, row.base, row.value) == ("brief", "\N{MINUS SIGN}3.00", "\N{MINUS SIGN}1.00")
