"""The weights: a triangle for three objectives, a line for two, bars for more, and where adapters were trained."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from moalign.dashboards.bars import Bar, bars_figure
from moalign.dashboards.marks import FrontInfo, Mark
from moalign.dashboards.plane import CROWD, broken, hover_texts
from moalign.dashboards.shading import Place, Shade, bands, place, triangle
from moalign.dashboards.theme import ACCENT, AXIS, GRID, INK, NEUTRAL, OBJECTIVE_COLOURS, TEMPLATE, blank_figure
from moalign.dashboards.wording import listing, number, plotly_text, short, span_decimals
from moalign.preference import Preference

_STEPS = 50  # of the line between two corners that can be clicked
_TOP = place((1.0, 0.0, 0.0))[1]
_KEY = -0.26  # where the key of the shade lies below the triangle
_SHADE = OBJECTIVE_COLOURS[3]  # that of no objective where there are three


@dataclass(frozen=True)
class SimplexInfo:
    """The weights that adapters were trained at, on the front and dominated, and those that are chosen now.

    `weights` is empty where none are chosen; for more than three objectives no marks are kept. `note` says all of it
    in words, or why there is nothing to draw.
    """

    objectives: tuple[str, ...]
    weights: tuple[float, ...]
    on_front: tuple[Mark, ...]
    dominated: tuple[Mark, ...]
    shade: Shade | None
    note: str
    drawable: bool


def simplex_info(front: FrontInfo, weights: Preference | None = None, shade: Shade | None = None) -> SimplexInfo:
    """Where the points of a front were asked to go, and where `weights` lie among them.

    `shade` colours the triangle of three objectives, and is left out for others. An empty front and one of a single
    objective are no errors: `note` says it. Raises PreferenceError if the weights name another objective.
    """
    names = front.objectives
    now = () if weights is None else tuple(weights.vector(names).tolist())
    if not front.marks:
        why = "No adapter has been measured yet, so there are no weights to choose between."
    elif len(names) < 2:
        why = "With a single objective there is no trade-off: its weight is always 1."
    elif len(names) > 3 and not now:
        why = "No weights are chosen yet."
    else:
        shade = shade if len(names) == 3 else None
        on_front, dominated = (front.on_front, front.dominated) if len(names) <= 3 else ((), ())
        note = _words(names, now, len(front.marks), len(on_front), shade)
        return SimplexInfo(names, now, on_front, dominated, shade, note, True)
    return SimplexInfo(names, now, (), (), None, why, False)


def simplex_figure(info: SimplexInfo) -> go.Figure:
    """A triangle, a line or bars. What can be clicked has customdata [adapter or "", weight, weight, ...]."""
    if not info.drawable:
        return blank_figure(info.note)
    if len(info.objectives) > 3:
        rows = zip(info.objectives, info.weights, strict=True)
        return bars_figure([Bar(short(name, 34), weight, f"{100 * weight:.0f} %") for name, weight in rows])
    figure = go.Figure(layout={"template": TEMPLATE, "height": _height(info)})
    if len(info.objectives) == 3:
        _triangle(figure, info)
    else:
        _line(figure, info)
    return figure


def _height(info: SimplexInfo) -> int:
    if len(info.objectives) == 2:
        return 190
    return 440 if info.shade is None else 500


def _words(names: Sequence[str], now: Sequence[float], count: int, on_front: int, shade: Shade | None) -> str:
    """What a drawing of the weights shows."""
    said = []
    if now:
        said.append("Now: " + listing([f"{short(n)} {100 * w:.0f} %" for n, w in zip(names, now, strict=True)]) + ".")
    if len(names) <= 3:
        policies = "One policy was" if count == 1 else f"{count:,} policies were"
        on = "it is" if on_front == count == 1 else "all are" if on_front == count else f"{on_front:,} of them are"
        said.append(f"{policies} trained at the marked weights; {on} on the front.")
    known = [value for value in shade.values if math.isfinite(value)] if shade else []
    if shade and known:
        places = span_decimals(known)
        low, high = number(min(known), places), number(max(known), places)
        said.append(f"The stronger the colour, the more: {shade.title}, from {low} to {high}.")
    return " ".join(said)


def _triangle(figure: go.Figure, info: SimplexInfo) -> None:
    corners = [place(corner) for corner in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))]
    if info.shade is not None:
        _shade(figure, info.shade)
    # Lines of equal weight for each objective, every quarter.
    quarters = [
        [place(_turned((part, 1 - part, 0.0), turn)), place(_turned((part, 0.0, 1 - part), turn))]
        for part in (0.25, 0.5, 0.75)
        for turn in range(3)
    ]
    for paths, colour, width in ((quarters, GRID, 1), ([[*corners, corners[0]]], AXIS, 1.5)):
        x, y = broken(paths)
        line = {"color": colour, "width": width}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    _targets(figure, info, triangle(), [place(row) for row in triangle()])
    _places(figure, info, place)
    shifts = ((0, 12, "center", "bottom"), (-8, -12, "left", "top"), (8, -12, "right", "top"))
    for i, ((x, y), (xshift, yshift, xanchor, yanchor)) in enumerate(zip(corners, shifts, strict=True)):
        _name(figure, info, i, x=x, y=y, xshift=xshift, yshift=yshift, xanchor=xanchor, yanchor=yanchor)
    figure.update_xaxes(visible=False, range=[-0.06, 1.06])
    figure.update_yaxes(
        visible=False, range=[-0.11 if info.shade is None else _KEY - 0.08, _TOP + 0.11], scaleanchor="x"
    )


def _line(figure: go.Figure, info: SimplexInfo) -> None:
    axis = {"color": AXIS, "width": 1.5}
    figure.add_scatter(x=[0, 1], y=[0, 0], mode="lines", line=axis, hoverinfo="skip", showlegend=False)
    steps = [(1 - i / _STEPS, i / _STEPS) for i in range(_STEPS + 1)]
    _targets(figure, info, steps, [(second, 0.0) for _, second in steps])
    _places(figure, info, lambda weights: (weights[1], 0.0))
    for i, xanchor in enumerate(("left", "right")):
        _name(figure, info, i, x=i, y=0, xshift=(-8, 8)[i], yshift=18, xanchor=xanchor, yanchor="bottom")
    figure.update_xaxes(
        range=[-0.04, 1.04],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
        ticktext=["0 %", "25 %", "50 %", "75 %", "100 %"],
        title_text=f"weight of {plotly_text(short(info.objectives[1]))}",
    )
    figure.update_yaxes(visible=False, range=[-0.6, 1])


def _turned(weights: tuple[float, float, float], turn: int) -> tuple[float, ...]:
    return (*weights[3 - turn :], *weights[: 3 - turn])


def _shade(figure: go.Figure, shade: Shade) -> None:
    """The bands, and below the triangle a key: a stroke for each band between the numbers of its ends."""
    levels = bands(shade)
    marked: dict[float, str] = {}
    for i, band in enumerate(levels):
        left, right = i / len(levels), (i + 1) / len(levels)
        key = ((left, _KEY), (right, _KEY), (right, _KEY + 0.03), (left, _KEY + 0.03))
        x, y = broken([[*polygon, polygon[0]] for polygon in (*band.polygons, key)])
        look = {"mode": "none", "fill": "toself", "fillcolor": _SHADE, "opacity": 0.06 + 0.44 * (i + 1) / len(levels)}
        figure.add_scatter(x=x, y=y, **look, hoverinfo="skip", name=f"{band.low} to {band.high}", showlegend=False)
        marked |= {left: band.low, right: band.high}
    small = {"showarrow": False, "font": {"size": 11, "color": INK}}
    for x, text in marked.items():
        figure.add_annotation(x=x, y=_KEY, yanchor="top", text=text, **small)
    if levels:
        title = plotly_text(shade.title)
        figure.add_annotation(x=0, y=_KEY + 0.03, xanchor="left", yanchor="bottom", text=title, **small)


def _targets(figure: go.Figure, info: SimplexInfo, weights: Iterable[Sequence[float]], places: Sequence[Place]) -> None:
    """Faint dots all over: what is clicked between the marks."""
    rows = list(weights)
    texts = [
        "<br>".join(f"{plotly_text(short(n))} {100 * w:.0f} %" for n, w in zip(info.objectives, row, strict=True))
        for row in rows
    ]
    if info.shade is not None:
        digits = span_decimals(info.shade.values)
        title = plotly_text(info.shade.title)
        pairs = zip(texts, info.shade.values, strict=True)
        texts = [f"{text}<br>{title} {number(value, digits)}" for text, value in pairs]
    figure.add_scatter(
        x=np.array([x for x, _ in places]),
        y=np.array([y for _, y in places]),
        mode="markers",
        marker={"size": 3, "color": NEUTRAL},
        opacity=0.35,
        hovertext=np.array(texts, dtype=object),
        hoverinfo="text",
        customdata=np.array([["", *row] for row in rows], dtype=object),
        name="any weights",
        showlegend=False,
    )


def _places(figure: go.Figure, info: SimplexInfo, at: Callable[[Sequence[float]], Place]) -> None:
    crowded = len(info.on_front) + len(info.dominated) > CROWD
    for name, marks, symbol, colour, size in (
        ("dominated", info.dominated, "x", NEUTRAL, 8),
        ("on the front", info.on_front, "circle", ACCENT, 11),
    ):
        if marks:
            where = np.array([at(mark.asked) for mark in marks])
            figure.add_scatter(
                x=where[:, 0],
                y=where[:, 1],
                mode="markers",
                marker={"symbol": symbol, "size": 5 if crowded else size, "color": colour},
                hovertext=np.array(hover_texts(marks), dtype=object),
                hoverinfo="text",
                customdata=np.array([[mark.adapter, *mark.asked] for mark in marks], dtype=object),
                cliponaxis=False,
                name=name,
                legendrank=2 if marks is info.on_front else 3,
            )
    if info.weights:
        x, y = at(info.weights)
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            marker={"symbol": "circle-cross-open", "size": 24, "color": INK, "line": {"width": 2.5, "color": INK}},
            hoverinfo="skip",
            cliponaxis=False,
            name="chosen now",
            legendrank=1,
        )


def _name(figure: go.Figure, info: SimplexInfo, column: int, **where: Any) -> None:
    """The name of an objective at its corner, with its weight."""
    weight = f" {100 * info.weights[column]:.0f} %" if info.weights else ""
    text = f"<b>{plotly_text(short(info.objectives[column], 16))}</b>{weight}"
    figure.add_annotation(text=text, showarrow=False, font={"size": 13, "color": INK}, **where)
