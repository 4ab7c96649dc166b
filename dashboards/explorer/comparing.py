"""This run and another one: both fronts, and whether one of them reaches more."""

from itertools import combinations
from typing import Any

import dash
from dash import Input, Output, dcc, html

from moalign.comparing import compare_runs
from moalign.dashboards.explorer.parts import attributes, data_of, drawing, in_thread, note, plain, view
from moalign.dashboards.versus import VersusInfo, versus_figure, versus_info
from moalign.dashboards.wording import short
from moalign.errors import UserError
from moalign.exploring import Seen, Watch
from moalign.frontiers.comparison import Comparison

_PAIRS = 45  # of objectives that may be chosen


def comparing_view(seen: Seen, siblings: list[str]) -> html.Section:
    """A choice among the runs beside this one."""
    about = "Both fronts in one plane, and the difference of their hypervolumes with its interval over the prompts."
    if not siblings:
        return view("compare", "Compare runs", about, note("No other run stands beside this one."), _hidden())
    m = len(seen.run.objectives)
    return view(
        "compare",
        "Compare runs",
        about,
        html.Label(
            [
                html.Span("The other run"),
                dcc.Dropdown(id="against", options=siblings, value=None, placeholder="choose one", maxHeight=300),
            ],
            className="field wide",
        ),
        html.Label(
            [html.Span("Objectives"), dcc.Dropdown(id="plane", options=planes(seen), value=None, maxHeight=300)],
            className="field wide",
            hidden=m < 3,
        ),
        html.Div(id="verdict", **attributes(aria_live="polite")),
        html.Div(drawing("versus", "Both fronts in one plane", "front"), id="versus-place", hidden=True),
    )


def _hidden() -> html.Div:
    """What the callback listens to and writes, where there is nothing to choose."""
    return html.Div(
        [
            dcc.Dropdown(id="against"),
            dcc.Dropdown(id="plane"),
            html.Div(id="verdict"),
            drawing("versus", ""),
            html.Div(id="versus-place"),
        ],
        hidden=True,
    )


def planes(seen: Seen) -> list[dict[str, str]]:
    """The pairs of objectives, as a choice."""
    names = seen.run.objectives
    pairs = list(combinations(range(len(names)), 2))[:_PAIRS]
    return [{"label": f"{short(names[x])} and {short(names[y])}", "value": f"{x},{y}"} for x, y in pairs]


def against(watch: Watch, name: str, pair: tuple[int, int] | None = None) -> VersusInfo:
    """What there is to say of this run and one beside it. Raises RunError if there is no such run."""
    first, second = watch.now(), watch.sibling(name).now()
    names = (first.run.folder.resolve().name, name)
    fronts = (first.front, second.front)
    if first.run.objectives != second.run.objectives:
        return versus_info(names, fronts)
    bands = (first.band, second.band)
    try:
        found = compare_runs(first.run, second.run)
    except UserError as error:
        return versus_info(names, fronts, bands, why=str(error), pair=pair)
    low, high = found["interval"]
    comparison = Comparison(found["difference"], low, high, found["p"])
    return versus_info(names, fronts, bands, tuple(found["hypervolume"]), comparison, pair=pair)


def verdict(info: VersusInfo) -> list[Any]:
    """The words above the drawing."""
    if info.note:
        return [note(info.note)]
    told = [note(info.verdict)]
    if info.hypervolumes:
        pairs = zip(info.names, info.hypervolumes, strict=True)
        said = "; ".join(f"{short(name)} {volume}" for name, volume in pairs)
        told.append(html.P(f"Hypervolume: {said}. {info.reference}", className="about"))
    return told


def register(app: dash.Dash, watch: Watch) -> None:
    """The callback of the view: a name from the list, and never a path, comes from the page."""

    @app.callback(
        Output("verdict", "children"),
        Output(data_of("versus"), "data"),
        Output("versus-place", "hidden"),
        Input("against", "value"),
        Input("plane", "value"),
        Input("state", "data"),
    )
    @in_thread
    def compare(name: str | None, plane: str | None, _state: str) -> tuple[Any, Any, bool]:
        if not name:
            return None, dash.no_update, True
        chosen = [int(column) for column in (plane or "").split(",") if column]
        info = against(watch, name, (chosen[0], chosen[1]) if len(chosen) == 2 else None)
        return verdict(info), plain(versus_figure(info)), bool(info.note)
