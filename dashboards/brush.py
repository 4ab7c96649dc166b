"""More than three objectives at once: parallel coordinates that brush, and a matrix of all pairs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from moalign.dashboards.charts import wrapped
from moalign.dashboards.marks import FrontInfo, Values
from moalign.dashboards.theme import (
    FONT,
    INK,
    NEUTRAL,
    TEMPLATE,
    blank_figure,
    objective_colour,
    objective_symbol,
)
from moalign.dashboards.wording import plotly_text, short
from moalign.frontiers.indicators import kendall_tau

Range = tuple[float, float]

_NUMBERS = {"tickformat": ".2~g"}
_SAMPLE = 300  # points by which conflict is judged: it takes all pairs of them


@dataclass(frozen=True)
class BrushInfo:
    """All points, those on the front first, a row of values each, in the objectives' own units.

    `asked` says what each was asked for; `favours` is the column of the objective that was asked for most, -1 where
    several share the highest weight; `conflict` are the columns in the order of how much they conflict with others:
    where not all can be shown, the first ones. `note` stands in for the drawing.
    """

    objectives: tuple[str, ...]
    adapters: tuple[str, ...]
    values: tuple[Values, ...]
    favours: tuple[int, ...]
    on_front: tuple[bool, ...]
    asked: tuple[str, ...]
    conflict: tuple[int, ...]
    note: str


def brush_info(front: FrontInfo) -> BrushInfo:
    """Take a front apart into columns; `note` says why where there is nothing to brush.

    Two objectives are better seen in the plane, so for fewer than three, and for an empty set, there are no points.
    The conflict of a column is minus the sum of Kendall's tau with all others, over an even share of at most 300
    points; a flat column has none.
    """
    count = len(front.objectives)
    if not front.marks or count < 3:
        note = front.note if not front.marks or count == 1 else "Two objectives are better seen in the plane."
        return BrushInfo(front.objectives, (), (), (), (), (), tuple(range(count)), note)
    values = np.array([mark.values for mark in front.marks])
    return BrushInfo(
        front.objectives,
        tuple(mark.adapter for mark in front.marks),
        tuple(mark.values for mark in front.marks),
        tuple(_favourite(mark.asked) for mark in front.marks),
        tuple(i < len(front.on_front) for i in range(len(front.marks))),
        tuple(mark.hover[0] for mark in front.marks),
        _by_conflict(values[:: -(-len(values) // _SAMPLE)]),
        "",
    )


def axes(info: BrushInfo, columns: Sequence[int] | None = None) -> tuple[int, ...]:
    """What the axes of `parcoords_figure` are, from left to right.

    The columns of objectives, all if None; then m, for what was asked for most; then, where not all points are on the
    front, m + 1 for whether one is.
    """
    count = len(info.objectives)
    shown = range(count) if columns is None else columns
    return (*shown, count) if all(info.on_front) else (*shown, count, count + 1)


def brushed(info: BrushInfo, ranges: Mapping[int, Sequence[Range]]) -> tuple[str, ...]:
    """The adapters that lie inside every brush: an axis, as in `axes`, to its ranges, any of which is enough.

    Both ends are included. No brushes: all adapters.

    >>> values, two = ((1.0, 2.0, 3.0), (2.0, 1.0, 3.0)), (True, True)
    >>> info = BrushInfo(("a", "b", "c"), ("x", "y"), values, (1, 0), two, ("", ""), (0, 1, 2), "")
    >>> brushed(info, {0: [(0.0, 1.5)]}), brushed(info, {3: [(-0.5, 0.5)]})
    (('x',), ('y',))
    """
    rows = zip(info.values, info.favours, info.on_front, strict=True)
    return tuple(
        adapter
        for adapter, (values, *rest) in zip(info.adapters, rows, strict=True)
        if all(
            any(low <= (*values, *rest)[axis] <= high for low, high in each) for axis, each in ranges.items() if each
        )
    )


def parcoords_figure(
    info: BrushInfo, columns: Sequence[int] | None = None, ranges: Mapping[int, Sequence[Range]] | None = None
) -> go.Figure:
    """Parallel coordinates: drag along an axis to keep what lies there, drag its title to move it.

    Each objective in its own units, then what was asked for most, as the colours are, and whether a point is on the
    front where some are not: the axes are `axes(info, columns)`. `ranges` are brushes that it begins with.
    """
    if info.note:
        return blank_figure(wrapped(info.note))
    count = len(info.objectives)
    font = {"family": FONT, "size": 12, "color": INK}
    figure = go.Figure(layout={"template": TEMPLATE, "height": 420, "margin": {"l": 48, "r": 64, "t": 64, "b": 24}})
    return figure.add_parcoords(
        dimensions=[
            _brushed_axis(_dimension(info, axis), (ranges or {}).get(axis, ())) for axis in axes(info, columns)
        ],
        line={
            "color": np.array(info.favours),
            "colorscale": _scale(count),
            "cmin": -1.5,
            "cmax": count - 0.5,
            "showscale": False,
        },
        unselected={"line": {"color": NEUTRAL, "opacity": 0.08}},
        labelfont=font,
        tickfont=font,
        rangefont={**font, "size": 10},
        labelangle=-20,
        customdata=np.array(info.adapters, dtype=object),
    )


def matrix_figure(
    info: BrushInfo, columns: Sequence[int] | None = None, inside: Collection[str] | None = None
) -> go.Figure:
    """Each objective against each other: what is picked in one panel is picked in all.

    Colour and symbol say what was asked for most; what is dominated is small and faint. `columns` are those to show,
    all if None: a phone has room for the first four of `conflict`. Those that are not `inside`, where it is given, are
    all but gone. `customdata` are adapters.
    """
    if info.note:
        return blank_figure(wrapped(info.note))
    shown = list(range(len(info.objectives))) if columns is None else list(columns)
    layout = {"height": 130 + 96 * (len(shown) - 1), "dragmode": "select", "legend": {"itemsizing": "constant"}}
    values, kinds, on_front = np.array(info.values), np.array(info.favours), np.array(info.on_front)
    traces = []
    for favours in sorted(set(info.favours), key=lambda column: column % len(info.objectives)):
        for bright in (False, True):
            rows = np.flatnonzero((kinds == favours) & (on_front == bright))
            if len(rows):
                picked = {} if inside is None else {"selectedpoints": _places(info, rows.tolist(), inside)}
                traces.append({**_panels(info, values, rows.tolist(), shown, favours, bright), **picked})
    style = {"nticks": 3, "title": {"font": {"size": 11}}, "tickfont": {"size": 10}}
    sides = {f"{axis}{i}": style for i in range(1, len(shown) + 1) for axis in ("xaxis", "yaxis")}
    return go.Figure(traces, {"template": TEMPLATE, **layout, **sides})


def _places(info: BrushInfo, rows: Sequence[int], inside: Collection[str]) -> list[int]:
    return [place for place, row in enumerate(rows) if info.adapters[row] in inside]


def _panels(
    info: BrushInfo, values: np.ndarray, rows: list[int], shown: list[int], favours: int, bright: bool
) -> dict[str, Any]:
    """A trace as a dict: Plotly checks, and copies, what is added to a figure piece by piece several times."""
    large = 6 if len(values) <= 200 else 4
    return {
        "type": "splom",
        "dimensions": [
            {"label": plotly_text(short(info.objectives[column], 12)), "values": values[rows, column]}
            for column in shown
        ],
        "marker": {
            "color": NEUTRAL if favours < 0 else objective_colour(favours),
            "symbol": "circle-open" if favours < 0 else objective_symbol(favours),
            "size": large if bright else large - 2,
            "opacity": 0.85 if bright else 0.3,
            "line": {"width": 0},
        },
        "unselected": {"marker": {"opacity": 0.05}},
        "diagonal": {"visible": False},
        "showupperhalf": False,
        "hovertext": np.array([plotly_text(info.asked[row]) for row in rows], dtype=object),
        "hovertemplate": "%{hovertext}<br>%{x:.3g}, %{y:.3g}<extra></extra>",
        "customdata": np.array([info.adapters[row] for row in rows], dtype=object),
        "name": "no favourite" if favours < 0 else f"mostly {plotly_text(short(info.objectives[favours], 16))}",
        "legendgroup": str(favours),
        "showlegend": bright,
    }


def _dimension(info: BrushInfo, axis: int) -> dict[str, Any]:
    count = len(info.objectives)
    if axis < count:
        values = np.array([row[axis] for row in info.values])
        low, high = float(values.min()), float(values.max())
        room = 0.0 if high > low else 1.0  # an axis of no length cannot be drawn
        label = plotly_text(short(info.objectives[axis], 14))
        ticks = np.linspace(low, high, 5).tolist() if high > low else [low]  # more numbers would hide the lines
        return {"label": label, "values": values, "range": [low - room, high + room], "tickvals": ticks, **_NUMBERS}
    if axis > count:
        ticks = {"tickvals": [0, 1], "ticktext": ["no", "yes"], "range": [-0.2, 1.2]}
        return {"label": "on the front", "values": np.array(info.on_front, dtype=float), **ticks}
    there = sorted(set(info.favours))
    return {
        "label": "asked most for",
        "values": np.array(info.favours, dtype=float),
        "tickvals": there,
        # Plotly shows the texts of ticks as they are, and reads HTML in labels alone.
        "ticktext": ["no one" if column < 0 else short(info.objectives[column], 12) for column in there],
        "range": [-1.2, count - 0.8],
    }


def _brushed_axis(axis: dict[str, Any], ranges: Sequence[Range]) -> dict[str, Any]:
    """An axis with brushes on it, as far as they lie on it: one whole range, or several."""
    bottom, top = axis["range"]
    found = [[min(max(end, bottom), top) for end in ends] for ends in ranges]
    return {**axis, "constraintrange": found[0] if len(found) == 1 else found} if found else axis


def _scale(count: int) -> list[tuple[float, str]]:
    """A colour for each column and one for none before them, without any between."""
    colours = [NEUTRAL, *(objective_colour(column) for column in range(count))]
    return [(place / (count + 1), colour) for i, colour in enumerate(colours) for place in (i, i + 1)]


def _favourite(asked: Values) -> int:
    most = [column for column, weight in enumerate(asked) if weight > max(asked) - 1e-9]
    return most[0] if len(most) == 1 else -1


def _by_conflict(values: Float[np.ndarray, "n m"]) -> tuple[int, ...]:
    pairs = list(combinations(range(values.shape[1]), 2))
    firsts, seconds = ([pair[side] for pair in pairs] for side in (0, 1))
    totals = np.zeros(values.shape[1])
    for (i, j), tau in zip(pairs, np.nan_to_num(kendall_tau(values[:, firsts], values[:, seconds])), strict=True):
        totals[[i, j]] -= tau
    return tuple(np.argsort(-totals, kind="stable").tolist())
