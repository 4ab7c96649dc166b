"""A front of more than three objectives: all of them at once, to be brushed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import dash
from dash import Input, Output, State, dcc, html

from moalign.dashboards.brush import BrushInfo, Range, brush_info, brushed, matrix_figure, parcoords_figure
from moalign.dashboards.explorer.parts import (
    attributes,
    button,
    chooser,
    data_of,
    drawing,
    graph_of,
    in_thread,
    listed,
    plain,
)
from moalign.dashboards.wording import short
from moalign.exploring import Seen, Watch

_SHOWN = 5  # columns of the matrix
_FAR = 1e300  # an end that is none
_TYPED = (State("brush-of", "value"), State("brush-low", "value"), State("brush-high", "value"))

Ranges = dict[str, list[list[float]]]


def many_view(seen: Seen) -> list[Any]:
    """Parallel coordinates and the matrix."""
    return [
        html.H3("All objectives at once"),
        html.P(
            "Drag along an axis to keep what lies there, or give the ends below; drag its title to move it.",
            className="about",
        ),
        dcc.Store(id="brushes", data={}),
        html.Div(drawing("parcoords", "Parallel coordinates of all objectives", "wide broad"), className="scroll"),
        html.Div(
            [
                chooser(
                    "Keep by",
                    dcc.Dropdown(id="brush-of", options=_axes(seen), value="0", clearable=False, maxHeight=300),
                ),
                _end("low", "from"),
                _end("high", "to"),
                button("Keep these", "brush-set"),
                button("Keep all", "brush-clear", "quiet"),
            ],
            className="line wrap",
        ),
        html.P(id="inside", className="about", **attributes(aria_live="polite")),
        chooser(
            "Go to one that is kept",
            dcc.Dropdown(id="goto-inside", options=[], placeholder="by what it was asked for", maxHeight=320),
            "field wide",
        ),
        html.H3("Each objective against each other"),
        html.Div(
            drawing("matrix", "Scatter matrix of the objectives that conflict most", "tall broad"), className="scroll"
        ),
    ]


def _axes(seen: Seen) -> list[dict[str, str]]:
    return [{"label": short(name, 24), "value": str(at)} for at, name in enumerate(seen.run.objectives)]


def _end(name: str, label: str) -> html.Label:
    field = dcc.Input(id=f"brush-{name}", type="number", step="any", debounce=True, placeholder="any")
    return html.Label([html.Span(label), field], className="field small")


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


def columns_of_page(info: BrushInfo, ranges: Mapping[str, Sequence[Sequence[float]]]) -> dict[int, list[Range]]:
    """The brushes of a page; axes that this run does not have are left alone."""
    found = {int(at): [(low, high) for low, high in each] for at, each in ranges.items() if at.isdigit()}
    return {at: each for at, each in found.items() if at <= len(info.objectives)}


def inside(info: BrushInfo, ranges: Mapping[str, Sequence[Sequence[float]]]) -> tuple[str, ...]:
    """The adapters inside the brushes of a page."""
    return brushed(info, columns_of_page(info, ranges))


def typed(before: Ranges, axis: str, low: float | None, high: float | None) -> Ranges:
    """The brushes with one that was typed in, instead of any on its axis; without ends, without it.

    >>> typed({"1": [[0.0, 1.0]]}, "0", 0.5, None), typed({"0": [[0.5, 1.0]]}, "0", None, None)
    ({'1': [[0.0, 1.0]], '0': [[0.5, 1e+300]]}, {})
    """
    rest = {at: each for at, each in before.items() if at != axis}
    if low is None and high is None:
        return rest
    ends = sorted([-_FAR if low is None else float(low), _FAR if high is None else float(high)])
    return {**rest, axis: [ends]}


def register(app: dash.Dash, watch: Watch, choices: Callable[[Seen, Collection[str]], list[dict[str, str]]]) -> None:
    """The callbacks of both drawings; `choices` says what points are called."""

    @app.callback(
        Output(data_of("parcoords"), "data"),
        Input("state", "data"),
        Input("brush-set", "n_clicks"),
        Input("brush-clear", "n_clicks"),
        State("brushes", "data"),
        *_TYPED,
    )
    @in_thread
    def lines(_state: str, sets: int, clears: int, before: Ranges, *ends: Any) -> Any:
        info = columns_of(watch.now())
        figure = parcoords_figure(info, ranges=columns_of_page(info, asked(before, *ends)))
        # What was dragged stays through a drawing of new points, and gives way to the buttons.
        return plain(figure.update_traces(uirevision=f"{sets} {clears}", selector={"type": "parcoords"}))

    @app.callback(Output(data_of("matrix"), "data"), Input("state", "data"), Input("brushes", "data"))
    @in_thread
    def matrix(_state: str, ranges: Ranges) -> Any:
        info = columns_of(watch.now())
        kept = frozenset(inside(info, ranges)) if ranges else None
        return plain(matrix_figure(info, sorted(info.conflict[:_SHOWN]), kept))

    @app.callback(
        Output("brushes", "data"),
        Output("inside", "children"),
        Output("goto-inside", "options"),
        Input(graph_of("parcoords"), "restyleData"),
        Input("state", "data"),
        Input("brush-set", "n_clicks"),
        Input("brush-clear", "n_clicks"),
        State("brushes", "data"),
        *_TYPED,
    )
    @in_thread
    def brush(
        changes: Any, _state: str, _set: int, _clear: int, before: Ranges, *ends: Any
    ) -> tuple[Ranges, str, list[dict[str, str]]]:
        seen = watch.now()
        info = columns_of(seen)
        dragged = dash.ctx.triggered_id == graph_of("parcoords")
        after = restyled(before, changes) if dragged else asked(before, *ends)
        kept = inside(info, after)
        said = f"{len(kept):,} of {len(info.adapters):,} points are kept." if after else ""
        return after, said, listed(choices(seen, frozenset(kept)))


def asked(before: Ranges, axis: str | None, low: float | None, high: float | None) -> Ranges:
    """The brushes after the buttons below the axes, as the callback that is running was called."""
    which = dash.ctx.triggered_id
    if which == "brush-clear":
        return {}
    return typed(before, axis, low, high) if which == "brush-set" and axis else before
