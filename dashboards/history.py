"""Training: how the front grew, and what each adapter went through until it landed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import plotly.graph_objects as go

from moalign.dashboards.charts import Chart, Line, chart_figure
from moalign.dashboards.growth import volume_over_adapters, volume_over_steps
from moalign.dashboards.thinning import averaged, cosine_of, number_of, sampled, thinned
from moalign.dashboards.wording import preference_text, short
from moalign.history import Course, History, Landing, Trace

_FAINT = 100  # lines behind the one that is looked at
_PAIRS = 6  # of objectives whose conflict is drawn
_FEW = 3  # of them, for which that of the others is drawn as well
_WINDOW = 10  # steps over which cosines are averaged: from batch to batch they jump
_ROUNDING = 1e-6

TITLES = (
    "Hypervolume over steps",
    "Hypervolume over adapters",
    "Weights",
    "Divergence from the base",
    "Length of a response",
    "Gradient conflict",
    "Loss",
)


@dataclass(frozen=True)
class HistoryInfo:
    """The charts of a run, and whose lines stand out in them; `label` is empty where nothing was logged."""

    label: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class _Look:
    """What is looked at: the history, the key of an adapter or nothing, and what adapters are asked for."""

    history: History
    current: str
    asked: Mapping[str, str]

    def label(self, trace: Trace) -> str:
        if trace.unit == "round":
            return "the rounds"
        if len(trace.adapters) == 1:
            return self.asked.get(trace.adapters[0]) or short(trace.adapters[0])
        count = len(trace.adapters)
        return f"{count} adapters side by side" if count else "a group of adapters"


def history_info(history: History, current: str = "", asked: Mapping[str, str] | None = None) -> HistoryInfo:
    """Everything that was logged, as charts; the lines of adapter `current` stand out, else those logged last.

    Where a chart has nothing of `current`, the last adapter that has something stands in for it, and the chart says so.
    `asked` says by the keys of adapters what they are asked for, also where no point of theirs has landed yet.

    Of more than a hundred others a hundred are drawn, evenly taken; long lines are thinned; both is said in the chart.
    A chart of which nothing was logged has a note.
    """
    landed = [preference_text(landing.preference, history.objectives) for landing in history.landings]
    keys = (landing.adapter for landing in history.landings)
    look = _Look(history, current, {**dict(zip(keys, landed, strict=True)), **(asked or {})})
    own = [trace for trace in history.traces if len(trace.course)]
    charts = (
        volume_over_steps(history, landed, current),
        volume_over_adapters(history, landed, current),
        _weights(look),
        _course(look, TITLES[3], "kl", "KL, nats")
        or _landed(look, landed, TITLES[3], "KL, nats", lambda landing: landing.kl),
        _course(look, TITLES[4], "length", "tokens")
        or _landed(look, landed, TITLES[4], "tokens", lambda landing: landing.length),
        _conflict(look),
        _loss(look),
    )
    return HistoryInfo(look.label(history.trace_of(current) or own[-1]) if own else "", charts)


def history_figures(info: HistoryInfo) -> tuple[go.Figure, ...]:
    """One figure for each chart, so that a page can let them flow."""
    return tuple(chart_figure(chart) for chart in info.charts)


def _course(look: _Look, title: str, name: str, up: str) -> Chart | None:
    """One number of each step; None where nobody has it."""
    found = _with(look.history, name)
    if not found:
        return None
    main, others, remark = _parted(look, found)
    line, size = averaged(main.course, number_of(name))
    faint, stride = sampled(others, [number_of(name)])
    lines = (Line(look.label(main), *line),)
    return Chart(title, main.unit, up, lines, faint[0], remark=remark + thinned(size, stride, main.unit))


def _landed(look: _Look, asked: list[str], title: str, up: str, pick: Callable[[Landing], float | None]) -> Chart:
    """One number of each measured point, for methods that do not log it as they train."""
    known = [
        (float(i), value, landing.adapter, text)
        for i, (landing, text) in enumerate(zip(look.history.landings, asked, strict=True), 1)
        if (value := pick(landing)) is not None
    ]
    if not known:
        return Chart(title, "step", up, note="Nothing has been logged of it yet.")
    x, y, keys, hover = zip(*known, strict=True)
    line = Line(title, x, y, hover=hover, keys=keys, joined=False)
    remark = "Not logged in training: of each point, when it was measured."
    return Chart(title, "points measured", up, (line,), remark=remark, current=look.current)


def _loss(look: _Look) -> Chart:
    chart = _course(look, "Loss", "loss", "loss")
    if chart is None:
        return Chart("Loss", "step", "loss", note="No loss has been logged yet.")
    if all(abs(y) < _ROUNDING for line in (*chart.lines, *chart.faint) for y in line.y):
        why = "that of centred advantages on the policy's own texts always is"
        return Chart("Loss", "step", "loss", note=f"The loss is 0 but for rounding, as {why}: it tells nothing.")
    return chart


def _weights(look: _Look) -> Chart:
    """The weight of each objective over the steps: the colours and dashes are theirs."""
    title, up = TITLES[2], "weight"
    found = _with(look.history, "weights")
    if not found:
        return Chart(title, "step", up, note="No weights have been logged: this method has none that move.")
    if not any(_moves(trace.course) for trace in found):
        return Chart(title, "step", up, note="Every weight has stayed where it was asked: the weighting is fixed.")
    # Where nobody is chosen, one stands out whose weights have moved.
    main, others, remark = _parted(look, sorted(found, key=lambda trace: _moves(trace.course)))
    picks = [number_of("weights", column) for column in range(len(look.history.objectives))]
    own = [averaged(main.course, pick) for pick in picks]
    faint, stride = sampled(others, picks)
    lines = tuple(
        Line(short(name), *line, column, column)
        for column, (name, (line, _)) in enumerate(zip(look.history.objectives, own, strict=True))
    )
    behind = tuple(Line("", line.x, line.y, column, column) for column, drawn in enumerate(faint) for line in drawn)
    return Chart(title, main.unit, up, lines, behind, remark=remark + thinned(own[0][1], stride, main.unit))


def _conflict(look: _Look) -> Chart:
    """The cosines between the objectives' gradients; of many pairs, those that pull most against each other."""
    title, up = TITLES[5], "cosine"
    found = _with(look.history, "gram")
    none = "the gradients of single objectives are known to weightings that need them alone"
    if not found:
        return Chart(title, "step", up, note=f"No gradients have been logged: {none}.")
    main, others, remark = _parted(look, found)
    pairs = list(combinations(range(len(look.history.objectives)), 2))
    own = {pair: main.course.cosines(*pair) for pair in pairs}
    means = {pair: float(np.nanmean(values)) for pair, values in own.items() if not np.isnan(values).all()}
    if not means:
        return Chart(title, "step", up, note="Every gradient that has been logged is 0, and so conflicts with nothing.")
    chosen = sorted(means, key=means.__getitem__)[:_PAIRS]
    drawn = [averaged(main.course, cosine_of(pair), _WINDOW) for pair in chosen]
    lines = tuple(
        Line(_pair_text(look.history, pair), *line, i, i)
        for i, (pair, (line, _)) in enumerate(zip(chosen, drawn, strict=True))
    )
    few = chosen if len(chosen) <= _FEW else []
    faint, stride = sampled(others, [cosine_of(pair) for pair in few], _WINDOW)
    behind = tuple(Line("", line.x, line.y, i, i) for i, each in enumerate(faint) for line in each)
    left = f" {len(means) - len(chosen)} pairs that conflict less are left out." if len(means) > len(chosen) else ""
    told = f"{remark} Below 0 two pull against each other; means of {max(_WINDOW, drawn[0][1])} steps.{left}"
    return Chart(title, main.unit, up, lines, behind, remark=told + thinned(1, stride, main.unit))


def _moves(course: Course) -> bool:
    rows = course.numbers["weights"]
    known = rows[~np.isnan(rows).any(axis=1)]
    return bool((known != known[:1]).any())


def _with(history: History, name: str) -> list[Trace]:
    """The traces of which something is logged."""
    return [trace for trace in history.traces if name in trace.course.numbers]


def _parted(look: _Look, found: list[Trace]) -> tuple[Trace, list[Trace], str]:
    """Whose line stands out, the adapter's, its group's, or else the last one; an even share of the others; and so."""
    own = [trace for trace in found if look.current in (trace.name, *trace.adapters)]
    main = min(own, key=lambda trace: trace.name != look.current) if own else found[-1]
    others = [trace for trace in found if trace is not main and trace.unit == main.unit]
    shown = others[:: max(-(-len(others) // _FAINT), 1)]
    missing = look.current and main.adapters and look.current not in (main.name, *main.adapters)
    remark = f"Of {look.label(main)}." + (" Of the chosen one nothing is logged." if missing else "")
    left = f" Of {len(others)} others {len(shown)} are drawn." if len(shown) < len(others) else ""
    return main, shown, remark + left


def _pair_text(history: History, pair: tuple[int, int]) -> str:
    return " and ".join(short(history.objectives[column], 16) for column in pair)
