"""Texts side by side, written now or stored when the points were measured, and what the objectives say of them."""

from collections.abc import Mapping
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State, dcc, html

from moalign.dashboards.explorer.live import Live
from moalign.dashboards.explorer.parts import attributes, button, chooser, in_thread, listed, view
from moalign.dashboards.explorer.scores import Told, add_scores, scored
from moalign.dashboards.explorer.stored import five_points, others, shown_stored, stored_prompts
from moalign.dashboards.records import BASE
from moalign.dashboards.wording import short
from moalign.errors import DataError
from moalign.exploring import Scorers, Seen, Watch, wish_of

_SHOWN = 150  # characters of a prompt in a list


def reading_view(seen: Seen, live: Live | None) -> html.Section:
    """Two columns and a grid of five; without a server that writes, of stored samples alone."""
    about = "The same prompt under two trade-offs: A is the current one, B another. Move A while you read."
    source = "stored" if live is None else "live"
    return view(
        "read",
        "Read",
        about,
        dcc.Store(id="stored"),
        html.Div(
            [
                _sources(live),
                *(() if live is None else _asking(seen, live)),
                _choosing(seen, live),
                html.P(id="reading-state", className="about state", role="status"),
                html.Div(
                    [
                        _column(
                            "a", "A", html.P(id="name-a", className="who"), button("Keep it as B", "keep", "quiet")
                        ),
                        _column("b", "B", _others()),
                    ],
                    className="two",
                ),
                html.Div([html.Div(id="scores")], className="only-live"),
                html.Div([html.Div(id="stored-scores")], className="only-stored"),
                html.H3("Five points of the front"),
                html.P("From one end of the front to the other, for the same prompt.", className="about"),
                button("Ask five points of the front", "ask-five", "only-live") if live else None,
                html.Div(id="five", className="five"),
                html.Div([html.Div(id="five-scores")], className="only-live"),
                html.Div([html.Div(id="stored-five-scores")], className="only-stored"),
            ],
            id="reading",
            **attributes(data_source=source),
        ),
    )


def _sources(live: Live | None) -> html.Div:
    options = [{"label": "written now", "value": "live"}, {"label": "stored samples", "value": "stored"}]
    radio = dcc.RadioItems(id="source", options=options, value="live" if live else "stored", className="choice")
    return html.Div(
        [html.Span("Texts"), radio],
        className="field",
        role="group",
        hidden=live is None,
        **attributes(aria_label="Which texts are shown"),
    )


def _asking(seen: Seen, live: Live) -> tuple[html.Div, ...]:
    prompts = stored_prompts(seen)
    prompt = dcc.Textarea(id="prompt", value=prompts[0] if prompts else "", rows=3, dir="auto")
    return (
        html.Div(
            [
                html.Label([html.Span("Prompt"), prompt], className="field tall"),
                html.Div(
                    [
                        _number("seed", "Seed", 0, 0, 2**31),
                        _number("tokens", "At most tokens", min(live.usual, live.max_tokens), 1, live.max_tokens),
                        _number("heat", "Temperature", 1, 0, 2),
                        button("Ask both", "ask", "main"),
                        button("Stop", "stop", "quiet"),
                    ],
                    className="line wrap",
                ),
            ],
            className="only-live",
        ),
    )


def _choosing(seen: Seen, live: Live | None) -> html.Div:
    """What can be chosen of the stored texts, and what they are."""
    prompts = stored_prompts(seen)
    how = (
        ""
        if live or not len(seen.front)
        else " To have texts written here for any prompt, stop this page and open the run with "
    )
    command = () if not how else (html.Code(f"moalign serve {seen.run.folder.resolve().name}"), " instead.")
    about = (
        "Stored samples: what measured points wrote when they were measured. Each column shows the point that is "
        "nearest to its trade-off."
        if prompts
        else "No texts are stored in this run yet."
    )
    options = [{"label": short(prompt, _SHOWN), "value": at} for at, prompt in enumerate(prompts)]
    prompt = dcc.Dropdown(id="stored-prompt", options=listed(options), value=0, clearable=False, maxHeight=320)
    return html.Div(
        [
            html.P([about, how, *command], className="note"),
            html.Div(
                [
                    chooser("Prompt of this run", prompt),
                    html.P(id="stored-asked", className="asked", dir="auto"),
                    button("Another sample", "another"),
                ],
                hidden=not prompts,
            ),
        ],
        className="only-stored",
    )


def _others() -> html.Label:
    found = dcc.Dropdown(id="other", options=[], value=BASE, clearable=False, maxHeight=300)
    return chooser("Trade-off of B", found, "who", unseen=True)


def _number(name: str, label: str, value: int, low: int, high: int) -> html.Label:
    field = dcc.Input(id=name, type="number", value=value, min=low, max=high, step="any", debounce=True)
    return html.Label([html.Span(label), field], className="field small")


def _column(name: str, letter: str, *head: Any) -> html.Article:
    # texts.js writes these two, as text. A reader of the screen is told once, when a text has come to its end.
    said = html.P(
        id=f"text-{name}",
        className="said",
        tabIndex=0,
        dir="auto",
        role="group",
        **attributes(aria_label=f"Text {letter}"),
    )
    return html.Article(
        [
            html.Div([html.Span(letter, className="letter"), *head], className="head"),
            said,
            html.P(id=f"state-{name}", className="about state"),
        ],
        className="answer",
    )


def register(app: dash.Dash, watch: Watch, scorers: Scorers, live: Live | None) -> None:
    """The callbacks of the view; texts that are written now come by texts.js from the server's own interface."""
    app.clientside_callback(
        ClientsideFunction("texts", "source"), Output("reading", "data-source"), Input("source", "value")
    )
    app.clientside_callback(
        ClientsideFunction("texts", "stored"),
        Output("asked", "data"),
        Input("stored", "data"),
        State("source", "value"),
    )
    _add_names(app, watch)
    _add_stored(app, watch)
    if live is not None:
        _add_asking(app)
        add_scores(app, watch, scorers, live.chat)


def _add_asking(app: dash.Dash) -> None:
    asking = [State(name, "value") for name in ("prompt", "seed", "tokens", "heat")]
    app.clientside_callback(
        ClientsideFunction("texts", "ask"),
        Output("asked", "data", allow_duplicate=True),
        Input("ask", "n_clicks"),
        *asking,
        State("plan", "data"),
        State("other", "value"),
        State("kept", "data"),
        State("live", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("texts", "askFive"),
        Output("asked", "data", allow_duplicate=True),
        Input("ask-five", "n_clicks"),
        *asking,
        State("points-five", "data"),
        State("live", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("texts", "stop"),
        Output("asked", "data", allow_duplicate=True),
        Input("stop", "n_clicks"),
        prevent_initial_call=True,
    )


def _add_names(app: dash.Dash, watch: Watch) -> None:
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
        return own + listed(others(seen)), five_points(seen)

    @app.callback(
        Output("kept", "data"),
        Output("other", "value"),
        Input("keep", "n_clicks"),
        State("plan", "data"),
        prevent_initial_call=True,
    )
    @in_thread
    def keep(_clicks: int, plan: dict[str, Any] | None) -> tuple[Any, Any]:
        if not plan or "weights" not in plan:
            raise DataError("nothing is planned yet, so that there is nothing to keep")
        label = " · ".join(f"{short(name, 14)} {weight:.2f}" for name, weight in plan["weights"].items())
        return {"weights": plan["weights"], "policy": plan["policy"], "label": label}, "kept"

    @app.callback(Output("name-a", "children"), Input("bar", "children"))
    @in_thread
    def name(bar: str | None) -> str:
        return f"current: {bar}" if bar else ""


def _add_stored(app: dash.Dash, watch: Watch) -> None:
    @app.callback(
        Output("stored", "data"),
        Output("stored-asked", "children"),
        Output("stored-scores", "children"),
        Output("stored-five-scores", "children"),
        Input("source", "value"),
        Input("stored-prompt", "value"),
        Input("another", "n_clicks"),
        Input("plan", "data"),
        Input("other", "value"),
        Input("state", "data"),
        State("kept", "data"),
        State("weights", "data"),
    )
    @in_thread
    def show(
        source: str | None,
        at: int | None,
        turn: int | None,
        plan: Any,
        other: str | None,
        _state: Any,
        kept: Any,
        weights: Any,
    ) -> Any:
        """Texts that are stored, for whatever A and B are now."""
        seen = watch.now()
        prompts, names = stored_prompts(seen), seen.run.objectives
        if source != "stored" or not prompts:
            return None, "", None, None
        prompt = prompts[min(int(at or 0), len(prompts) - 1)]
        asked = (plan or {}).get("weights") or weights
        wish_of(asked, names)  # of this run
        found = shown_stored(seen, prompt, turn or 0, asked, other or BASE, (kept or {}).get("weights"))
        two, five = (
            [Told(head, each["scores"], each["mean"]) for head, each in zip(heads, found[kind], strict=True)]
            for kind, heads in (("two", ("A", "B")), ("five", [each["head"] for each in found["five"]]))
        )
        told = {kind: [_written(each) for each in voices] for kind, voices in found.items()}
        long = prompt if short(prompt, _SHOWN) != prompt else ""
        return told, long, scored(names, two, True), scored(names, five, False) if five else None


def _written(voice: Mapping[str, Any]) -> dict[str, Any]:
    return {name: voice[name] for name in ("text", "state", "head") if name in voice}
