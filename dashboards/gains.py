"""Against the base: what the adapter asked for most of an objective has gained of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from moalign.dashboards.records import Gain
from moalign.dashboards.wording import number, preference_text, short


@dataclass(frozen=True)
class GainRow:
    """One objective, as shown; `verdict` says on which side of 0 the interval of the difference lies."""

    objective: str
    asked: str
    base: str
    value: str
    difference: str
    verdict: str


def gains_info(gains: Sequence[Gain], objectives: Sequence[str]) -> tuple[GainRow, ...]:
    """One row per objective, in the order given.

    >>> from moalign.preference import Preference
    >>> row = gains_info([Gain("brief", Preference.of({"brief": 1.0}), -3.0, -1.0, 2.0, (1.5, 2.5))], ["brief"])[0]
    >>> row.difference, row.verdict
    ('+2.00 (1.50 to 2.50)', 'more')
    """
    return tuple(_row(gain, objectives) for gain in gains)


def _row(gain: Gain, objectives: Sequence[str]) -> GainRow:
    low, high = gain.interval
    sign = "+" if gain.difference > 0 else ""
    return GainRow(
        short(gain.objective),
        preference_text(gain.preference, objectives),
        number(gain.base),
        number(gain.value),
        f"{sign}{number(gain.difference)} ({number(low)} to {number(high)})",
        "more" if low > 0 else "less" if high < 0 else "not told apart",
    )
