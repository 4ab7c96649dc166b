"""Weights from picks: the better of two texts, a few times, and the trade-off follows."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import dash
import numpy as np
from dash import Input, Output, State, html
from jaxtyping import Float

from moalign.dashboards.explorer.parts import attributes, button, estimate, in_thread, note, view
from moalign.dashboards.records import Sample
from moalign.dashboards.wording import number
from moalign.errors import DataError
from moalign.exploring import Seen, Watch
from moalign.frontiers.judging import SETTLED, Judgement, information, judge, next_pair, own_units

_PROMPTS = 6  # of which the most telling pair is chosen
_MOST = 60  # picks


def examples_view(seen: Seen) -> html.Section:
    """Two texts and three answers; below, what is known of the weights."""
    about = (
        "Pick the better of two texts that points of the front gave to the same prompt. After a few picks the weights "
        "are known well enough to be used."
    )
    if not candidates(seen):
        return view(
            "examples", "Tell me by example", about, note("No two texts with all scores are stored in this run.")
        )
    return view(
        "examples",
        "Tell me by example",
        about,
        html.P(id="pick-prompt", className="asked"),
        html.Div(
            [
                html.Article(
                    [
                        html.P(id=f"pick-text-{letter}", className="said"),
                        button(f"{letter.upper()} is better", f"pick-{letter}", "main"),
                    ],
                    className="answer",
                )
                for letter in "ab"
            ],
            className="two",
        ),
        html.Div(
            [button("Neither: another pair", "pick-skip", "quiet"), button("Begin again", "pick-reset", "quiet")],
            className="line",
        ),
        html.P(id="pick-state", className="note", **attributes(aria_live="polite")),
        html.Div(id="pick-weights"),
        button("Use these weights", "pick-use", "", disabled=True),
    )


@lru_cache(maxsize=4)
def candidates(seen: Seen) -> dict[str, list[Sample]]:
    """The different texts of each prompt that have every score, for prompts with at least two."""
    names = seen.run.objectives
    found: dict[str, dict[str, Sample]] = {}
    for sample in seen.samples:
        if all(np.isfinite(sample.scores.get(name, np.nan)) for name in names) and sample.response.strip():
            found.setdefault(sample.prompt, {}).setdefault(sample.response, sample)
    return {prompt: list(texts.values()) for prompt, texts in found.items() if len(texts) > 1}


@lru_cache(maxsize=4)
def units(seen: Seen) -> Float[np.ndarray, " m"]:
    """The range of each objective over all texts; 1 for a flat one."""
    scores = scores_of(seen, [text for texts in candidates(seen).values() for text in texts])
    span = np.ptp(scores, axis=0)
    return np.where(span > 0, span, 1.0)


def scores_of(seen: Seen, texts: Sequence[Sample]) -> Float[np.ndarray, "n m"]:
    """The scores of texts, in the objectives' own units."""
    return np.array([[text.scores[name] for name in seen.run.objectives] for text in texts])


def picked(rows: Any, m: int) -> Float[np.ndarray, "n m"]:
    """The picks that a page remembers, as differences. Raises DataError for what no page of this run sends."""
    try:
        found = np.array(rows, dtype=float).reshape(-1, m)
    except (TypeError, ValueError) as error:
        raise DataError("the picks of this page are of another run; begin again") from error
    if len(found) > _MOST or not np.isfinite(found).all():
        raise DataError(f"{len(found)} picks; expected at most {_MOST} finite ones: begin again")
    return found


def offered(seen: Seen, judgement: Judgement, asked: Sequence[str], turn: int) -> dict[str, Any] | None:
    """The pair of texts that says most, of a few prompts whose turn it is; None where no pair says anything.

    `asked` are the pairs that were shown already, as `pair_key` writes them.
    """
    prompts, scale, m = list(candidates(seen)), units(seen), len(seen.run.objectives)
    best: tuple[float, dict[str, Any]] | None = None
    for at in range(min(_PROMPTS, len(prompts))):
        prompt = prompts[(turn * _PROMPTS + at) % len(prompts)]
        texts = candidates(seen)[prompt]
        scores = scores_of(seen, texts) / scale
        done = [
            (i, j)
            for key in asked
            for named, i, j in [json.loads(key)]
            if named == prompts.index(prompt) and i < len(texts) and j < len(texts)
        ]
        pair = next_pair(scores, judgement, done)
        if pair is None:
            continue
        first, second = pair
        difference = (scores[first] - scores[second]).reshape(1, m)
        bits = float(information(difference, judgement)[0])
        if best is None or bits > best[0]:
            best = (bits, {"prompt": prompts.index(prompt), "a": first, "b": second})
    return None if best is None else best[1]


def pair_key(pair: Mapping[str, int]) -> str:
    """A pair in a word that JSON can hold."""
    return json.dumps([pair["prompt"], pair["a"], pair["b"]])


def register(app: dash.Dash, watch: Watch) -> None:
    """The callbacks of the view; what was picked stands in the page alone."""
    if not candidates(watch.now()):
        return
    names = watch.now().run.objectives

    @app.callback(
        Output("picks", "data"),
        Output("judged", "data"),
        Output("pick-prompt", "children"),
        *[Output(f"pick-text-{letter}", "children") for letter in "ab"],
        *[Output(f"pick-text-{letter}", "data-scores") for letter in "ab"],
        *[Output(f"pick-{letter}", "disabled") for letter in "ab"],
        Output("pick-state", "children"),
        Output("pick-weights", "children"),
        Output("pick-use", "disabled"),
        *[Input(f"pick-{what}", "n_clicks") for what in ("a", "b", "skip", "reset")],
        State("picks", "data"),
    )
    @in_thread
    def pick(*values: Any) -> tuple[Any, ...]:
        seen, told = watch.now(), dash.ctx.triggered_id
        before = values[-1] if told in ("pick-a", "pick-b", "pick-skip") else None
        after = taken(seen, before, str(told).removeprefix("pick-"))
        judgement = judge(picked(after["rows"], len(names)), 0)
        after["pair"] = offered(seen, judgement, after["asked"], len(after["asked"]))
        return shown(seen, after, judgement)

    @app.callback(
        Output("wanted", "data", allow_duplicate=True),
        Input("pick-use", "n_clicks"),
        State("judged", "data"),
        prevent_initial_call=True,
    )
    @in_thread
    def use(_clicks: int, judged: dict[str, float] | None) -> Any:
        return {"weights": judged} if judged else dash.no_update


def taken(seen: Seen, before: dict[str, Any] | None, answer: str) -> dict[str, Any]:
    """What a page remembers after an answer ("a", "b", "skip"; anything else begins again)."""
    if not before or before.get("run") != list(seen.run.objectives):
        return {"run": list(seen.run.objectives), "token": seen.token, "rows": [], "asked": [], "pair": None}
    if before["token"] != seen.token:  # the texts may be others now; the picks stay
        return {**before, "token": seen.token, "asked": [], "pair": None}
    pair = before["pair"]
    if not pair:
        return before
    rows = list(before["rows"])
    if answer in ("a", "b"):
        texts = candidates(seen)[list(candidates(seen))[pair["prompt"]]]
        scores = scores_of(seen, texts) / units(seen)
        better, worse = (pair["a"], pair["b"]) if answer == "a" else (pair["b"], pair["a"])
        rows.append((scores[better] - scores[worse]).tolist())
    return {**before, "rows": rows, "asked": [*before["asked"], pair_key(pair)], "pair": None}


def shown(seen: Seen, state: dict[str, Any], judgement: Judgement) -> tuple[Any, ...]:
    """What the view shows, in the order of its outputs."""
    names, count = seen.run.objectives, len(state["rows"])
    own = own_units(judgement.mean, units(seen))
    weights = dict(zip(names, own.tolist(), strict=True))
    said = progress(count, judgement)
    pair = state["pair"] if count < _MOST else None
    if pair is None:
        texts: list[Any] = [None, None]
        prompt, said = "", said + " No pair is left that would say more."
    else:
        prompt = list(candidates(seen))[pair["prompt"]]
        texts = [candidates(seen)[prompt][pair[side]] for side in "ab"]
    return (
        state,
        weights if count else None,
        prompt,
        *(text.response if text else "" for text in texts),
        *(json.dumps(text.scores) if text else None for text in texts),
        *(text is None for text in texts),
        said,
        bars(names, judgement) if count else None,
        not count,
    )


def progress(count: int, judgement: Judgement) -> str:
    """How well the weights are known after so many picks."""
    if not count:
        return "No picks yet."
    known = f"After {count} {'pick' if count == 1 else 'picks'} the weights are known to about {judgement.spread:.0f}°"
    return (
        f"{known}: settled, more would change little."
        if judgement.settled
        else f"{known}; at {SETTLED:.0f}° they are settled."
    )


def bars(names: Sequence[str], judgement: Judgement) -> html.Div:
    """The weights with the interval that holds 90 % of each, per range of the texts' scores."""
    rows = []
    for at, name in enumerate(names):
        mean, low, high = float(judgement.mean[at]), *map(float, judgement.interval[at])
        said = f"{number(low, 2)} to {number(high, 2)}"
        rows.append(estimate(at, name, (mean, low, high), (0.0, 1.0), number(mean, 2), said))
    about = (
        "Weights per range of the texts' scores, with 90 % intervals. What is used is the same in the objectives' own "
        "units."
    )
    return html.Div(
        [
            html.H3("What your picks say"),
            html.Div(rows, className="predictions"),
            html.P(about, className="about"),
        ]
    )
