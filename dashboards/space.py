"""Draws a front of three objectives in space."""

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from moalign.dashboards.marks import FrontInfo, Mark, Values
from moalign.dashboards.plane import broken, hover_texts
from moalign.dashboards.theme import ACCENT, INK, NEUTRAL
from moalign.dashboards.wording import plotly_text, short


def draw_space(figure: go.Figure, info: FrontInfo) -> None:
    """Add the front to the scene of `figure`: the marks and dashes of the plane, intervals along all three axes."""
    for trace in (
        *_dots(info.exact),
        *_marks(info.dominated, "dominated", "x", 3, NEUTRAL, opacity=0.5),
        *_blends(info),
        *_marks(info.on_front, "on the front", "circle", 6, ACCENT),
        *_marks([info.base] if info.base else [], "base model", "diamond", 6, NEUTRAL),
    ):
        figure.add_trace(trace)
    axes = {
        f"{axis}axis": {"title": {"text": plotly_text(short(name, 16))}}
        for axis, name in zip("xyz", info.objectives, strict=True)
    }
    # Seen from the far corner of the cube: all three objectives grow toward the reader.
    figure.update_layout(scene={**axes, "camera": {"eye": {"x": 1.55, "y": 1.55, "z": 0.9}}, "aspectmode": "cube"})


def _marks(
    marks: Sequence[Mark], name: str, symbol: str, size: int, colour: str, opacity: float = 1.0
) -> Iterable[go.Scatter3d]:
    if not marks:
        return
    x, y, z = zip(*(mark.values for mark in marks), strict=True)
    yield go.Scatter3d(
        x=x,
        y=y,
        z=z,
        **{f"error_{axis}": _errors(marks, i, colour) for i, axis in enumerate("xyz")},
        mode="markers+text" if any(mark.label for mark in marks) else "markers",
        text=[plotly_text(mark.label) for mark in marks],
        textposition="top center",
        textfont={"color": INK, "size": 12},
        marker={"symbol": symbol, "size": size, "color": colour},
        opacity=opacity,
        hovertext=hover_texts(marks),
        hoverinfo="text",
        customdata=[mark.adapter for mark in marks],
        name=name,
    )


def _errors(marks: Sequence[Mark], axis: int, colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "array": [max(mark.high[axis] - mark.values[axis], 0.0) for mark in marks],
        "arrayminus": [max(mark.values[axis] - mark.low[axis], 0.0) for mark in marks],
        "color": colour,
        "thickness": 1,
        "width": 0,
    }


def _blends(info: FrontInfo) -> Iterable[go.Scatter3d]:
    name = "blends of neighbours"
    if info.paths:
        x, y, z = broken(info.paths)
        line = {"color": ACCENT, "width": 2, "dash": "dash"}
        yield go.Scatter3d(
            x=x, y=y, z=z, mode="lines", line=line, hoverinfo="skip", legendgroup=name, showlegend=False
        )
    if info.blends:
        x, y, z = zip(*(mark.values for mark in info.blends), strict=True)
        yield go.Scatter3d(
            x=x,
            y=y,
            z=z,
            mode="markers",
            marker={"symbol": "circle-open", "size": 4, "color": ACCENT},
            hovertext=hover_texts(info.blends),
            hoverinfo="text",
            name=name,
            legendgroup=name,
        )


def _dots(places: Sequence[Values]) -> Iterable[go.Scatter3d]:
    if not places:
        return
    x, y, z = zip(*places, strict=True)
    yield go.Scatter3d(
        x=x,
        y=y,
        z=z,
        mode="markers",
        marker={"symbol": "circle-open", "size": 3, "color": NEUTRAL},
        opacity=0.6,
        hoverinfo="skip",
        name="exact front",
    )
