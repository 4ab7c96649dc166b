"""Texts side by side, as they are written, and what the objectives say of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State, dcc, html

from moalign.dashboards.explorer.parts import attributes, badge, button, in_thread, note, table, view
from moalign.dashboards.wording import number, preference_text, short, span_decimals
from moalign.errors import DataError
from moalign.exploring import Scorers, Seen, Watch
from moalign.serving.names import served_names

FIVE = 5  # points of the front that answer the same prompt
_LONGEST = 100_000  # characters of a text that is scored


@dataclass(frozen=True)
class Live:
    """How texts are asked for: whether as conversations, and the most tokens that a request may ask for."""

    chat: bool
    max_tokens: int


def live_store(live: Live | None) -> dict[str, Any]:
    """What the page knows of it; explorer.js puts in the address under which the page was opened."""
    base = {"origin": "http://127.0.0.1:8000", "on": live is not None}
    return {**base, **asdict(live or Live(True, 128))}


def reading_view(seen: Seen, live: Live | None) -> html.Section:
    """Two columns and a grid of five; without a server that writes, how to start one."""
    about = (
        "The same prompt and the same seed under two trade-offs: A is the current one, B another. Change A while you "
        "read, and ask again."
    )
    if live is None:
        command = html.Code(f"moalign serve {seen.run.folder}")
        how = html.P(["To write texts here, stop this page and open the run with ", command, " instead."])
        return view("read", "Read", about, html.Div(how, className="note"), html.Div(id="answers-unused", hidden=True))
    prompt = dcc.Textarea(id="prompt", value=_first(seen), rows=3, maxLength=8000)
    return view(
        "read",
        "Read",
        about,
        html.Label([html.Span("Prompt"), prompt], className="field tall"),
        html.Div(
            [
                _number("seed", "Seed", 0, 0, 2**31),
                _number("tokens", "At most tokens", min(128, live.max_tokens), 1, live.max_tokens),
                _number("heat", "Temperature", 1, 0, 2),
                button("Ask both", "ask", "main"),
                button("Ask five points of the front", "ask-five"),
                button("Stop", "stop", "quiet"),
            ],
            className="line wrap",
        ),
        html.Div(
            [
                _column("a", "A", html.P(id="name-a", className="who")),
                _column(
                    "b",
                    "B",
                    html.Label(
                        [
                            html.Span("Trade-off of B", className="unseen"),
                            dcc.Dropdown(id="other", options=[], value="base", clearable=False, maxHeight=300),
                        ],
                        className="who",
                    ),
                    button("Keep the current one as B", "keep", "quiet"),
                ),
            ],
            className="two",
        ),
        html.Div(id="scores"),
        html.Div(id="five", className="five", **attributes(aria_live="polite")),
        html.Div(id="five-scores"),
    )


def _number(name: str, label: str, value: int, low: int, high: int) -> html.Label:
    field = dcc.Input(id=name, type="number", value=value, min=low, max=high, step="any", debounce=True)
    return html.Label([html.Span(label), field], className="field small")


def _column(name: str, letter: str, *head: Any) -> html.Article:
    return html.Article(
        [
            html.Div([html.Span(letter, className="letter"), *head], className="head"),
            # Written by explorer.js, as text.
            html.P(id=f"text-{name}", className="said", **attributes(aria_live="polite", aria_label=f"Text {letter}")),
            html.P(id=f"state-{name}", className="about"),
        ],
        className="answer",
    )


def _first(seen: Seen) -> str:
    return seen.samples[0].prompt if seen.samples else ""


def others(seen: Seen) -> list[dict[str, str]]:
    """Who may stand in column B: the base and every point by the name that the server knows it by."""
    found = [{"label": "base model", "value": "base"}]
    if not len(seen.front):
        return found
    names = seen.front.objectives
    return found + [
        {"label": preference_text(point.preference, names), "value": name}
        for name, point in served_names(seen.run).items()
    ]


def five_points(seen: Seen) -> list[dict[str, str]]:
    """Five points of the front, from one end of it to the other by the first objective, by their served names."""
    if not len(seen.front):
        return []
    names = {point.adapter: name for name, point in served_names(seen.run).items()}
    first = seen.front.objectives[0]
    along = sorted(seen.on_front, key=lambda point: point.values[first])
    places = {round(at * (len(along) - 1) / max(FIVE - 1, 1)) for at in range(FIVE)}
    return [
        {"model": names[along[at].adapter], "label": preference_text(along[at].preference, seen.front.objectives)}
        for at in sorted(places)
    ]


def scored(
    names: Sequence[str], heads: Sequence[str], scores: Sequence[Mapping[str, float]], compare: bool
) -> html.Div | html.P:
    """Scores of texts in a table, a column each; of two, how the second differs from the first, by sign and word."""
    known = [name for name in names if all(name in each for each in scores)]
    if not known or not scores:
        return note("No objective of this run can score a text by itself.")
    rows = []
    for name in known:
        values = [each[name] for each in scores]
        places = span_decimals(values)
        row: list[Any] = [
            html.Span([badge(list(names).index(name)), short(name)]),
            *(number(v, places) for v in values),
        ]
        if compare:
            row.append(difference(values[1] - values[0], places))
        elif max(values) > min(values):
            best = values.index(max(values))
            row[best + 1] = html.Span([html.Strong(row[best + 1]), html.Span(" ▲ most", className="mark")])
        rows.append(row)
    left = [short(name) for name in names if name not in known]
    missing = [note(f"Learned from pairs, and not scored here: {', '.join(left)}.")] if left else []
    last = ["B less A"] if compare else []
    return html.Div([table(["score", *heads, *last], rows, "Scores of the texts"), *missing])


def difference(less: float, places: int) -> str:
    """A difference by sign and word.

    >>> difference(0.5, 1), difference(-0.5, 1), difference(0.0, 1)
    ('▲ 0.5 more in B', '▼ 0.5 less in B', '= the same')
    """
    if round(less, places) == 0:
        return "= the same"
    return f"▲ {number(less, places)} more in B" if less > 0 else f"▼ {number(-less, places)} less in B"


def register(app: dash.Dash, watch: Watch, scorers: Scorers, live: Live | None) -> None:
    """The callbacks of the view; the texts themselves come by explorer.js from the server's own interface."""
    if live is None:
        return
    names = watch.now().run.objectives
    asking = [State(name, "value") for name in ("prompt", "seed", "tokens", "heat")]
    app.clientside_callback(
        ClientsideFunction("explorer", "ask"),
        Output("asked", "data"),
        Input("ask", "n_clicks"),
        *asking,
        State("plan", "data"),
        State("other", "value"),
        State("kept", "data"),
        State("live", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("explorer", "askFive"),
        Output("asked", "data", allow_duplicate=True),
        Input("ask-five", "n_clicks"),
        *asking,
        State("points-five", "data"),
        State("live", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("explorer", "stop"),
        Output("asked", "data", allow_duplicate=True),
        Input("stop", "n_clicks"),
        prevent_initial_call=True,
    )
    _add_names(app, watch, names)
    _add_scores(app, watch, scorers, live.chat)


def _add_scores(app: dash.Dash, watch: Watch, scorers: Scorers, chat: bool) -> None:
    names = watch.now().run.objectives

    @app.callback(
        Output("scores", "children"),
        Output("five-scores", "children"),
        Input("said", "data"),
        prevent_initial_call=True,
    )
    @in_thread
    def score(said: dict[str, Any] | None) -> tuple[Any, Any]:
        """Score texts that have been written to their end; none while others are being written."""
        if not said:
            return dash.no_update, dash.no_update
        texts = [str(text) for text in said["texts"]]
        if len(texts) > FIVE or sum(map(len, texts)) > _LONGEST:
            raise DataError(f"{len(texts)} texts are too much to score here; expected at most {FIVE}, and short ones")
        asked = [{"role": "user", "content": said["prompt"]}] if chat else said["prompt"]
        found = scorers.score(watch.now().run, asked, texts)
        compare = said["kind"] == "two"
        shown = scored(names, ["A", "B"] if compare else [str(head) for head in said["heads"]], found, compare)
        return (shown, None) if compare else (dash.no_update, shown)


def _add_names(app: dash.Dash, watch: Watch, names: tuple[str, ...]) -> None:
    @app.callback(
        Output("other", "options"),
        Output("points-five", "data"),
        Input("state", "data"),
        Input("kept", "data"),
    )
    @in_thread
    def offer(_state: str, kept: dict[str, Any] | None) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        seen = watch.now()
        own = [{"label": f"kept: {kept['label']}", "value": "kept"}] if kept else []
        return own + others(seen), five_points(seen)

    @app.callback(
        Output("kept", "data"),
        Output("other", "value"),
        Input("keep", "n_clicks"),
        State("plan", "data"),
        prevent_initial_call=True,
    )
    @in_thread
    def keep(_clicks: int, plan: dict[str, Any]) -> tuple[Any, str]:
        label = " · ".join(f"{short(name, 14)} {plan['weights'][name]:.2f}" for name in names)
        return {"weights": plan["weights"], "policy": plan["policy"], "label": label}, "kept"

    @app.callback(Output("name-a", "children"), Input("bar", "children"))
    @in_thread
    def name(bar: str) -> str:
        return f"current: {bar}"
