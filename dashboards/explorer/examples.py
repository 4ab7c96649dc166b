"""Weights from picks: the better of two texts, a few times, and the trade-off follows."""

import json
from collections.abc import Sequence
from typing import Any

import dash
import numpy as np
from dash import ClientsideFunction, Input, Output, State, dcc, html

from moalign.dashboards.explorer.copying import add_copies, copies_view
from moalign.dashboards.explorer.live import Live
from moalign.dashboards.explorer.parts import attributes, button, estimate, in_thread, note, view
from moalign.dashboards.explorer.picks import (
    PICKS,
    candidates,
    judged,
    offered,
    pool_of,
    read_state,
    taken,
    texts_by_key,
    weights_of,
    weights_under,
    with_own,
)
from moalign.dashboards.explorer.scores import scores_of
from moalign.dashboards.wording import listing, number, short
from moalign.errors import DataError
from moalign.exploring import Scorers, Seen, Watch
from moalign.frontiers.judging import SETTLED, Judgement

_ANSWERS = ("a", "b", "skip", "undo", "on", "reset")


def examples_view(seen: Seen, live: Live | None = None) -> html.Section:
    """Two texts and three answers; below, what is known of the weights."""
    about = (
        "Pick the better of two texts that were written for the same prompt under different trade-offs. After a few "
        "picks the weights are known well enough to be used."
    )
    if candidates(seen) or _can_write(seen, live):
        return view("examples", "Tell me by example", about, *_parts(seen, live))
    # A sweep may bring texts: the callbacks are there, and find what they belong to when the page is loaded again.
    none = note("No two texts with all scores are stored in this run yet; load the page again when there are.")
    return view("examples", "Tell me by example", about, none, html.Div(_parts(seen, live), hidden=True))


def _parts(seen: Seen, live: Live | None) -> list[Any]:
    return [
        dcc.Store(id="own-said"),
        _sources(seen, live),
        _own(seen, live),
        html.Div(
            [
                html.P(id="pick-prompt", className="asked", dir="auto"),
                html.Div([_text(letter) for letter in "ab"], className="two"),
            ],
            id="pick-pair",
        ),
        html.Div(
            [
                button("Neither: another pair", "pick-skip", "quiet"),
                button("Undo the last one", "pick-undo", "quiet"),
                button("Begin again", "pick-reset", "quiet"),
            ],
            className="line wrap",
        ),
        html.P(id="pick-state", className="note", role="status", tabIndex=-1),
        html.Div(id="pick-weights"),
        html.Div(
            [
                button("Use these weights", "pick-use", "main", disabled=True),
                button("Go on picking", "pick-on", "", hidden=True),
            ],
            className="line wrap",
        ),
        copies_view(),
    ]


def _text(letter: str) -> html.Article:
    said = html.P(id=f"pick-text-{letter}", className="said", tabIndex=0, dir="auto")
    return html.Article([said, button(f"{letter.upper()} is better", f"pick-{letter}", "main")], className="answer")


def _learned(seen: Seen) -> list[str]:
    """The objectives that score no new text by themselves."""
    return [name for name, settings in seen.run.config.objectives.items() if settings.type is None]


def _can_write(seen: Seen, live: Live | None) -> bool:
    return live is not None and not _learned(seen)


def _sources(seen: Seen, live: Live | None) -> html.Div:
    """Whose prompts: those of the run, or one's own, where texts can be written and all objectives score them."""
    options: list[Any] = [
        {"label": "prompts of this run", "value": "run", "disabled": not candidates(seen)},
        {"label": "a prompt of my own", "value": "own", "disabled": not _can_write(seen, live)},
    ]
    radio = dcc.RadioItems(
        id="pick-from", options=options, value="run" if candidates(seen) else "own", className="choice"
    )
    if live is None:
        why = ""
    elif learned := _learned(seen):
        verb = "is" if len(learned) == 1 else "are"
        why = (
            f"New texts cannot be judged here: {listing([short(name) for name in learned])} {verb} learned from pairs."
        )
    else:
        why = ""
    parts = [html.Span("Texts for"), radio, html.P(why, className="about", hidden=not why)]
    group = attributes(aria_label="Prompts of the texts")
    return html.Div(parts, className="field", role="group", hidden=live is None, **group)


def _own(seen: Seen, live: Live | None) -> html.Div:
    """A prompt of one's own, and texts for it from five points of the front."""
    prompt = dcc.Textarea(id="own-prompt", value="", rows=3, dir="auto")
    return html.Div(
        [
            html.Label([html.Span("Your prompt"), prompt], className="field tall"),
            html.Div(
                [button("Write five texts for it", "own-ask", ""), button("Stop", "own-stop", "quiet")],
                className="line wrap",
            ),
            html.P(id="own-state", className="about state", role="status"),
        ],
        id="own",
        hidden=bool(candidates(seen)),
    )


def register(app: dash.Dash, watch: Watch, scorers: Scorers, live: Live | None) -> None:
    """The callbacks of the view; what was picked stands in the page alone."""
    _add_picks(app, watch, scorers, live)
    _add_uses(app, watch)
    add_copies(app, watch)
    app.clientside_callback(
        ClientsideFunction("texts", "ended"),
        Output("asked", "data", allow_duplicate=True),
        Input("pick-pair", "hidden"),
        prevent_initial_call=True,
    )
    if live is None:
        return
    app.clientside_callback(
        ClientsideFunction("texts", "askOwn"),
        Output("asked", "data", allow_duplicate=True),
        Input("own-ask", "n_clicks"),
        State("own-prompt", "value"),
        State("points-five", "data"),
        State("live", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("texts", "stopOwn"),
        Output("asked", "data", allow_duplicate=True),
        Input("own-stop", "n_clicks"),
        prevent_initial_call=True,
    )


def _add_picks(app: dash.Dash, watch: Watch, scorers: Scorers, live: Live | None) -> None:
    chat = live is None or live.chat

    @app.callback(
        Output("picks", "data"),
        Output("judged", "data"),
        Output("pick-prompt", "children"),
        *[Output(f"pick-text-{letter}", "children") for letter in "ab"],
        *[Output(f"pick-text-{letter}", "data-scores") for letter in "ab"],
        *[Output(f"pick-{name}", "disabled") for name in ("a", "b", "skip", "undo", "use")],
        *[Output(name, "hidden") for name in ("pick-pair", "pick-on", "own", "pick-copies")],
        Output("pick-state", "children"),
        Output("pick-state", "className"),
        Output("pick-weights", "children"),
        *[Input(f"pick-{answer}", "n_clicks") for answer in _ANSWERS],
        Input("pick-from", "value"),
        Input("own-said", "data"),
        State("picks", "data"),
    )
    @in_thread
    def pick(*values: Any) -> tuple[Any, ...]:
        """One answer, and the next pair."""
        seen, told = watch.now(), str(dash.ctx.triggered_id)
        chosen, said, sent = values[-3:]
        state, own = read_state(seen, sent), chosen == "own"
        if told == "own-said" and said:
            scores = _scores(seen, scorers, said, chat)
            state = {**with_own(state, said["prompt"], said["texts"], scores), "pair": None}
        elif told == "pick-from":
            state = {**state, "pair": None}
        return shown(seen, taken(seen, state, told.removeprefix("pick-")), own)


def _scores(seen: Seen, scorers: Scorers, said: dict[str, Any], chat: bool) -> list[list[float]]:
    """The scores of texts for a prompt of one's own, a row each. Raises DataError where an objective has no score."""
    found = [each or {} for each in scores_of(seen, scorers, str(said["prompt"]), said["texts"], chat)]
    rows = [[float(each.get(name, np.nan)) for name in seen.run.objectives] for each in found]
    if not np.isfinite(np.array(rows)).all():
        raise DataError("not every objective has a finite score for these texts; have others written")
    return rows


def _add_uses(app: dash.Dash, watch: Watch) -> None:
    @app.callback(
        Output("wanted", "data", allow_duplicate=True),
        Input("pick-use", "n_clicks"),
        State("judged", "data"),
        State("policy", "value"),
        prevent_initial_call=True,
    )
    @in_thread
    def use(_clicks: int, judged: dict[str, float] | None, policy: str | None) -> Any:
        return {"weights": weights_under(watch.now(), judged, policy)} if judged else dash.no_update


def shown(seen: Seen, state: dict[str, Any], own: bool) -> tuple[Any, ...]:
    """What the view shows, in the order of its outputs."""
    names, count, judgement = seen.run.objectives, len(state["rows"]), judged(seen, state)
    stop = (judgement.settled and count and not state["on"]) or count >= PICKS
    texts, pair = texts_by_key(seen, state), None if stop else state["pair"]
    if not stop and not (pair and set(pair) <= set(texts)):  # an undone pair is offered again
        pair = offered(seen, state, judgement, pool_of(seen, state, own))
    two = [texts[key] for key in pair] if pair else [None, None]
    ended = "" if pair else ending(count, judgement, own, bool(state["own"]))
    return (
        {**state, "pair": pair},
        weights_of(seen, judgement) if count else None,
        two[0].prompt if two[0] else "",
        *(text.response if text else "" for text in two),
        *(json.dumps(dict(zip(names, text.scores.tolist(), strict=True))) if text else None for text in two),
        *[not pair] * 3,
        not state["asked"],
        not count,
        not pair,
        not (judgement.settled and count and not state["on"] and count < PICKS),
        not own,
        not count,
        ended or progress(count, judgement),
        "note ended" if ended and count else "note",
        bars(names, judgement) if count else None,
    )


def progress(count: int, judgement: Judgement) -> str:
    """How well the weights are known after so many picks, and when they will be known well enough."""
    if not count:
        return "No picks yet."
    return f"{_known(count, judgement)}; at {SETTLED:.0f}° they are settled."


def ending(count: int, judgement: Judgement, own: bool, written: bool) -> str:
    """Why there is nothing to pick."""
    if own and not written:
        return "Have texts written for your prompt, and pick from them."
    if not count:
        return "These texts do not differ in what they score: there is nothing to pick. Have others written."
    if judgement.settled:
        return f"Settled. {_known(count, judgement)}, and more picks would change little."
    if count >= PICKS:
        return f"{_known(count, judgement)}. That is as many picks as this page takes: these texts tell no more."
    more = "Have others written, or use what is known." if own else "Use what is known."
    return f"{_known(count, judgement)}. No pair is left that would say more. {more}"


def _known(count: int, judgement: Judgement) -> str:
    picks = "pick" if count == 1 else "picks"
    return f"After {count} {picks} the weights are known to about {judgement.spread:.0f}°"


def bars(names: Sequence[str], judgement: Judgement) -> html.Div:
    """The weights with the interval that holds 90 % of each, per range of the texts' scores."""
    rows = []
    for at, name in enumerate(names):
        mean, low, high = float(judgement.mean[at]), *map(float, judgement.interval[at])
        said = f"{number(low, 2)} to {number(high, 2)}"
        rows.append(estimate(at, name, (mean, low, high), (0.0, 1.0), number(mean, 2), said))
    about = (
        "How much the whole range of an objective's stored scores counts, with 90 % intervals. What is used and "
        "copied is the same in the units of the run's own weights."
    )
    return html.Div(
        [
            html.H3("What your picks say"),
            html.Div(rows, className="predictions"),
            html.P(about, className="about"),
        ]
    )
