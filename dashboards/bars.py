"""Bars with their names above them, which need no room at the side: they read the same on a phone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from moalign.dashboards.theme import ACCENT, GRID, INK, TEMPLATE
from moalign.dashboards.wording import plotly_text

_LINE = 44  # pixels for a bar and its name
_THICK = 0.22  # of a line


@dataclass(frozen=True)
class Bar:
    """A share between 0 and 1, what is said about it, and what it is called."""

    name: str
    share: float
    said: str


def bars_figure(bars: Sequence[Bar]) -> go.Figure:
    """The bars below each other, in their order."""
    shapes, notes = _frames(bars)
    layout = {"template": TEMPLATE, "height": 16 + _LINE * len(bars), "shapes": shapes, "annotations": notes}
    figure = go.Figure([_trace(bars)], layout)
    return figure.update_xaxes(visible=False, range=[0, 1]).update_yaxes(visible=False, range=[len(bars) - 0.4, -0.6])


def _trace(bars: Sequence[Bar]) -> dict[str, Any]:
    """The bars as a trace, one for each unit of y; x goes from 0 to 1.

    What is drawn is put together as plain dicts, since a figure that is added to piece by piece is slow.
    """
    return {
        "type": "bar",
        "orientation": "h",
        "x": [bar.share for bar in bars],
        "y": [i + _THICK / 2 for i in range(len(bars))],
        "width": _THICK,
        "marker": {"color": ACCENT, "line": {"width": 0}},
        "hovertext": [f"{plotly_text(bar.name)} {plotly_text(bar.said)}" for bar in bars],
        "hoverinfo": "text",
        "showlegend": False,
    }


def _frames(bars: Sequence[Bar]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The tracks of the bars as shapes, and their names and what is said of them as annotations."""
    shapes = [_track(0.0, 1.0, float(i)) for i in range(len(bars))]
    sides = [(i, text, side) for i, bar in enumerate(bars) for text, side in ((bar.name, "left"), (bar.said, "right"))]
    return shapes, [_written(plotly_text(text), float(i), side) for i, text, side in sides]


def _track(left: float, right: float, y: float) -> dict[str, Any]:
    """A faint stroke below the line at `y`, as long as a bar could be."""
    return {
        "type": "rect",
        "x0": left,
        "x1": right,
        "y0": y,
        "y1": y + _THICK,
        "fillcolor": GRID,
        "line": {"width": 0},
        "layer": "below",
    }


def _written(text: str, y: float, side: str) -> dict[str, Any]:
    """Text, as Plotly reads it, that stands on the line at `y`, at the left or the right end."""
    return {
        "text": text,
        "x": 0 if side == "left" else 1,
        "y": y,
        "xanchor": side,
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 13, "color": INK},
    }
