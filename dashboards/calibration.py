"""The calibrated map: what mixtures of adapters attain, and how far from it measured blends lie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moalign.dashboards.grid import grid_shape
from moalign.dashboards.plane import broken
from moalign.dashboards.theme import TEMPLATE, blank_figure, objective_colour
from moalign.dashboards.wording import number, plotly_text, short
from moalign.frontiers.calibration import ALONE, Calibration

_STEPS = 20  # of the curve between two adapters


@dataclass(frozen=True)
class CalibrationRow:
    """One objective, as shown: by how much a blend is missed that the map was not fitted on, and over what range."""

    objective: str
    error: str
    spread: str
    share: str


@dataclass(frozen=True)
class CalibrationPanel:
    """One objective: weight asked and value attained of adapters and blends, and the map along each blended pair.

    `column` is the objective's place; `adapters` and `blends` are (asked, attained), `errors` the standard errors of
    the blends; each of `curves` goes from one adapter to the other.
    """

    objective: str
    column: int
    adapters: tuple[tuple[float, float], ...]
    blends: tuple[tuple[float, float], ...]
    errors: tuple[float, ...]
    curves: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class CalibrationInfo:
    """A row and a panel for each objective; `note` says it where no blend has been measured."""

    rows: tuple[CalibrationRow, ...]
    panels: tuple[CalibrationPanel, ...]
    note: str

    def split(self) -> tuple["CalibrationInfo", ...]:
        """One for each objective, so that a page can let them flow."""
        return tuple(replace(self, panels=(panel,)) for panel in self.panels)


def calibration_info(calibration: Calibration, objectives: Sequence[str]) -> CalibrationInfo:
    """What the map says along each pair of adapters that was blended, and what was measured there.

    What a mixture asks for is the mixture of what its adapters asked for. `objectives` are the columns of the map's
    values and of its preferences.
    """
    alone = calibration.rows.max(axis=1) > 1 - ALONE
    if alone.all():
        note = "No blend has been measured: between adapters the map is a straight line, and its error is not known."
        return CalibrationInfo((), (), note)
    asked = calibration.rows @ calibration.preferences
    blended = {tuple(np.flatnonzero(row).tolist()) for row in calibration.rows[~alone]}
    lines = [_between(calibration, pair) for pair in sorted(blended) if len(pair) == 2]
    places = np.stack([asked, calibration.values], axis=-1)
    panels = tuple(
        CalibrationPanel(
            name,
            j,
            tuple((float(x), float(y)) for x, y in places[alone, j]),
            tuple((float(x), float(y)) for x, y in places[~alone, j]),
            tuple(calibration.errors[~alone, j].tolist()),
            tuple(tuple((float(x), float(y)) for x, y in line[:, j]) for line in lines),
        )
        for j, name in enumerate(objectives)
    )
    rows = tuple(
        CalibrationRow(short(name), number(error), number(spread), f"{100 * error / spread:.1f} %")
        for name, error, spread in zip(objectives, calibration.error, calibration.spread, strict=True)
    )
    return CalibrationInfo(rows, panels, "")


def calibration_figure(info: CalibrationInfo) -> go.Figure:
    """One small panel for each objective: filled marks are adapters, hollow ones blends, lines the map."""
    if not info.panels:
        return blank_figure(info.note)
    rows, columns = grid_shape(len(info.panels))
    figure = make_subplots(rows, columns, horizontal_spacing=0.1, vertical_spacing=0.2)
    figure.update_layout(template=TEMPLATE, height=80 + 250 * rows, showlegend=False, margin={"t": 34})
    for i, panel in enumerate(info.panels):
        _draw(figure, panel, i // columns + 1, i % columns + 1)
    figure.update_xaxes(range=[-0.06, 1.06], tickvals=[0, 0.25, 0.5, 0.75, 1], title_text="weight asked")
    return figure


def _draw(figure: go.Figure, panel: CalibrationPanel, row: int, col: int) -> None:
    colour = objective_colour(panel.column)
    at = {"x": 0, "y": 1.06, "xref": "x domain", "yref": "y domain", "xanchor": "left", "yanchor": "bottom"}
    title = f"<b>{plotly_text(short(panel.objective))}</b>"
    figure.add_annotation(at, text=title, font={"size": 14}, showarrow=False, row=row, col=col)
    if panel.curves:
        x, y = broken(panel.curves)
        line = {"color": colour, "width": 1.5, "dash": "dash"}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", name="map", row=row, col=col)
    intervals = {"type": "data", "array": [1.96 * error for error in panel.errors], "color": colour, "thickness": 1}
    for name, symbol, places, bars in (
        ("blend", "circle-open", panel.blends, {**intervals, "width": 0}),
        ("adapter", "circle", panel.adapters, None),
    ):
        figure.add_scatter(
            x=[place[0] for place in places],
            y=[place[1] for place in places],
            error_y=bars,
            mode="markers",
            marker={"color": colour, "size": 7, "symbol": symbol, "line": {"width": 1.5, "color": colour}},
            hovertemplate=f"{name}<br>asked %{{x:.2f}}, attained %{{y:.3g}}<extra></extra>",
            name=name,
            row=row,
            col=col,
        )
    figure.update_yaxes(title_text="value attained", row=row, col=col)


def _between(calibration: Calibration, pair: tuple[int, ...]) -> np.ndarray:
    """Asked and attained, a pair of columns for each objective, along the mixtures of two adapters."""
    shares = np.linspace(0, 1, _STEPS + 1)[:, None]
    ends = np.eye(len(calibration.preferences))[list(pair)]
    mixtures = (1 - shares) * ends[0] + shares * ends[1]
    attained = np.array([calibration.predict(row)[0] for row in mixtures])
    return np.stack([mixtures @ calibration.preferences, attained], axis=-1)
