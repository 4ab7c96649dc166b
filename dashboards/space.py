"""Draws a front of three objectives in space."""

from collections.abc import Iterable, Sequence

import numpy as np
import plotly.graph_objects as go
from scipy.spatial import Delaunay

from moalign.dashboards.marks import FrontInfo, Mark, Values
from moalign.dashboards.plane import CROWD, broken, column, errors, hover_texts
from moalign.dashboards.theme import ACCENT, INK, NEUTRAL
from moalign.dashboards.wording import plotly_text, short


def draw_space(figure: go.Figure, info: FrontInfo) -> None:
    """Add the front to the scene of `figure`: the marks and dashes of the plane, intervals along all three axes."""
    crowded = len(info.marks) > CROWD
    for trace in (
        *_exact(info.exact),
        *_marks(info.dominated, "dominated", "x", 3, NEUTRAL, 0.5, crowded),
        *_blends(info),
        *_marks(info.on_front, "on the front", "circle", 3 if crowded else 6, ACCENT, crowded=crowded),
        *_marks([info.base] if info.base else [], "base model", "diamond", 6, NEUTRAL),
    ):
        figure.add_trace(trace)
    # Where the exact front is known, its net gives the depth that a grid would, and the two confuse.
    axes = {
        f"{axis}axis": {"title": {"text": plotly_text(short(name, 16))}, "showgrid": not info.exact}
        for axis, name in zip("xyz", info.objectives, strict=True)
    }
    # Seen from the far corner of the cube: all three objectives grow toward the reader.
    camera = {"eye": {"x": 1.5, "y": 1.5, "z": 0.8}, "center": {"z": -0.12}}
    figure.update_layout(scene={**axes, "camera": camera, "aspectmode": "cube"})


def _marks(
    marks: Sequence[Mark],
    name: str,
    symbol: str,
    size: int,
    colour: str,
    opacity: float = 1.0,
    crowded: bool = False,
) -> Iterable[go.Scatter3d]:
    if not marks:
        return
    bars = {} if crowded else {f"error_{axis}": errors(marks, i, colour) for i, axis in enumerate("xyz")}
    yield go.Scatter3d(
        **{axis: column(marks, i) for i, axis in enumerate("xyz")},
        **bars,
        mode="markers+text" if any(mark.label for mark in marks) else "markers",
        text=np.array([plotly_text(mark.label) for mark in marks], dtype=object),
        textposition="top center",
        textfont={"color": INK, "size": 12},
        marker={"symbol": symbol, "size": size, "color": colour},
        opacity=opacity,
        hovertext=np.array(hover_texts(marks), dtype=object),
        hoverinfo="text",
        customdata=np.array([mark.adapter for mark in marks], dtype=object),
        name=name,
    )


def _blends(info: FrontInfo) -> Iterable[go.Scatter3d]:
    name = "blends of neighbours"
    if info.paths:
        x, y, z = broken(info.paths)
        line = {"color": ACCENT, "width": 3, "dash": "dash"}
        yield go.Scatter3d(
            x=x, y=y, z=z, mode="lines", line=line, hoverinfo="skip", legendgroup=name, showlegend=False, opacity=0.5
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


def _exact(places: Sequence[Values]) -> Iterable[go.Scatter3d]:
    edges = net(places)
    if not places:
        return
    # A net and not a surface: whatever stands behind a surface, Plotly lets nobody point at.
    x, y, z = broken([(places[i], places[j]) for i, j in edges]) if edges else zip(*places, strict=True)
    yield go.Scatter3d(
        x=x,
        y=y,
        z=z,
        mode="lines" if edges else "markers",
        line={"color": NEUTRAL, "width": 1},
        marker={"symbol": "circle-open", "size": 3, "color": NEUTRAL},
        opacity=0.55,
        hoverinfo="skip",
        name="exact front",
    )


def net(places: Sequence[Values]) -> list[tuple[int, int]]:
    """Edges that join points of a front in space into a net of triangles; none for fewer than three, or for a line.

    Seen along the direction in which all objectives grow alike, no two points of a front hide each other (the one
    behind would be dominated), so a Delaunay triangulation of that view is one of the front.

    >>> net([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
    [(0, 1), (0, 2), (1, 2)]
    >>> net([(0.0, 0.0, 2.0), (0.0, 1.0, 1.0), (0.0, 2.0, 0.0)])
    []
    """
    if len(places) < 3:
        return []
    values = np.array(places)
    scaled = values / np.maximum(np.ptp(values, axis=0), 1e-12)
    view = np.stack([scaled[:, 0] - scaled[:, 1], scaled[:, 0] + scaled[:, 1] - 2 * scaled[:, 2]], axis=1)
    view[:, 1] /= np.sqrt(3)
    if np.linalg.matrix_rank(view - view.mean(axis=0), tol=1e-9) < 2:
        return []
    corners = np.sort(Delaunay(view).simplices, axis=1)
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [0, 2]], corners[:, [1, 2]]])
    return [(int(i), int(j)) for i, j in np.unique(edges, axis=0)]
