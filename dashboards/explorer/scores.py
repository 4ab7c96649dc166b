"""What the objectives say of texts that stand side by side, and what their trade-offs attain on average."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash
from dash import Input, Output, html

from moalign.dashboards.explorer.parts import badge, in_thread, note, table
from moalign.dashboards.wording import listing, number, short, span_decimals
from moalign.errors import DataError, UserError
from moalign.exploring import Scorers, Seen, Watch, wish_of

MOST = 5  # texts that are scored at once
_LONGEST = 400_000  # characters of all of them
_MIXED = "moalign"  # the model whose mixture follows a request's weights


@dataclass(frozen=True)
class Told:
    """A text's heading, its scores (None: no text), and the averages of whoever wrote it, where they are known."""

    head: str
    scores: Mapping[str, float] | None
    mean: Mapping[str, float]


def scored(names: Sequence[str], told: Sequence[Told], compare: bool) -> html.Div | html.P:
    """A table with a column for each text; of two, how the second differs from the first, by sign and word."""
    there = [each.scores for each in told if each.scores is not None]
    if not there:
        return note("There is no whole text to score.")
    known = [name for name in names if all(name in each for each in there)]
    left = [name for name in names if name not in known]
    missing = [_missing(left)] if left else []
    if not known:
        return html.Div(missing)
    rows = [_row(list(names).index(name), name, told, compare) for name in known]
    last = ["B less A"] if compare else []
    about = "Below each score: what its trade-off attains on average." if any(each.mean for each in told) else ""
    heads = ["score", *(each.head for each in told), *last]
    return html.Div([table(heads, rows, "Scores of the texts"), html.P(about, className="about"), *missing])


def _row(at: int, name: str, told: Sequence[Told], compare: bool) -> list[Any]:
    values = [None if each.scores is None else each.scores[name] for each in told]
    there = [value for value in values if value is not None]
    # The averages too: two texts that differ by a hair should not be told to four decimals.
    places = span_decimals([*there, *(each.mean[name] for each in told if name in each.mean)])
    cells: list[Any] = []
    for value, each in zip(values, told, strict=True):
        most = not compare and value is not None and value == max(there) > min(there)
        parts: list[Any] = [html.Strong(number(value, places)) if most else number(value, places)]
        if most:
            parts.append(html.Span(" ▲ most", className="mark"))
        if name in each.mean:
            parts.append(html.Span(f"mean {number(each.mean[name], places)}", className="mean"))
        cells.append(html.Span(parts))
    if compare:
        first, second = values
        cells.append(number(None) if first is None or second is None else difference(second - first, places))
    return [html.Span([badge(at), short(name)], title=name), *cells]


def _missing(names: Sequence[str]) -> html.P:
    verb = "is" if len(names) == 1 else "are"
    return note(
        f"{listing(list(map(short, names)))} {verb} learned from pairs: to score a new text, adapters of their own "
        "would have to read it, which this page does not do. Stored samples have all scores."
    )


def difference(less: float, places: int) -> str:
    """A difference by sign and word.

    >>> difference(0.5, 1), difference(-0.5, 1), difference(0.0, 1)
    ('▲ 0.5 more in B', '▼ 0.5 less in B', '= the same')
    """
    if round(less, places) == 0:
        return "= the same"
    return f"▲ {number(less, places)} more in B" if less > 0 else f"▼ {number(-less, places)} less in B"


def scores_of(
    seen: Seen, scorers: Scorers, prompt: str, texts: list[str | None], chat: bool
) -> list[dict[str, float] | None]:
    """The scores of texts that a page has sent; None for a text that never came to its end.

    Raises DataError for more than five texts, and for very long ones.
    """
    written = [str(text) for text in texts if text is not None]
    if len(texts) > MOST or sum(map(len, written)) > _LONGEST:
        raise DataError(
            f"{len(texts)} texts of {sum(map(len, written))} characters are too much to score here; expected at most "
            f"{MOST} of {_LONGEST} together"
        )
    asked = [{"role": "user", "content": prompt}] if chat else prompt
    found = iter(scorers.score(seen.run, asked, written) if written else ())
    return [None if text is None else next(found) for text in texts]


def expected(seen: Seen, who: Mapping[str, Any]) -> dict[str, float]:
    """What a trade-off that wrote a text is predicted to attain on average, or was measured to; empty if unknown."""
    try:
        model, planner = who.get("model"), seen.planner
        if model == _MIXED:
            plan = planner.plan(wish_of(who["weights"], seen.run.objectives), who.get("policy"))
        else:
            plan = planner.named(str(model))
    except (UserError, KeyError):
        return {}
    return {name: each.value for name, each in plan.predicted.items()}


def add_scores(app: dash.Dash, watch: Watch, scorers: Scorers, chat: bool) -> None:
    """The callback that scores what texts.js has had written."""

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
        seen = watch.now()
        found = scores_of(seen, scorers, said["prompt"], said["texts"], chat)
        compare = said["kind"] == "two"
        heads = ["A", "B"] if compare else [str(head) for head in said["heads"]]
        who = said.get("who") or [{}] * len(heads)
        told = [Told(head, each, expected(seen, one)) for head, each, one in zip(heads, found, who, strict=True)]
        shown = scored(seen.run.objectives, told, compare)
        return (shown, None) if compare else (dash.no_update, shown)
