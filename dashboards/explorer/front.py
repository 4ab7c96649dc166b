"""The front, where a click on a point makes it the current trade-off."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import dash
from dash import Input, Output, dcc, html

from moalign.dashboards.explorer import many
from moalign.dashboards.explorer.parts import (
    attributes,
    chooser,
    data_of,
    drawing,
    graph_of,
    in_thread,
    listed,
    note,
    plain,
    view,
)
from moalign.dashboards.front import front_figure
from moalign.dashboards.marks import FrontInfo
from moalign.dashboards.pairs import PairsInfo, pairs_figure, pairs_info
from moalign.dashboards.parallel import parallel_figure, parallel_info
from moalign.dashboards.plane import CROWD, SMALL
from moalign.dashboards.theme import INK
from moalign.dashboards.wording import preference_text, short
from moalign.exploring import Seen, Watch

CURRENT = "current trade-off"
_PAIRS = 6  # small planes of a front of more than three objectives


def names_of(m: int) -> list[str]:
    """The drawings of a front of m objectives, on which the current trade-off is marked."""
    return ["front"] if m <= 3 else [f"pair-{i}" for i in range(min(_PAIRS, m * (m - 1) // 2))]


def front_view(seen: Seen) -> html.Section:
    """The view, whose figures are drawn when the page is there."""
    m = len(seen.run.objectives)
    label = f"Scatter of the front over {', '.join(short(name) for name in seen.run.objectives)}"
    kind = "front" if m == 2 else "space" if m == 3 else "small"
    drawings = [
        drawing(name, label if m <= 3 else f"Two objectives of the front, pair {at + 1}", kind)
        for at, name in enumerate(names_of(m))
    ]
    about = "Up and to the right is better." if m == 2 else "More is better on every axis."
    return view(
        "front",
        "The front",
        f"What can be had of one objective, for how much of another. {about} Select a point and it is the trade-off.",
        html.Div(id="front-note"),
        html.Div(drawings, className="grid" if m > 3 else ""),
        html.Ul(id="front-key", className="key"),
        chooser(
            "Go to a point",
            dcc.Dropdown(id="goto", options=[], placeholder="by what it was asked for", maxHeight=320),
            "field wide",
        ),
        *([html.H3("All objectives at once"), drawing("parallel", "Parallel coordinates")] if m == 3 else ()),
        *(many.many_view(seen) if m > 3 else ()),
    )


def key(info: FrontInfo) -> list[html.Li]:
    """What the marks and lines mean, of those that are drawn."""
    m, bars = len(info.objectives), len(info.marks) <= (CROWD if len(info.objectives) <= 3 else SMALL)
    entries = [
        (
            "●",
            "on the front: no other adapter is as good in everything and better in something",
            "accent",
            info.on_front,
        ),
        ("✕", "dominated: another adapter is better", "faint", info.dominated),
        (
            "┼",
            "thin lines through a mark: its interval, of 95 % over the prompts",
            "accent",
            info.marks if bars else (),
        ),
        ("▒", f"the pale band: {info.band_meaning}", "accent", info.band),
        ("○", "a blend of trained adapters, measured but not trained", "accent", info.blends),
        ("╌", "dashed: along the blends of two adapters", "accent", info.paths if m <= 3 else ()),
        ("┄", "dotted: the exact front" if m == 2 else "the net: the exact front", "", info.exact if m <= 3 else ()),
        ("◆", "the base model", "", (info.base,) if info.base else ()),
        ("◯", "the current trade-off, as measured or predicted", "ink", info.marks),
    ]
    return [
        html.Li([html.Span(glyph, className=f"glyph {kind}", **attributes(aria_hidden="true")), meaning])
        for glyph, meaning, kind, there in entries
        if there
    ]


@lru_cache(maxsize=4)
def planes(seen: Seen) -> PairsInfo:
    """The pairs of objectives that are drawn where there are more than three."""
    return pairs_info(seen.info, _PAIRS)


def axes_of(seen: Seen) -> list[tuple[int, ...]]:
    """The columns that each drawing of `names_of` shows."""
    m = len(seen.front.objectives)
    return [tuple(range(m))] if m <= 3 else list(planes(seen).pairs)


def drawn(seen: Seen, at: int) -> dict[str, Any]:
    """The figure of one of `names_of`. Its last trace is the current trade-off, which explorer.js moves about."""
    m, info = len(seen.front.objectives), seen.info
    if not info.marks or m < 2:
        return plain(front_figure(info))
    figure = front_figure(info) if m <= 3 else pairs_figure(planes(seen).split()[at])
    found = plain(figure.update_layout(showlegend=False))
    return {**found, "data": [*found["data"], _ring(axes_of(seen)[at])]}


def _ring(axes: Sequence[int]) -> dict[str, Any]:
    """A ring that is nowhere yet; its `meta` says which objectives its axes show."""
    flat = len(axes) == 2
    style = {"symbol": "circle-open", "size": 24 if flat else 16, "color": INK, "line": {"width": 3, "color": INK}}
    return {
        "type": "scatter" if flat else "scatter3d",
        "mode": "markers",
        "name": CURRENT,
        "meta": {"axes": list(axes)},
        "hoverinfo": "skip",
        "showlegend": False,
        "marker": style,
        **{axis: [None] for axis, _ in zip("xyz", axes, strict=False)},
        **({"cliponaxis": False} if flat else {}),
    }


def choices(seen: Seen, among: Collection[str] | None = None) -> list[dict[str, str]]:
    """Every point, or those among some, by what was asked of it, those on the front first."""
    ours = {point.adapter for point in seen.on_front}
    kept = [point for point in seen.front if among is None or point.adapter in among]
    ordered = sorted(kept, key=lambda point: point.adapter not in ours)
    return [
        {
            "label": preference_text(point.preference, seen.front.objectives)
            + ("" if point.adapter in ours else " (dominated)"),
            "value": point.adapter,
        }
        for point in ordered
    ]


def remarks(seen: Seen) -> list[Any]:
    """What is unusual about the front, a sentence each."""
    # Where there is nothing to draw, the drawing itself says why.
    told = [seen.info.note if seen.info.marks else "", *seen.left_out[:3]]
    if len(seen.left_out) > 3:
        told.append(f"{len(seen.left_out) - 3} more points are left out for such reasons.")
    return [note(text) for text in told if text]


def register(app: dash.Dash, watch: Watch) -> None:
    """The callbacks of the view."""
    m = len(watch.now().run.objectives)
    names = names_of(m)
    clicks = [*names, *(["matrix"] if m > 3 else ["parallel"] if m == 3 else [])]
    lists = ["goto", *(["goto-inside"] if m > 3 else [])]

    for at, name in enumerate(names):
        _add_drawing(app, watch, at, name)

    @app.callback(
        Output("front-note", "children"),
        Output("goto", "options"),
        Output("front-key", "children"),
        Input("state", "data"),
    )
    @in_thread
    def say(_state: str) -> tuple[Any, Any, Any]:
        seen = watch.now()
        drawn_at_all = seen.info.marks and m > 1
        return remarks(seen), listed(choices(seen)), key(seen.info) if drawn_at_all else []

    @app.callback(
        Output("wanted", "data", allow_duplicate=True),
        *[Output(graph_of(name), "clickData") for name in clicks],
        *[Input(graph_of(name), "clickData") for name in clicks],
        *[Input(name, "value") for name in lists],
        prevent_initial_call=True,
    )
    @in_thread
    def choose(*values: Any) -> tuple[Any, ...]:
        """A point's weights; the click is forgotten, so that the same point may be selected again."""
        which: Any = dash.ctx.triggered_id
        at = len(clicks) + lists.index(which) if which in lists else clicks.index(which["name"])
        adapter = values[at] if which in lists else clicked(values[at])
        point = watch.now().points.get(adapter)
        chosen = dash.no_update if point is None else {"weights": wanted(point.preference.weights, watch)}
        return chosen, *([None] * len(clicks))

    if m == 3:
        _add_parallel(app, watch)
    if m > 3:
        many.register(app, watch, choices)


def _add_drawing(app: dash.Dash, watch: Watch, at: int, name: str) -> None:
    @app.callback(Output(data_of(name), "data"), Input("state", "data"))
    @in_thread
    def draw(_state: str) -> dict[str, Any]:
        return drawn(watch.now(), at)


def wanted(weights: dict[str, float], watch: Watch) -> dict[str, float]:
    """A point's weights, one for each objective of the run."""
    return {name: weights.get(name, 0.0) for name in watch.now().run.objectives}


def clicked(click: dict[str, Any] | None) -> str:
    """The adapter whose mark was clicked; empty for a mark that is none.

    >>> clicked({"points": [{"customdata": "a1"}]}), clicked({"points": [{"x": 1.0}]}), clicked(None)
    ('a1', '', '')
    """
    points = (click or {}).get("points") or [{}]
    found = points[0].get("customdata")
    return found if isinstance(found, str) else ""


def _add_parallel(app: dash.Dash, watch: Watch) -> None:
    @app.callback(Output(data_of("parallel"), "data"), Input("state", "data"))
    @in_thread
    def lines(_state: str) -> Any:
        return plain(parallel_figure(parallel_info(watch.now().info)))
