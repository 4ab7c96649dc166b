"""Training: how the front grew, and what each adapter went through until it landed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

import numpy as np
import plotly.graph_objects as go

from moalign.dashboards.charts import Chart, Line, chart_figure
from moalign.dashboards.growth import volume_over_adapters, volume_over_steps
from moalign.dashboards.marks import Values
from moalign.dashboards.wording import preference_text, short
from moalign.history import History, Landing, Moment, Trace

_PLACES = 240  # of a line: longer ones are averaged down to so many
_FAINT = 100  # lines behind the one that is looked at
_ALL_FAINT = 6000  # places of them all
_PAIRS = 6  # of objectives whose conflict is drawn
_FEW = 3  # of them, for which that of the others is drawn as well
_WINDOW = 10  # steps over which cosines are averaged: from batch to batch they jump
_ROUNDING = 1e-6

Pick = Callable[[Moment], float | None]


@dataclass(frozen=True)
class HistoryInfo:
    """The charts of a run, and whose lines stand out in them; `label` is empty where nothing was logged."""

    label: str
    charts: tuple[Chart, ...]


def history_info(history: History, current: str = "") -> HistoryInfo:
    """Everything that was logged, as charts; the lines of adapter `current` stand out, else those logged last.

    Where a chart has nothing of `current`, the last adapter that has something stands in for it, and the chart says so.
    Of more than a hundred others a hundred are drawn, evenly taken. A chart of which nothing was logged has a note.
    """
    own = [trace for trace in history.traces if trace.moments]
    label = _label(history, history.trace_of(current) or own[-1]) if own else ""
    asked = [preference_text(landing.preference, history.objectives) for landing in history.landings]
    charts = (
        volume_over_steps(history, asked, current),
        volume_over_adapters(history, asked, current),
        _weights(history, current),
        _course(history, current, "Divergence from the base", "KL, nats", lambda moment: moment.kl)
        or _landed(history, asked, current, "Divergence from the base", "KL, nats", lambda landing: landing.kl),
        _course(history, current, "Length of a response", "tokens", lambda moment: moment.length)
        or _landed(history, asked, current, "Length of a response", "tokens", lambda landing: landing.length),
        _conflict(history, current),
        _loss(history, current),
    )
    return HistoryInfo(label, charts)


def history_figures(info: HistoryInfo) -> tuple[go.Figure, ...]:
    """One figure for each chart, so that a page can let them flow."""
    return tuple(chart_figure(chart) for chart in info.charts)


def _course(history: History, current: str, title: str, up: str, pick: Pick) -> Chart | None:
    """One number of each step; None where nobody has it."""
    found = _with(history, pick)
    if not found:
        return None
    main, others = _parted(found, current, pick)
    line = Line(_label(history, main), *_points(main, pick))
    faint = tuple(Line("", *_points(trace, pick, _faint_places(others))) for trace in others)
    return Chart(title, main.unit, up, (line,), faint, remark=_who(history, main, current))


def _landed(
    history: History, asked: list[str], current: str, title: str, up: str, pick: Callable[[Landing], float | None]
) -> Chart:
    """One number of each measured point, for methods that do not log it as they train."""
    known = [
        (float(i), value, landing.adapter, text)
        for i, (landing, text) in enumerate(zip(history.landings, asked, strict=True), 1)
        if (value := pick(landing)) is not None
    ]
    if not known:
        return Chart(title, "step", up, note="Nothing has been logged of it yet.")
    x, y, keys, hover = zip(*known, strict=True)
    line = Line(title, x, y, hover=hover, keys=keys, joined=False)
    remark = "Not logged in training: of each point, when it was measured."
    return Chart(title, "points measured", up, (line,), remark=remark, current=current)


def _loss(history: History, current: str) -> Chart:
    chart = _course(history, current, "Loss", "loss", lambda moment: moment.loss)
    if chart is None:
        return Chart("Loss", "step", "loss", note="No loss has been logged yet.")
    if all(abs(y) < _ROUNDING for line in (*chart.lines, *chart.faint) for y in line.y):
        why = "that of centred advantages on the policy's own texts always is"
        return Chart("Loss", "step", "loss", note=f"The loss is 0 but for rounding, as {why}: it tells nothing.")
    return chart


def _weights(history: History, current: str) -> Chart:
    """The weight of each objective over the steps: the colours and dashes are theirs."""
    title, up = "Weights", "weight"
    picks = [_weight(column) for column in range(len(history.objectives))]
    found = _with(history, lambda moment: moment.weights)
    if not found:
        return Chart(title, "step", up, note="No weights have been logged: this method has none that move.")
    if not any(_moves(trace) for trace in found):
        return Chart(title, "step", up, note="Every weight has stayed where it was asked: the weighting is fixed.")
    main, others = _parted(found, current, lambda moment: moment.weights)
    lines = tuple(
        Line(short(name), *_points(main, pick), column, column)
        for column, (name, pick) in enumerate(zip(history.objectives, picks, strict=True))
    )
    faint = tuple(
        Line("", *_points(trace, pick, _faint_places(others)), column, column)
        for trace in others
        for column, pick in enumerate(picks)
    )
    return Chart(title, main.unit, up, lines, faint, remark=_who(history, main, current))


def _conflict(history: History, current: str) -> Chart:
    """The cosines between the objectives' gradients; of many pairs, those that pull most against each other."""
    title, up = "Gradient conflict", "cosine"
    pairs = list(combinations(range(len(history.objectives)), 2))
    found = _with(history, lambda moment: moment.gram)
    main, others = _parted(found, current, lambda moment: moment.gram) if found else (None, [])
    own = {pair: points for pair in pairs if main and (points := _points(main, _cosine(pair), window=_WINDOW))[0]}
    if main is None or not own:
        why = "the gradients of single objectives are known to weightings that need them alone"
        return Chart(title, "step", up, note=f"No gradients have been logged: {why}.")
    chosen = sorted(own, key=lambda pair: fmean(own[pair][1]))[:_PAIRS]
    lines = tuple(Line(_pair_text(history, pair), *own[pair], pair[0], i) for i, pair in enumerate(chosen))
    faint = tuple(
        Line("", *points, pair[0], i)
        for i, pair in enumerate(chosen if len(chosen) <= _FEW else ())
        for trace in others
        if (points := _points(trace, _cosine(pair), _PLACES, _WINDOW))[0]
    )
    left = f" {len(own) - len(chosen)} pairs that conflict less are left out." if len(own) > len(chosen) else ""
    remark = f"{_who(history, main, current)} Below 0 two pull against each other; means of {_WINDOW} steps.{left}"
    return Chart(title, main.unit, up, lines, faint, remark=remark)


def _weight(column: int) -> Pick:
    return lambda moment: moment.weights[column] if moment.weights else None


def _cosine(pair: tuple[int, int]) -> Pick:
    return lambda moment: moment.cosine(*pair)


def _moves(trace: Trace) -> bool:
    rows = [moment.weights for moment in trace.moments if moment.weights]
    return any(row != rows[0] for row in rows)


def _with(history: History, has: Callable[[Moment], object]) -> list[Trace]:
    """The traces of which something is logged."""
    return [trace for trace in history.traces if any(has(moment) not in (None, ()) for moment in trace.moments)]


def _parted(found: list[Trace], current: str, has: Callable[[Moment], object]) -> tuple[Trace, list[Trace]]:
    """Whose line stands out, the adapter's, its group's, or else the last one; and an even share of the others.

    They are left with the steps of which something is logged.
    """
    own = [trace for trace in found if current in (trace.name, *trace.adapters)]
    main = min(own, key=lambda trace: trace.name != current) if own else found[-1]
    others = [trace for trace in found if trace is not main and trace.unit == main.unit]
    main, *others = (
        replace(trace, moments=tuple(moment for moment in trace.moments if has(moment) not in (None, ())))
        for trace in (main, *others[:: max(-(-len(others) // _FAINT), 1)])
    )
    return main, others


def _faint_places(others: list[Trace]) -> int:
    return max(_ALL_FAINT // max(len(others), 1), 20)


def _points(trace: Trace, pick: Pick, most: int | None = None, window: int = 1) -> tuple[Values, Values]:
    """The steps that have a number, and the numbers, each the mean of so many up to it.

    A long course is averaged over equal parts; a faint one has at most `most` of its steps, evenly taken.
    """
    moments = trace.moments if most is None else trace.moments[:: -(-len(trace.moments) // most)]
    known = [(moment.step, value) for moment in moments if (value := pick(moment)) is not None]
    steps, values = np.array(known, dtype=float).reshape(-1, 2).T
    if window > 1:
        sums = np.concatenate([[0.0], values.cumsum()])
        ends = np.arange(1, len(values) + 1)
        starts = np.maximum(ends - window, 0)
        values = (sums[ends] - sums[starts]) / (ends - starts)
    size = -(-len(values) // _PLACES)
    if size > 1:
        starts = np.arange(0, len(values), size)
        counts = np.diff(np.append(starts, len(values)))
        steps, values = (np.add.reduceat(each, starts) / counts for each in (steps, values))
    return tuple(steps.tolist()), tuple(values.tolist())


def _who(history: History, main: Trace, current: str) -> str:
    missing = current and main.adapters and current not in (main.name, *main.adapters)
    return f"Of {_label(history, main)}." + (" Of the chosen one nothing is logged." if missing else "")


def _label(history: History, trace: Trace) -> str:
    if trace.unit == "round":
        return "the rounds"
    asked = {landing.adapter: landing.preference for landing in history.landings}
    if len(trace.adapters) == 1:
        key = trace.adapters[0]
        return preference_text(asked[key], history.objectives) if key in asked else short(key)
    count = len(trace.adapters)
    return f"{count} adapters side by side" if count else "a group of adapters"


def _pair_text(history: History, pair: tuple[int, int]) -> str:
    return " and ".join(short(history.objectives[column], 16) for column in pair)
