"""Parallel coordinates: all objectives of more than two at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from moalign.dashboards.marks import FrontInfo, Mark
from moalign.dashboards.plane import hover_texts
from moalign.dashboards.theme import (
    AXIS,
    INK,
    NEUTRAL,
    TEMPLATE,
    blank_figure,
    objective_colour,
    objective_dash,
    objective_symbol,
)
from moalign.dashboards.wording import number, plotly_text, short, span_decimals


@dataclass(frozen=True)
class Thread:
    """One point as a line across all axes; heights are 0 at the lowest value of an objective and 1 at the highest.

    `favours` is the column of the objective that was asked for most, None where several share the highest weight.
    """

    mark: Mark
    heights: tuple[float, ...]
    favours: int | None
    on_front: bool


@dataclass(frozen=True)
class ParallelInfo:
    """The axes with their ends, and one thread for each point."""

    objectives: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    threads: tuple[Thread, ...]
    note: str


def parallel_info(front: FrontInfo) -> ParallelInfo:
    """Scale every objective to its own range over the points; a flat objective is drawn at half height.

    Two objectives are better seen in the plane, so for fewer than three, and for an empty set, there are no threads
    and `note` says why.
    """
    count = len(front.objectives)
    if not front.marks or count < 3:
        note = front.note or "Two objectives are better seen in the plane above."
        return ParallelInfo(front.objectives, (), (), (), note)
    values = np.array([mark.values for mark in front.marks])
    low, high = values.min(axis=0), values.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    heights = np.where(high > low, (values - low) / span, 0.5)
    threads = tuple(
        Thread(mark, tuple(row), _favourite(mark.asked), i < len(front.on_front))
        for i, (mark, row) in enumerate(zip(front.marks, heights.tolist(), strict=True))
    )
    return ParallelInfo(front.objectives, tuple(low.tolist()), tuple(high.tolist()), threads, "")


def parallel_figure(info: ParallelInfo) -> go.Figure:
    """Lines across all objectives: colour, dash and symbol tell what was asked for most, and dots grow with the weight.

    Points of one kind share a trace, so that thousands remain quick to draw.
    """
    if not info.threads:
        return blank_figure(info.note)
    figure = go.Figure(layout={"template": TEMPLATE, "margin": {"t": 34}})
    for favours in (None, *range(len(info.objectives))):
        threads = [thread for thread in info.threads if thread.favours == favours]
        look = _look(favours)
        if threads:
            figure.add_trace(_legend_entry(favours, look, info.objectives))
        for on_front in (False, True):
            chosen = [thread for thread in threads if thread.on_front == on_front]
            if chosen:
                figure.add_trace(_lines(chosen, look, 0.9 if on_front else 0.25))
    places = list(range(len(info.objectives)))
    names = [plotly_text(short(name, 16)) for name in info.objectives]
    figure.update_xaxes(tickvals=places, ticktext=names, range=[-0.35, places[-1] + 0.35], showgrid=False)
    figure.update_yaxes(visible=False, range=[-0.1, 1.1])
    for place, low, high in zip(places, info.low, info.high, strict=True):
        figure.add_shape(x0=place, x1=place, y0=0, y1=1, line={"color": AXIS, "width": 1}, layer="below")
        ends = ((1.0, high, "bottom"), (0.0, low, "top")) if high > low else ((0.5, low, "bottom"),)
        for height, value, anchor in ends:
            _end(figure, place, height, number(value, span_decimals((low, high))), anchor)
    return figure


def _favourite(asked: tuple[float, ...]) -> int | None:
    most = max(asked)
    near = [i for i, weight in enumerate(asked) if weight > most - 1e-9]
    return near[0] if len(near) == 1 else None


def _look(favours: int | None) -> dict[str, Any]:
    if favours is None:
        return {
            "line": {"color": NEUTRAL, "dash": "longdash", "width": 1.5},
            "marker": {"symbol": "circle-open", "line": {"width": 1.5}},
            "legendgroup": "none",
        }
    return {
        "line": {"color": objective_colour(favours), "dash": objective_dash(favours), "width": 1.5},
        "marker": {"symbol": objective_symbol(favours)},
        "legendgroup": str(favours),
    }


def _lines(threads: list[Thread], look: dict[str, Any], opacity: float) -> go.Scatter:
    width = len(threads[0].heights)
    # Each thread is followed by a gap, so every list has one entry more per thread than there are axes.
    sizes = [size for thread in threads for size in (*(3 + 11 * weight**0.5 for weight in thread.mark.asked), 0)]
    trace = go.Scatter(
        **look,
        x=np.tile([*range(width), np.nan], len(threads)),
        y=np.array([y for thread in threads for y in (*thread.heights, np.nan)]),
        mode="lines+markers",
        opacity=opacity,
        hovertext=np.repeat(np.array(hover_texts(t.mark for t in threads), dtype=object), width + 1),
        hoverinfo="text",
        customdata=np.repeat(np.array([thread.mark.adapter for thread in threads], dtype=object), width + 1),
        showlegend=False,
    )
    return trace.update(marker_size=np.array(sizes))


def _legend_entry(favours: int | None, look: dict[str, Any], objectives: tuple[str, ...]) -> go.Scatter:
    # The sizes of the real marks mean something, so the legend has marks of its own, all of one size.
    name = "no favourite" if favours is None else f"mostly {plotly_text(short(objectives[favours], 16))}"
    entry = go.Scatter(**look, x=[None], y=[None], mode="lines+markers", name=name)
    return entry.update(marker_size=8)


def _end(figure: go.Figure, place: int, height: float, text: str, anchor: str) -> None:
    figure.add_annotation(
        x=place,
        y=height,
        text=text,
        showarrow=False,
        yanchor=anchor,
        yshift=8 if anchor == "bottom" else -8,
        font={"size": 12, "color": INK},
    )
