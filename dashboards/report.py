"""The report: one HTML file that holds everything, and opens with the network off."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from moalign.dashboards.calibration import calibration_figure, calibration_info
from moalign.dashboards.charts import Chart, chart_figure
from moalign.dashboards.control import control_figure, control_info
from moalign.dashboards.front import front_figure, front_info
from moalign.dashboards.gains import gains_info
from moalign.dashboards.history import history_info
from moalign.dashboards.indicators import indicators_info
from moalign.dashboards.marks import FrontInfo
from moalign.dashboards.pairs import pairs_figure, pairs_info
from moalign.dashboards.parallel import parallel_figure, parallel_info
from moalign.dashboards.points import points_info
from moalign.dashboards.records import Band, Blend, Gain, Sample
from moalign.dashboards.summary import summary_sentence
from moalign.dashboards.texts import texts_info
from moalign.dashboards.theme import OBJECTIVE_COLOURS, css_variables, sharper
from moalign.dashboards.wording import short
from moalign.files import atomic_write_text
from moalign.frontiers.calibration import Calibration
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet
from moalign.history import History


@dataclass(frozen=True)
class Report:
    """Everything a report tells.

    `indicators` are shown in their order, None and NaN as a dash; see `moalign.dashboards.indicators` for the names
    it can explain. `oracle` holds the exact front, a row per point and columns as in `front`, or None. `facts` are
    shown small: the base model, the method, the seed. `history` is what the sweep has logged, None or empty where there
    is nothing to tell of it. `band` is where a front of two objectives may lie, and
    `calibration` the map from mixtures to values, with columns as in `front`; neither is shown where it is None.
    """

    title: str
    front: ParetoSet
    indicators: dict[str, float | None]
    base: ParetoPoint | None
    blends: Sequence[Blend]
    oracle: Float[np.ndarray, "n m"] | None
    samples: Sequence[Sample]
    facts: dict[str, str]
    gains: Sequence[Gain] = ()
    band: Band | None = None
    calibration: Calibration | None = None
    history: History | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure as the page holds it: its size class, what a screen reader says, and Plotly's own JSON."""

    kind: str
    label: str
    figure: dict[str, Any]


def write_report(path: Path, report: Report) -> None:
    """Write the report to `path`, atomically. The same report gives the same bytes.

    Raises StorageError if the disk refuses.
    """
    atomic_write_text(path, report_html(report))


def report_html(report: Report) -> str:
    """The report as one HTML page; whatever it quotes, from objectives' names to responses, is shown as text."""
    info = front_info(report.front, report.base, report.blends, report.oracle, report.band)
    control = control_info(report.front, report.base)
    parallel = parallel_info(info)
    pairs = _pairs(info)
    between = calibration_info(report.calibration, report.front.objectives) if report.calibration else None
    training = history_info(report.history) if report.history else None
    return _template().render(
        title=report.title,
        summary=summary_sentence(report.front, report.indicators),
        facts=report.facts,
        front=info,
        front_drawing=_front(info),
        pairs=pairs,
        pairs_left_out=pairs_info(info).left_out if pairs else 0,
        indicators=indicators_info(report.indicators, report.front.objectives, report.front.reference_point),
        gains=gains_info(report.gains, report.front.objectives),
        control=[_small("Weight asked against value attained", part, control_figure) for part in control.split()],
        control_note=control.note,
        violations=control.violations,
        between=between,
        between_drawings=[
            _small("What mixtures attain", part, calibration_figure) for part in (between.split() if between else ())
        ],
        parallel=Drawing("wide", "Parallel coordinates of all objectives", _plain(parallel_figure(parallel)))
        if parallel.threads
        else None,
        training=[_chart(chart) for chart in (training.charts if training else ()) if chart.lines],
        untold=[f"{chart.title}: {chart.note}" for chart in (training.charts if training else ()) if chart.note],
        texts=texts_info(report.front, report.samples).as_dict(),
        points=points_info(report.front, report.base),
        variables=Markup(css_variables()),
        style=_asset("report.css"),
        script=_asset("report.js"),
        plotly=Markup(get_plotlyjs()),
        schemes=sharper(),
        colours=len(OBJECTIVE_COLOURS),
    )


def _front(info: FrontInfo) -> Drawing | None:
    if not info.marks or not 2 <= len(info.objectives) <= 3:
        return None
    names = ", ".join(short(name) for name in info.objectives)
    label = f"Scatter of the front over {names}; the table of points holds the same numbers"
    return Drawing(
        "front" if len(info.objectives) == 2 else "space",
        label,
        _plain(front_figure(info).update_layout(showlegend=False)),
    )


def _pairs(info: FrontInfo) -> list[Drawing]:
    if not info.marks or len(info.objectives) < 3:
        return []
    drawings = []
    for part in pairs_info(info).split():
        x, y = (short(info.objectives[axis]) for axis in part.pairs[0])
        figure = pairs_figure(part).update_layout(showlegend=False)
        drawings.append(Drawing("small", f"Scatter of {x} against {y}", _plain(figure)))
    return drawings


def _chart(chart: Chart) -> Drawing:
    return Drawing("chart", chart.title, _plain(chart_figure(chart)))


def _small(label: str, info: Any, draw: Callable[[Any], go.Figure]) -> Drawing:
    return Drawing("small", f"{label}: {short(info.panels[0].objective)}", _plain(draw(info)))


def _plain(figure: go.Figure) -> dict[str, Any]:
    # The page gives every figure its size.
    return json.loads(str(figure.update_layout(height=None).to_json()))


def _asset(name: str) -> Markup:
    return Markup(files("moalign.dashboards").joinpath(name).read_text(encoding="utf-8"))


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(str(_asset("report.html")))
