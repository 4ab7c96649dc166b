"""Parallel coordinates: all objectives of more than two at once."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from moalign.dashboards.marks import FrontInfo, Mark
from moalign.dashboards.plane import hover_texts
from moalign.dashboards.theme import (
    INK,
    NEUTRAL,
    TEMPLATE,
    blank_figure,
    objective_colour,
    objective_dash,
    objective_symbol,
)
from moalign.dashboards.wording import number, plotly_text, short


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
    kinds = [*range(len(info.objectives)), None]
    for favours in kinds:
        for on_front in (False, True):
            chosen = [t for t in info.threads if t.favours == favours and t.on_front == on_front]
            if chosen:
                figure.add_trace(_trace(chosen, favours, on_front, info.objectives))
    places = list(range(len(info.objectives)))
    names = [plotly_text(short(name, 16)) for name in info.objectives]
    figure.update_xaxes(
        tickvals=places, ticktext=names, range=[-0.3, places[-1] + 0.3], gridcolor=NEUTRAL, griddash="solid"
    )
    figure.update_yaxes(visible=False, range=[-0.1, 1.1])
    for place, low, high in zip(places, info.low, info.high, strict=True):
        ends = ((1.0, high, "bottom"), (0.0, low, "top")) if high > low else ((0.5, low, "bottom"),)
        for height, value, anchor in ends:
            _end(figure, place, height, value, anchor)
    return figure


def _favourite(asked: tuple[float, ...]) -> int | None:
    most = max(asked)
    near = [i for i, weight in enumerate(asked) if weight > most - 1e-9]
    return near[0] if len(near) == 1 else None


def _trace(threads: list[Thread], favours: int | None, on_front: bool, objectives: tuple[str, ...]) -> go.Scatter:
    width = len(objectives)
    name = "no favourite" if favours is None else f"mostly {short(objectives[favours], 16)}"
    sizes = [size for thread in threads for size in (*(3 + 11 * w**0.5 for w in thread.mark.asked), 0)]
    texts = [text for text in hover_texts(t.mark for t in threads) for _ in range(width + 1)]
    return go.Scatter(
        x=[x for _ in threads for x in (*range(width), None)],
        y=[y for thread in threads for y in (*thread.heights, None)],
        mode="lines+markers",
        line={
            "color": NEUTRAL if favours is None else objective_colour(favours),
            "dash": "longdash" if favours is None else objective_dash(favours),
            "width": 1.5,
        },
        marker={
            "size": sizes,
            "symbol": "circle-open" if favours is None else objective_symbol(favours),
            "line": {"width": 0 if favours is not None else 1.5},
        },
        opacity=0.9 if on_front else 0.25,
        hovertext=texts,
        hoverinfo="text",
        customdata=[thread.mark.adapter for thread in threads for _ in range(width + 1)],
        name=plotly_text(name if on_front else f"{name}, dominated"),
    )


def _end(figure: go.Figure, place: int, height: float, value: float, anchor: str) -> None:
    figure.add_annotation(
        x=place,
        y=height,
        text=number(value),
        showarrow=False,
        yanchor=anchor,
        yshift=8 if anchor == "bottom" else -8,
        font={"size": 12, "color": INK},
    )
