"""What the views share: figures that follow the reader's screen, tables, buttons, and work that is done in a thread."""

import asyncio
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import plotly.graph_objects as go
from dash import dcc, html

from moalign.dashboards.theme import OBJECTIVE_COLOURS, objective_symbol
from moalign.dashboards.wording import short

_GLYPHS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "cross": "✚",
    "star": "★",
    "hexagon": "⬢",
    "triangle-down": "▼",
    "pentagon": "⬟",
    "hourglass": "⧗",
    "bowtie": "⧓",
    "hexagram": "✶",
}


_CLEAR = "rgba(0,0,0,0)"
_NOTHING = {
    "data": [],
    "layout": {
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
    },
}

_LISTED = 200  # entries of a list that opens


def in_thread(work: Callable[..., Any]) -> Callable[..., Any]:
    """`work` as Dash awaits it, in a thread: the event loop goes on with the texts of everybody else."""

    @wraps(work)
    async def awaited(*values: Any) -> Any:
        return await asyncio.to_thread(work, *values)

    return awaited


def drawing(name: str, label: str, kind: str = "wide", figure: go.Figure | None = None) -> html.Figure:
    """The place of a figure: its data, which explorer.js colours for the screen, the drawing, and how to save it.

    A screen reader hears the label. Callbacks write to `data_of(name)`.
    """
    saves = [
        html.Button(
            kind_.upper(),
            type="button",
            className="quiet",
            **attributes(data_save=kind_, data_figure=name, aria_label=f"Save as {kind_.upper()}: {label}"),
        )
        for kind_ in ("png", "svg")
    ]
    graph = dcc.Graph(
        id=graph_of(name),
        responsive=True,
        className="graph",
        config={"displayModeBar": False, "responsive": True},
        figure=_NOTHING,
    )
    return html.Figure(
        [
            dcc.Store(id=data_of(name), data=None if figure is None else plain(figure)),
            html.Div(
                graph, role="img", className=f"drawing {kind}", id=f"drawing-{name}", **attributes(aria_label=label)
            ),
            html.Div(saves, className="saves"),
        ]
    )


def attributes(**named: str) -> dict[str, Any]:
    """HTML's attributes with hyphens, as Dash takes them.

    >>> attributes(aria_live="polite")
    {'aria-live': 'polite'}
    """
    return {name.replace("_", "-"): value for name, value in named.items()}


def data_of(name: str) -> dict[str, str]:
    """The id of the store that holds a figure's data."""
    return {"part": "data", "name": name}


def graph_of(name: str) -> dict[str, str]:
    """The id of the drawing itself, which reports clicks."""
    return {"part": "graph", "name": name}


def plain(figure: go.Figure) -> dict[str, Any]:
    """A figure as the page holds it; the page gives it its size."""
    return figure.update_layout(height=None, width=None).to_dict()


def badge(index: int) -> html.Span:
    """The mark of an objective: its symbol in its colour, which figures use too."""
    style = {"color": colour_of(index)}
    return html.Span(_GLYPHS[objective_symbol(index)], className="badge", style=style, **attributes(aria_hidden="true"))


def estimate(
    at: int, name: str, places: tuple[float, float, float], ends: tuple[float, float], value: str, interval: str
) -> html.Div:
    """An objective's number: in words, and as a dot with its interval between two ends.

    `places` are the number and the ends of its interval.
    """
    low, high = ends
    dot, start, stop = (100 * (place - low) / (high - low) if high > low else 50.0 for place in places)
    track = html.Span(
        [
            html.I(style={"left": f"{start:.2f}%", "width": f"{stop - start:.2f}%"}, className="span"),
            html.I(style={"left": f"{dot:.2f}%"}, className="dot"),
        ],
        className="track",
        style={"--accent": colour_of(at)},
        **attributes(aria_hidden="true"),
    )
    return html.Div(
        [
            html.Span([badge(at), html.Span(short(name, 24), title=name)], className="name"),
            track,
            html.Span(value, className="value"),
            html.Span(interval, className="interval"),
        ],
        className="prediction",
    )


def colour_of(index: int) -> str:
    """The colour of an objective on the reader's screen, as CSS."""
    return f"var(--objective-{index % len(OBJECTIVE_COLOURS)})"


def button(text: str, name: str, kind: str = "", **more: Any) -> html.Button:
    """A button that a callback listens to."""
    return html.Button(text, id=name, type="button", className=kind, n_clicks=0, **more)


def chooser(text: str, dropdown: Any, kind: str = "field", unseen: bool = False, hidden: bool = False) -> html.Label:
    """A dropdown with its label, which a screen reader hears before the value.

    Dash names a dropdown by its value, and by what is called <id>-value-count: a count that stands there only where
    several may be chosen. Here it is the label.
    """
    told = html.Span(text, id=f"{dropdown.id}-value-count", className="unseen" if unseen else "")
    return html.Label([told, dropdown], className=kind, hidden=hidden)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], label: str, numeric: bool = True) -> html.Div:
    """A table whose first column names the row; it scrolls sideways where it is too wide, by keyboard as well."""
    kind = "number" if numeric else ""
    body = [
        html.Tr([html.Th(row[0], scope="row"), *(html.Td(cell, className=kind) for cell in row[1:])]) for row in rows
    ]
    heading = html.Tr([_heading(text, kind if at else "") for at, text in enumerate(head)])
    return html.Div(
        html.Table([html.Thead(heading), html.Tbody(body)]),
        className="scroll",
        tabIndex=0,
        role="region",
        **attributes(aria_label=label),
    )


def _heading(text: str, kind: str) -> html.Th | html.Td:
    """The head of a column; one without a name is no heading."""
    return html.Th(text, scope="col", className=kind) if text else html.Td(className=kind)


def view(name: str, title: str, about: str, *body: Any) -> html.Section:
    """One view of the page; the one that the address names is shown."""
    head = [html.H2(title, id=f"{name}-title"), html.P(about, className="about")]
    return html.Section([*head, *body], id=name, className="view", **attributes(aria_labelledby=f"{name}-title"))


def note(text: str) -> html.P:
    """A sentence that stands in for what is not there."""
    return html.P(text, className="note")


def listed(options: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of a dropdown: of many, some from end to end.

    Dash indexes every part of every label, which for 2,000 labels of 80 characters is more than a browser can.

    >>> len(listed([{"label": "a"}] * 2000))
    200
    """
    stride = -(-len(options) // _LISTED)
    return options[::stride] if stride > 1 else options
