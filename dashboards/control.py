"""Control: who asks for more of an objective, do they get more of it?"""

from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moalign.dashboards.grid import grid_shape
from moalign.dashboards.marks import Mark, point_mark
from moalign.dashboards.plane import hover_texts
from moalign.dashboards.theme import INK, NEUTRAL, TEMPLATE, blank_figure, objective_colour
from moalign.dashboards.wording import number, plotly_text, short
from moalign.frontiers.indicators import Violation, kendall_tau, monotonicity_violations
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet


@dataclass(frozen=True)
class ControlPanel:
    """One objective: weight asked and value attained of each point, and whether their order agrees.

    `column` is the objective's place in the set; `tau` is None where no order exists, `base` where it was not measured.
    `violations` are the steps at which asking for more gave less, beyond the noise; their rows are places in `marks`.
    """

    objective: str
    column: int
    marks: tuple[Mark, ...]
    on_front: tuple[bool, ...]
    tau: float | None
    base: float | None
    violations: tuple[Violation, ...]


@dataclass(frozen=True)
class ControlInfo:
    """One panel for each objective; none for an empty set, and `note` says so."""

    panels: tuple[ControlPanel, ...]
    note: str

    @property
    def violations(self) -> int:
        """How many there are, of all objectives."""
        return sum(len(panel.violations) for panel in self.panels)

    def split(self) -> tuple["ControlInfo", ...]:
        """One for each objective, so that a page can let them flow."""
        return tuple(replace(self, panels=(panel,)) for panel in self.panels)


def control_info(front: ParetoSet, base: ParetoPoint | None = None) -> ControlInfo:
    """Weight asked against value attained, for each objective: Kendall's tau (tau-b), and the violations of the order.

    A violation counts when it is beyond 1.96 standard errors of the difference; an error that nobody knows counts as 0.
    """
    if len(front) == 0:
        return ControlInfo((), "No adapter has been measured yet, so nothing can be said about control.")
    names = front.objectives
    marks = tuple(point_mark(point, names) for point in front)
    asked = np.array([mark.asked for mark in marks])
    taus = kendall_tau(asked, front.values).tolist()
    errors = np.array([[point.standard_errors.get(name, 0.0) for name in names] for point in front])
    violations = monotonicity_violations(asked, front.values, np.nan_to_num(errors))
    flags = tuple(front.on_front.tolist())
    panels = tuple(
        ControlPanel(
            name,
            i,
            marks,
            flags,
            None if np.isnan(taus[i]) else taus[i],
            float(base.values[name]) if base else None,
            tuple(violations[i]),
        )
        for i, name in enumerate(names)
    )
    return ControlInfo(panels, "")


def control_figure(info: ControlInfo) -> go.Figure:
    """One small panel for each objective, Kendall's tau in its title; hollow marks are dominated, lines violations."""
    if not info.panels:
        return blank_figure(info.note)
    rows, columns = grid_shape(len(info.panels))
    figure = make_subplots(rows, columns, horizontal_spacing=0.1, vertical_spacing=0.2)
    figure.update_layout(template=TEMPLATE, height=80 + 250 * rows, showlegend=False, margin={"t": 34})
    for i, panel in enumerate(info.panels):
        _draw(figure, panel, i // columns + 1, i % columns + 1)
    figure.update_xaxes(range=[-0.06, 1.06], tickvals=[0, 0.25, 0.5, 0.75, 1], title_text="weight asked")
    return figure


def _title(panel: ControlPanel) -> str:
    order = "no order" if panel.tau is None else f"τ = {number(panel.tau, 2)}"
    count = len(panel.violations)
    broken = f"   {count} violation{'s' if count > 1 else ''}" if count else ""
    return f"<b>{plotly_text(short(panel.objective))}</b>   {order}{broken}"


def _violation(panel: ControlPanel, violation: Violation) -> go.Scatter:
    """A line from who was asked for less to who was asked for more and attained less, each the mean of its marks."""
    ends = [[panel.marks[i] for i in rows] for rows in (violation.less, violation.more)]
    return go.Scatter(
        x=[fmean(mark.asked[panel.column] for mark in marks) for marks in ends],
        y=[fmean(mark.values[panel.column] for mark in marks) for marks in ends],
        mode="lines",
        line={"color": INK, "width": 3},
        hovertext=f"asked for more, attained {number(violation.drop)} less",
        hoverinfo="text",
        name="violation",
    )


def _draw(figure: go.Figure, panel: ControlPanel, row: int, col: int) -> None:
    column, colour = panel.column, objective_colour(panel.column)
    # The title stands over the left end of its axis, as a heading does.
    at = {"x": 0, "y": 1.06, "xref": "x domain", "yref": "y domain", "xanchor": "left", "yanchor": "bottom"}
    figure.add_annotation(at, text=_title(panel), font={"size": 14}, showarrow=False, row=row, col=col)
    if panel.base is not None:
        line = {"color": NEUTRAL, "width": 1.5, "dash": "dot"}
        ends, level = [-1, 2], [panel.base] * 2
        figure.add_scatter(x=ends, y=level, mode="lines", line=line, hoverinfo="skip", row=row, col=col)
    for violation in panel.violations:
        figure.add_trace(_violation(panel, violation), row=row, col=col)
    values = [mark.values[column] for mark in panel.marks]
    figure.add_scatter(
        x=[mark.asked[column] for mark in panel.marks],
        y=values,
        error_y={
            "type": "data",
            "array": [max(mark.high[column] - mark.values[column], 0.0) for mark in panel.marks],
            "arrayminus": [max(mark.values[column] - mark.low[column], 0.0) for mark in panel.marks],
            "color": colour,
            "thickness": 1,
            "width": 0,
        },
        mode="markers",
        marker={
            "color": colour,
            "size": 7,
            "symbol": ["circle" if flag else "circle-open" for flag in panel.on_front],
            "line": {"width": 1.5, "color": colour},
        },
        hovertext=hover_texts(panel.marks),
        hoverinfo="text",
        customdata=[mark.adapter for mark in panel.marks],
        row=row,
        col=col,
    )
    figure.update_yaxes(title_text="value attained", row=row, col=col)
