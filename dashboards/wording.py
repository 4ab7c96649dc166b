"""Numbers and names as people read them."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from moalign.preference import Preference

MISSING = "\N{EN DASH}"


def number(value: float | None, decimals: int | None = None) -> str:
    """`value` with a true minus sign: 3 significant digits, or as many decimals as asked; a dash for None and NaN.

    >>> number(-0.31234), number(12.3, 2), number(1234.5), number(None)
    ('−0.312', '12.30', '1,234', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if decimals is None:
        # Whole above 100: three digits, and never an exponent where people expect a number.
        magnitude = math.floor(math.log10(abs(value))) if value else 0
        decimals = min(max(2 - magnitude, 0), 6)
    text = f"{value:,.{decimals}f}"
    # Rounding may leave "-0.00", which is no number that anyone measured.
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "\N{MINUS SIGN}")


def decimals(errors: Iterable[float], values: Iterable[float] = ()) -> int:
    """Decimals that show two digits of a typical standard error; without errors, three digits of a typical value.

    >>> decimals([0.031, 0.044]), decimals([12.0]), decimals([], [0.5])
    (3, 0, 3)
    """
    sizes = [abs(error) for error in errors if math.isfinite(error) and error != 0]
    digits = 1
    if not sizes:
        sizes, digits = [abs(value) for value in values if math.isfinite(value) and value != 0], 2
    if not sizes:
        return 2
    return min(max(digits - math.floor(math.log10(statistics.median(sizes))), 0), 4)


def span_decimals(values: Sequence[float]) -> int:
    """Decimals that tell the values apart: two digits below the leading one of their span.

    >>> span_decimals([-0.004, 3.9]), span_decimals([0.51, 0.52]), span_decimals([2.5])
    (2, 4, 2)
    """
    span = max(values) - min(values)
    return decimals([], [span] if span else values)


def measured(value: float, error: float | None, places: int | None = None) -> str:
    """A value with its standard error.

    >>> measured(4.8213, 0.031), measured(4.8213, None)
    ('4.821 ± 0.031', '4.82')
    """
    if error is None or not math.isfinite(error):
        return number(value, places)
    places = decimals([error]) if places is None else places
    return f"{number(value, places)} ± {number(error, places)}"


def short(name: str, length: int = 22) -> str:
    """`name` on one line, its middle left out where it is too long: what differs is often at the end.

    >>> short("helpful"), short("reward_model_of_a_very_long_name_v2", 16)
    ('helpful', 'reward_m…name_v2')
    """
    line = " ".join(name.split())
    if len(line) <= length:
        return line
    tail = (length - 1) // 2
    return f"{line[: length - 1 - tail]}…{line[-tail:]}"


def plotly_text(text: str) -> str:
    """`text` such that Plotly, which reads some HTML, shows exactly its characters.

    >>> plotly_text("<b> & co")
    '&lt;b&gt; &amp; co'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def listing(items: Sequence[str]) -> str:
    """The items as a sentence lists them.

    >>> listing(["a"]), listing(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


def preference_text(preference: Preference, objectives: Sequence[str], most: int = 4) -> str:
    """The weights that are not 0, in the order of `objectives`, at most `most` of them.

    >>> preference_text(Preference.of({"brief": 1.0, "helpful": 2.0}), ["helpful", "brief"])
    'helpful 0.67 · brief 0.33'
    """
    weights = preference.weights  # made anew at each look
    counts = [(name, weights.get(name, 0.0)) for name in objectives]
    named = [f"{short(name)} {weight:.2g}" for name, weight in counts if weight > 0]
    more = f" · +{len(named) - most} more" if len(named) > most else ""
    return " · ".join(named[:most]) + more


def row_text(row: Mapping[str, float]) -> str:
    """A mixing row: how much of each adapter.

    >>> row_text({"a1": 0.25, "a2": 0.75, "a3": 0.0})
    '0.25 a1 + 0.75 a2'
    """
    return " + ".join(f"{weight:.2g} {short(adapter, 18)}" for adapter, weight in row.items() if weight)
