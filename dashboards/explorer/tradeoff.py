"""The current trade-off: sliders that stay on the simplex, its row, what it is predicted to attain."""

from collections.abc import Mapping
from typing import Any

import dash
from dash import Input, Output, State, html

from moalign.dashboards.explorer.parts import (
    data_of,
    estimate,
    graph_of,
    in_thread,
    note,
    plain,
)
from moalign.dashboards.explorer.snippets import snippets
from moalign.dashboards.explorer.wishing import granted, limits
from moalign.dashboards.shading import map_shade
from moalign.dashboards.simplex import simplex_figure, simplex_info
from moalign.dashboards.sliders import moved
from moalign.dashboards.tradeoff import TradeoffInfo, tradeoff_info
from moalign.dashboards.wording import number, short, span_decimals
from moalign.errors import UserError
from moalign.exploring import Seen, Watch, wish_of
from moalign.preference import Preference
from moalign.serving.plan import POLICIES


def works(seen: Seen) -> list[str]:
    """The policies that can serve weights over all objectives of this run."""
    even = Preference.of(dict.fromkeys(seen.run.objectives, 1.0))

    def serves(policy: str) -> bool:
        try:
            seen.planner.plan(even, policy)
        except UserError:
            return False
        return True

    return [policy for policy in POLICIES if serves(policy)]


def standing(info: TradeoffInfo) -> str:
    """How the values are known, and where they lie on the front."""
    return info.source + info.note.partition(info.source)[2]


def predictions(info: TradeoffInfo) -> Any:
    """What each objective is expected to be, between the least and the most that was measured."""
    rows = []
    for one in info.outlooks:
        if one.value is None:
            continue
        ends = one.interval or (one.value, one.value)
        known = [place for place in (one.value, one.low, one.high, *ends) if place is not None]
        low, high = min(known), max(known)
        places = span_decimals([low, high])
        interval = f"{number(ends[0], places)} to {number(ends[1], places)}" if one.interval else ""
        rows.append(
            estimate(one.column, one.objective, (one.value, *ends), (low, high), number(one.value, places), interval)
        )
    return html.Div(rows, className="predictions") if rows else note("Nothing is predicted for it.")


def parts_list(info: TradeoffInfo) -> html.Ul:
    """How much of which adapter, the most first."""
    items = [
        html.Li(
            [
                html.Span(part.said, className="value"),
                html.Span(className="fill", style={"width": f"{100 * min(max(part.share, 0), 1):.1f}%"}),
                html.Span(part.name, className="adapter", title=part.name),
            ]
        )
        for part in info.parts
    ]
    return html.Ul(items, className="parts")


def register(app: dash.Dash, watch: Watch) -> None:
    """The callbacks of the panel."""
    names = watch.now().run.objectives
    _add_moves(app, watch, names)
    _add_plan(app, watch, names)
    _add_wishes(app, watch, names)
    if len(names) == 3:
        _add_map(app, watch, names)


def _add_moves(app: dash.Dash, watch: Watch, names: tuple[str, ...]) -> None:
    m = len(names)

    @app.callback(
        Output("weights", "data"),
        *[Output(f"range-{at}", "value") for at in range(m)],
        *[Output(f"number-{at}", "value") for at in range(m)],
        Input("wanted", "data"),
        Input("even", "n_clicks"),
        *[Input(f"range-{at}", "value") for at in range(m)],
        *[Input(f"number-{at}", "value") for at in range(m)],
        State("weights", "data"),
        *[State(f"lock-{at}", "value") for at in range(m)],
        prevent_initial_call=True,
    )
    @in_thread
    def move(asked: Any, _even: int, *rest: Any) -> tuple[Any, ...]:
        given, before, locks = rest[: 2 * m], rest[2 * m], rest[2 * m + 1 :]
        which = dash.ctx.triggered_id
        current = [float(before[name]) for name in names]
        if which == "even":
            return changed(dict.fromkeys(names, 1 / m), None)
        if which == "wanted" and asked:
            return changed(wish_of(asked["weights"], names).weights, None)
        kind, _, at = str(which).partition("-")
        value = given[int(at) + (m if kind == "number" else 0)] if at else None
        if value is None or abs(float(value) - current[int(at)]) < 5e-4:
            return (dash.no_update,) * (1 + 2 * m)
        locked = {other for other, lock in enumerate(locks) if lock and other != int(at)}
        found = moved(current, int(at), float(value), locked)
        return changed(dict(zip(names, found, strict=True)), str(which) if found[int(at)] == value else None)

    def changed(weights: dict[str, float], source: str | None) -> tuple[Any, ...]:
        """The new weights, everywhere but where they came from: a slider that is dragged stays with the hand."""
        values = [weights[name] for name in names]
        ranges = [dash.no_update if source == f"range-{at}" else value for at, value in enumerate(values)]
        return weights, *ranges, *(round(value, 3) for value in values)


def _add_plan(app: dash.Dash, watch: Watch, names: tuple[str, ...]) -> None:
    @app.callback(
        Output("policy", "options"),
        Output("policy", "value"),
        Input("state", "data"),
        State("policy", "value"),
    )
    @in_thread
    def offer(_state: str, chosen: str | None) -> tuple[list[str], str | None]:
        seen = watch.now()
        if not len(seen.front):
            return [], None
        found = works(seen)
        return found, chosen if chosen in found else seen.planner.default

    @app.callback(
        Output("plan", "data"),
        Output("predicted", "children"),
        Output("stands", "children"),
        Output("row", "children"),
        Output("bar", "children"),
        *[Output(f"code-{kind}", "children") for kind in ("weights", "curl", "python")],
        Input("weights", "data"),
        Input("policy", "value"),
        Input("state", "data"),
        Input("live", "data"),
    )
    @in_thread
    def show(weights: dict[str, float], policy: str | None, _state: str, live: dict[str, Any]) -> tuple[Any, ...]:
        seen = watch.now()
        code = snippets(weights, policy, live["origin"], live["chat"])
        bar = bar_text(weights, names)
        if not len(seen.front):
            empty = note("No adapter has been measured yet.")
            return {"values": None}, empty, "", "", bar, *code.values()
        plan = seen.planner.plan(wish_of(weights, names), policy)
        info = tradeoff_info(plan.as_dict(), seen.front, seen.base)
        values = [plan.predicted[name].value for name in names] if plan.predicted else None
        found = {"values": values, "weights": weights, "policy": plan.policy}
        return found, predictions(info), standing(info), parts_list(info), bar, *code.values()


def bar_text(weights: Mapping[str, float], names: tuple[str, ...]) -> str:
    """The trade-off in a line, as the bar of a narrow screen shows it."""
    return " · ".join(f"{short(name, 12)} {weights[name]:.2f}" for name in names if weights[name] > 0.005)


def _add_wishes(app: dash.Dash, watch: Watch, names: tuple[str, ...]) -> None:
    @app.callback(
        Output("found", "children"),
        Output("wanted", "data", allow_duplicate=True),
        Output("policy", "value", allow_duplicate=True),
        Input("find", "n_clicks"),
        State("policy", "value"),
        *[State(f"least-{at}", "value") for at in range(len(names))],
        prevent_initial_call=True,
    )
    @in_thread
    def find(_clicks: int, policy: str | None, *least: float | None) -> tuple[str, Any, Any]:
        given = {name: float(value) for name, value in zip(names, least, strict=True) if value is not None}
        if not given:
            return "Give a number for at least one objective.", dash.no_update, dash.no_update
        seen = watch.now()
        if not len(seen.front):
            return "No adapter has been measured yet.", dash.no_update, dash.no_update
        found = granted(seen, given, works(seen), policy)
        end = "ask for it" if found.reached else "ask for what comes nearest"
        changed = "" if found.offer.policy == policy else f", by policy {found.offer.policy}"
        said = f"{found.note} The weights above{changed} {end}. {limits(seen)}".strip()
        return said, {"weights": found.offer.weights}, found.offer.policy


def _add_map(app: dash.Dash, watch: Watch, names: tuple[str, ...]) -> None:
    @app.callback(
        Output(data_of("simplex"), "data"),
        Input("weights", "data"),
        Input("shade", "value"),
        Input("state", "data"),
    )
    @in_thread
    def draw(weights: dict[str, float], shaded: str | None, _state: str) -> Any:
        seen = watch.now()
        known = seen.calibration if shaded in names else None
        shade = None if known is None else map_shade(known, names, shaded)
        figure = simplex_figure(simplex_info(seen.info, wish_of(weights, names), shade))
        return plain(figure.update_layout(showlegend=shade is not None))

    @app.callback(
        Output("wanted", "data", allow_duplicate=True),
        Output(graph_of("simplex"), "clickData"),
        Input(graph_of("simplex"), "clickData"),
        prevent_initial_call=True,
    )
    @in_thread
    def choose(click: dict[str, Any] | None) -> tuple[Any, None]:
        """What is clicked holds its weights: [adapter, weight, weight, weight]."""
        found = (((click or {}).get("points") or [{}])[0]).get("customdata")
        if not isinstance(found, list) or len(found) != 1 + len(names):
            return dash.no_update, None
        return {"weights": dict(zip(names, map(float, found[1:]), strict=True))}, None
