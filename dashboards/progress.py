"""Progress: where each adapter of a sweep stands."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from moalign.dashboards.theme import GRID, OBJECTIVE_COLOURS, TEMPLATE, blank_figure
from moalign.dashboards.wording import preference_text, short
from moalign.history import Progress, Standing

# State -> what it is called, colour and pattern of its part of the strip: the finished ones first.
_LOOKS = {
    "measured": ("measured", OBJECTIVE_COLOURS[2], ""),
    "trained": ("trained", OBJECTIVE_COLOURS[0], "/"),
    "training": ("in training", OBJECTIVE_COLOURS[4], "x"),
    "paused": ("paused", OBJECTIVE_COLOURS[1], "\\"),
    "waiting": ("waiting", GRID, ""),
}


@dataclass(frozen=True)
class ProgressRow:
    """One adapter: what it is trained for, where it stands, and how far its steps are (`share`, None: not known)."""

    key: str
    asked: str
    state: str
    steps: str
    share: float | None
    note: str


@dataclass(frozen=True)
class ProgressInfo:
    """A sentence on the whole, the states that there are with their counts, and a row for each adapter.

    Rows stand in the order of the sweep. `live` says whether somebody is at work, so that a page looks again.
    """

    sentence: str
    counts: tuple[tuple[str, int], ...]
    rows: tuple[ProgressRow, ...]
    live: bool


def progress_info(progress: Progress, objectives: Sequence[str]) -> ProgressInfo:
    """Say where a sweep stands. Adapters that an explorer has not chosen yet count as waiting, and have no row."""
    counted = Counter(standing.state for standing in progress.adapters)
    counted["waiting"] += progress.unasked
    counts = tuple((state, counted[state]) for state in _LOOKS if counted[state])
    rows = tuple(_row(standing, objectives) for standing in progress.adapters)
    return ProgressInfo(_sentence(progress, dict(counts)), counts, rows, progress.workers > 0)


def progress_figure(info: ProgressInfo) -> go.Figure:
    """A strip: a part for each state, as long as it has adapters."""
    if not info.counts:
        return blank_figure("This sweep has no adapters to train.")
    figure = go.Figure(layout={"template": TEMPLATE, "height": 96, "barmode": "stack"})
    for state, count in info.counts:
        name, colour, pattern = _LOOKS[state]
        figure.add_bar(
            x=[count],
            y=[""],
            orientation="h",
            marker={
                "color": colour,
                "pattern": {"shape": pattern, "bgcolor": colour, "fgcolor": "rgba(255, 255, 255, 0.6)", "size": 7},
                "line": {"width": 0},
            },
            name=f"{count} {name}",
            hovertemplate=f"{count} {name}<extra></extra>",
        )
    figure.update_layout(showlegend=True, legend={"traceorder": "normal"})
    total = sum(count for _, count in info.counts)
    figure.update_xaxes(visible=False, fixedrange=True, range=[0, total]).update_yaxes(visible=False, fixedrange=True)
    return figure


def _sentence(progress: Progress, counts: dict[str, int]) -> str:
    total, done = sum(counts.values()), counts.get("measured", 0) + counts.get("trained", 0)
    parts = [f"{done} of {_adapters(total)} trained", f"{progress.points} of {progress.planned_points} points measured"]
    if progress.workers:
        parts.append(f"{progress.workers} {'worker' if progress.workers == 1 else 'workers'} at work")
    elif done < total or progress.points < progress.planned_points:
        parts.append("nobody is at work: give the same sweep again, and it goes on")
    stopped = sum(1 for standing in progress.adapters if standing.stopped)
    if stopped:
        parts.append(f"{_adapters(stopped)} stopped early")
    return f"{'; '.join(parts)}."


def _adapters(count: int) -> str:
    return f"{count} {'adapter' if count == 1 else 'adapters'}"


def _row(standing: Standing, objectives: Sequence[str]) -> ProgressRow:
    asked = preference_text(standing.preference, objectives) if standing.preference else short(standing.label)
    share, steps = None, ""
    if standing.step is not None:
        steps = f"step {standing.step:,}"
        if standing.steps:
            steps, share = f"{steps} of {standing.steps:,}", min(standing.step / standing.steps, 1.0)
    note = f"stopped early: {standing.stopped}" if standing.stopped else ""
    return ProgressRow(standing.key, asked, _LOOKS[standing.state][0], steps, share, note)
