"""A front of more than three objectives: all of them at once, to be brushed."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import dash
from dash import Input, Output, State, dcc, html

from moalign.dashboards.brush import BrushInfo, brush_info, brushed, matrix_figure, parcoords_figure
from moalign.dashboards.explorer.parts import attributes, data_of, drawing, graph_of, in_thread, plain
from moalign.exploring import Seen, Watch

_SHOWN = 5  # columns of the matrix

Ranges = dict[str, list[list[float]]]


def many_view() -> list[Any]:
    """Parallel coordinates and the matrix."""
    return [
        html.H3("All objectives at once"),
        html.P("Drag along an axis to keep what lies there; drag its title to move it.", className="about"),
        dcc.Store(id="brushes", data={}),
        html.Div(drawing("parcoords", "Parallel coordinates of all objectives", "wide broad"), className="scroll"),
        html.P(id="inside", className="about", **attributes(aria_live="polite")),
        html.H3("Each objective against each other"),
        html.Div(
            drawing("matrix", "Scatter matrix of the objectives that conflict most", "tall broad"), className="scroll"
        ),
    ]


@lru_cache(maxsize=4)
def columns_of(seen: Seen) -> BrushInfo:
    """The points by columns."""
    return brush_info(seen.info)


def restyled(before: Ranges, changes: Any) -> Ranges:
    """The brushes after what a drawing says has changed: column, as JSON writes it, to its ranges.

    >>> restyled({}, [{"dimensions[2].constraintrange": [[0.5, 1.0]]}, [0]])
    {'2': [[0.5, 1.0]]}
    >>> restyled({"2": [[0.5, 1.0]]}, [{"dimensions[2].constraintrange": None}, [0]])
    {}
    """
    after = dict(before)
    found = changes[0] if isinstance(changes, list) and changes and isinstance(changes[0], dict) else {}
    for name, value in found.items():
        head, _, tail = name.partition("]")
        if not head.startswith("dimensions[") or not tail.startswith(".constraintrange"):
            continue
        after.pop(head.removeprefix("dimensions["), None)
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, list) and value:
            pairs = value if isinstance(value[0], list) else [value]
            after[head.removeprefix("dimensions[")] = [[float(low), float(high)] for low, high in pairs]
    return after


def inside(info: BrushInfo, ranges: Mapping[str, Sequence[Sequence[float]]]) -> tuple[str, ...]:
    """The adapters inside the brushes of a page; axes that are no column of values are left alone."""
    columns = {int(at): [(low, high) for low, high in each] for at, each in ranges.items() if at.isdigit()}
    most = len(info.objectives) + 1
    return brushed(info, {at: each for at, each in columns.items() if at < most})


def register(app: dash.Dash, watch: Watch) -> None:
    """The callbacks of both drawings."""

    @app.callback(Output(data_of("parcoords"), "data"), Input("state", "data"))
    @in_thread
    def lines(_state: str) -> Any:
        return plain(parcoords_figure(columns_of(watch.now())))

    @app.callback(Output(data_of("matrix"), "data"), Input("state", "data"))
    @in_thread
    def matrix(_state: str) -> Any:
        info = columns_of(watch.now())
        return plain(matrix_figure(info, sorted(info.conflict[:_SHOWN])))

    @app.callback(
        Output("brushes", "data"),
        Output("inside", "children"),
        Input(graph_of("parcoords"), "restyleData"),
        Input("state", "data"),
        State("brushes", "data"),
    )
    @in_thread
    def brush(changes: Any, _state: str, before: Ranges) -> tuple[Ranges, str]:
        info = columns_of(watch.now())
        after = restyled(before, changes) if dash.ctx.triggered_id != "state" else before
        kept = inside(info, after)
        return after, f"{len(kept):,} of {len(info.adapters):,} points are inside the brushes." if after else ""
