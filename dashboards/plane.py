"""Draws two objectives of a front into a pair of axes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from moalign.dashboards.marks import FrontInfo, Mark, Values
from moalign.dashboards.theme import ACCENT, INK, NEUTRAL
from moalign.dashboards.wording import plotly_text, short

CROWD = 200  # points whose intervals can still be told apart: more are drawn small and without
SMALL = 40  # in a small panel; and so many can have names beside them


def draw_plane(figure: go.Figure, info: FrontInfo, x: int, y: int, cell: tuple[int, int] | None = None) -> None:
    """Add objectives `x` and `y` of the front to `figure`, in subplot `cell` (row, column), or in its only axes.

    From the back to the front: the band of the front, the exact front, dominated points, blends, the front, the base
    model. A projection of more than two objectives has no order that a line could follow and no rim, so there lines
    and the exact front are left out.
    """
    place: dict[str, Any] = {} if cell is None else {"row": cell[0], "col": cell[1]}
    if len(info.objectives) > 2:
        info = replace(info, exact=(), paths=())
    crowded = len(info.marks) > (CROWD if cell is None else SMALL)
    for trace in (
        *_band(info),
        *_exact(info.exact, x, y),
        *_marks(info.dominated, x, y, "dominated", _style("x", 7, NEUTRAL), 0.5, crowded),
        *_blends(info, x, y),
        *(_line(info.on_front, x, y) if len(info.objectives) == 2 else ()),
        *_marks(info.on_front, x, y, "on the front", _style("circle", 10, ACCENT), crowded=crowded),
        *_marks([info.base] if info.base else [], x, y, "base model", _style("diamond", 11, NEUTRAL)),
    ):
        trace.update(legendrank=_RANKS.index(trace.legendgroup), showlegend=cell in (None, (1, 1)) and trace.showlegend)
        figure.add_trace(trace, **place)
    title = [plotly_text(short(name)) for name in info.objectives]
    # More room at the left and below, where the labels stand, and more yet in a small panel.
    left = 0.14 if len(info.objectives) == 2 else 0.26
    figure.update_xaxes(title_text=title[x], range=_range(info, x, left, 0.07), **place)
    figure.update_yaxes(title_text=title[y], range=_range(info, y, 0.1, 0.09), **place)


_RANKS = ("on the front", "band of the front", "blends of neighbours", "exact front", "dominated", "base model")


def hover_texts(marks: Iterable[Mark]) -> list[str]:
    """What is shown over each mark, its first line bold."""
    lines = ([plotly_text(line) for line in mark.hover] for mark in marks)
    return [f"<b>{first}</b><br>" + "<br>".join(rest) for first, *rest in lines]


def _range(info: FrontInfo, axis: int, before: float, after: float) -> list[float]:
    marks = [*info.marks, *info.blends, *([info.base] if info.base else [])]
    places = [end[axis] for mark in marks for end in (mark.values, mark.low, mark.high)]
    places += [row[axis] for row in (*info.exact, *info.band)]
    places = [place for place in places if math.isfinite(place)]
    span = max(places) - min(places) or 1.0
    return [min(places) - before * span, max(places) + after * span]


def _style(symbol: str, size: int, colour: str) -> dict[str, Any]:
    return {"symbol": symbol, "size": size, "color": colour}


def _marks(
    marks: Sequence[Mark],
    x: int,
    y: int,
    name: str,
    marker: dict[str, Any],
    opacity: float = 1.0,
    crowded: bool = False,
) -> Iterable[go.Scatter]:
    if not marks:
        return
    # In a projection, what is extreme in an objective that it does not show is nothing to name.
    labels = [
        plotly_text(mark.label)
        if mark.label == "base" or (not crowded and max(mark.asked[x], mark.asked[y]) > 0.5)
        else ""
        for mark in marks
    ]
    yield go.Scatter(
        x=column(marks, x),
        y=column(marks, y),
        error_x=None if crowded else errors(marks, x, marker["color"]),
        error_y=None if crowded else errors(marks, y, marker["color"]),
        mode="markers+text" if any(labels) else "markers",
        text=np.array(labels, dtype=object) if any(labels) else None,
        textposition="bottom left",
        textfont={"color": INK, "size": 12},
        marker={**marker, "size": 4} if crowded else marker,
        opacity=opacity,
        hovertext=np.array(hover_texts(marks), dtype=object),
        hoverinfo="text",
        customdata=np.array([mark.adapter for mark in marks], dtype=object),
        cliponaxis=False,
        name=name,
        legendgroup=name,
        showlegend=True,
    )


def column(marks: Sequence[Mark], axis: int) -> Float[np.ndarray, " n"]:
    """One objective of all marks, as an array: Plotly looks at each item of a list, which takes ten times as long."""
    return np.array([mark.values[axis] for mark in marks], dtype=float)


def errors(marks: Sequence[Mark], axis: int, colour: object) -> dict[str, object]:
    """Bars from the low to the high end of one objective."""
    values = column(marks, axis)
    return {
        "type": "data",
        "array": np.maximum(np.array([mark.high[axis] for mark in marks]) - values, 0.0),
        "arrayminus": np.maximum(values - np.array([mark.low[axis] for mark in marks]), 0.0),
        "color": colour,
        "thickness": 1,
        "width": 0,
    }


def _line(marks: Sequence[Mark], x: int, y: int) -> Iterable[go.Scatter]:
    if len(marks) < 2:
        return
    places = sorted((mark.values[x], -mark.values[y]) for mark in marks)
    yield go.Scatter(
        x=[place[0] for place in places],
        y=[-place[1] for place in places],
        mode="lines",
        line={"color": ACCENT, "width": 1},
        opacity=0.6,
        hoverinfo="skip",
        legendgroup="on the front",
        showlegend=False,
    )


def _blends(info: FrontInfo, x: int, y: int) -> Iterable[go.Scatter]:
    name = "blends of neighbours"
    if info.paths:
        xs, ys = broken([[(place[x], place[y]) for place in path] for path in info.paths])
        line = {"color": ACCENT, "width": 1.5, "dash": "dash"}
        yield go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", legendgroup=name, showlegend=False)
    if info.blends:
        yield go.Scatter(
            x=[mark.values[x] for mark in info.blends],
            y=[mark.values[y] for mark in info.blends],
            mode="markers",
            marker={"symbol": "circle-open", "size": 6, "color": ACCENT, "line": {"width": 1.5}},
            hovertext=hover_texts(info.blends),
            hoverinfo="text",
            name=name,
            legendgroup=name,
            showlegend=True,
        )


def _band(info: FrontInfo) -> Iterable[go.Scatter]:
    if not info.band:
        return
    yield go.Scatter(
        x=[place[0] for place in info.band],
        y=[place[1] for place in info.band],
        mode="none",
        fill="toself",
        fillcolor=ACCENT,
        opacity=0.16,
        hoverinfo="skip",
        name="band of the front",
        legendgroup="band of the front",
        showlegend=True,
    )


def _exact(places: Sequence[Values], x: int, y: int) -> Iterable[go.Scatter]:
    if not places:
        return
    yield go.Scatter(
        x=[place[x] for place in places],
        y=[place[y] for place in places],
        mode="lines" if len(places) > 1 else "markers",
        line={"color": NEUTRAL, "width": 2, "dash": "dot"},
        marker={"symbol": "circle-open", "size": 4, "color": NEUTRAL},
        hovertemplate="exact front<br>%{x:.3g}, %{y:.3g}<extra></extra>",
        name="exact front",
        legendgroup="exact front",
        showlegend=True,
    )


def broken(paths: Sequence[Sequence[Sequence[float]]]) -> list[list[float | None]]:
    """The coordinates of several polylines as one, with a gap after each.

    >>> broken([[(1, 2), (3, 4)], [(5, 6), (7, 8)]])
    [[1, 3, None, 5, 7, None], [2, 4, None, 6, 8, None]]
    """
    joined = [place for path in paths for place in (*path, (None,) * len(path[0]))]
    return [list(column) for column in zip(*joined, strict=True)]
