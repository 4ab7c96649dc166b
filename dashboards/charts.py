"""Charts of lines: the one that is looked at before all the others, which are faint."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from moalign.dashboards.theme import ACCENT, INK, NEUTRAL, TEMPLATE, blank_figure, objective_colour, objective_dash
from moalign.dashboards.wording import plotly_text


@dataclass(frozen=True)
class Line:
    """A line of one chart: its name in the legend, its places, and which colour and dash it has (those of objectives).

    `column` is None for lines that belong to no objective. `hover` and `keys`, where there are any, say what stands at
    each place, and which adapter that is; such a line has marks, and goes in steps from one to the next if `joined`.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    column: int | None = None
    dash: int | None = None
    hover: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    joined: bool = True


@dataclass(frozen=True)
class Chart:
    """One chart of the training: the lines of what is looked at, and faintly those of the others.

    `note` says in a sentence why there are no lines, `remark` what to know of those that there are. `current` is the
    key of the adapter that is looked at, where it is one of the marks.
    """

    title: str
    across: str
    up: str
    lines: tuple[Line, ...] = ()
    faint: tuple[Line, ...] = ()
    note: str = ""
    remark: str = ""
    current: str = ""


def chart_figure(chart: Chart) -> go.Figure:
    """One chart. Where faint lines have spikes that would flatten all others, the axis cuts them, and says so."""
    low, high, cut = _reach(chart)
    spikes = " Spikes are cut off." if cut else ""
    heading = _heading(chart.title, chart.note or chart.remark + spikes)
    if not chart.lines:
        left = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "top", "align": "left", "font": {"color": INK}}
        return blank_figure(heading).update_layout(height=130).update_annotations(left)
    at = {"x": 0, "y": 1, "xref": "x domain", "yref": "y domain", "xanchor": "left", "yanchor": "bottom"}
    top = {"text": heading, "align": "left", "yshift": 8, "showarrow": False, "font": {"color": INK}}
    last = max(x for line in (*chart.lines, *chart.faint) for x in line.x)
    layout = {
        "template": TEMPLATE,
        "height": 300,
        "margin": {"t": 16 + 17 * (heading.count("<br>") + 1)},
        "showlegend": len(chart.lines) > 1,
        "annotations": [at | top],
        "xaxis": {"title": {"text": plotly_text(chart.across)}, "range": [0, 1.04 * last]},
        "yaxis": {"title": {"text": plotly_text(chart.up)}, "range": [low, high], "exponentformat": "e"},
    }
    drawn = (trace for line in chart.lines for trace in _drawn(line, chart.current))
    return go.Figure([*_faint(chart.faint), *drawn], layout)


def _reach(chart: Chart) -> tuple[float, float, bool]:
    """The ends of the upright axis: all of what stands out, and of the faint lines what is no spike."""
    shown = [y for line in chart.lines for y in line.y]
    faint = [y for line in chart.faint for y in line.y]
    if not shown:
        return 0.0, 1.0, False
    low, high, whole = min(shown), max(shown), [*shown, *faint]
    if faint:
        lower, upper = np.quantile(faint, [0.02, 0.98]).tolist()
        low, high = min(low, lower), max(high, upper)
    cut = max(whole) - min(whole) > 2 * (high - low)
    if not cut:
        low, high = min(whole), max(whole)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room, cut


def wrapped(sentence: str) -> str:
    """A sentence for a figure, on lines that a phone has room for: Plotly breaks none by itself.

    >>> wrapped("<b>")
    '&lt;b&gt;'
    """
    return "<br>".join(plotly_text(line) for line in textwrap.wrap(sentence, 46))


def _heading(title: str, below: str) -> str:
    return f"<b>{plotly_text(title)}</b>" + (f"<br>{wrapped(below)}" if below else "")


def _look(line: Line) -> dict[str, object]:
    if line.column is None:
        return {"color": ACCENT, "dash": "solid"}
    return {"color": objective_colour(line.column), "dash": objective_dash(line.dash or 0)}


def _drawn(line: Line, current: str) -> Iterable[go.Scatter]:
    name, look = plotly_text(line.name), {**_look(line), "width": 2.5}
    trace: dict[str, Any] = {"x": np.array(line.x), "y": np.array(line.y), "name": name}
    if not line.keys:
        shown = f"{name}<br>%{{x:,.4~g}}: %{{y:.4~g}}<extra></extra>"
        yield go.Scatter(**trace, mode="lines", line=look, hovertemplate=shown)
        return
    yield go.Scatter(
        **trace,
        mode="lines+markers" if line.joined else "markers",
        line={**look, "shape": "hv"},
        marker={"size": 6, "opacity": 1, "line": {"width": 0}},
        hovertext=[plotly_text(text) for text in line.hover],
        hoverinfo="text",
        customdata=line.keys,
    )
    for x, y, key in zip(line.x, line.y, line.keys, strict=True):
        if key == current:
            mark = {"size": 14, "symbol": "diamond", "color": ACCENT}
            yield go.Scatter(x=[x], y=[y], mode="markers", marker=mark, hoverinfo="skip", showlegend=False)


def _faint(lines: Sequence[Line]) -> Iterable[go.Scatter]:
    """One trace for each colour and dash, with gaps between its lines: many traces are slow to draw."""
    for column, dash in dict.fromkeys((line.column, line.dash) for line in lines):
        alike = [line for line in lines if (line.column, line.dash) == (column, dash)]
        yield go.Scatter(
            x=np.concatenate([[*line.x, np.nan] for line in alike]),
            y=np.concatenate([[*line.y, np.nan] for line in alike]),
            mode="lines",
            line={**(_look(alike[0]) if column is not None else {"color": NEUTRAL}), "width": 1},
            opacity=0.55 if len(alike) < 12 else 0.3,
            hoverinfo="skip",
            showlegend=False,
        )
