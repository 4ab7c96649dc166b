"""What moalign shows: each panel is a pure record (`*_info`) and a dumb drawing of it (`*_figure`).

report       the report of a run: one HTML file that opens with the network off
summary      the front in a sentence
front        the front, in the plane (plane.py) or in space (space.py)
pairs        a front of many objectives: the pairs that conflict most
parallel     all objectives at once
control      weight asked against value attained
calibration  what mixtures of adapters attain, and how far from that measured blends lie
indicators   what each indicator is worth, and means
points       every point in a table
gains        what adapters have gained over the base
texts        what the adapters say, two of them side by side
brush        more than three objectives: parallel coordinates that brush, and a matrix of pairs
simplex      the weights as a triangle, a line or bars; shading.py is what the map predicts all over the triangle
tradeoff     the current trade-off: its row, what it is predicted to attain, and where that lies
sliders      weights that stay on the simplex while one of them moves
wishes       from wanted values to weights
history      training: growth.py, and what each adapter went through
progress     where each adapter of a sweep stands
versus       two runs in one plane
spreadsheet  the points as comma-separated values
explorer     the page that wires these, for a browser: at /explore of a server, or `moalign explore`
theme        colours, marks and type, light and dark
records      what a report is told beside the Pareto set: Band, Blend, Gain, Sample
marks, bars, charts, thinning, wording, grid   what the panels share

In a notebook, `front_figure(pareto_set)` is a plain Plotly figure.
"""

from moalign.dashboards.calibration import calibration_figure, calibration_info
from moalign.dashboards.control import control_figure, control_info
from moalign.dashboards.front import front_figure, front_info
from moalign.dashboards.pairs import pairs_figure, pairs_info
from moalign.dashboards.parallel import parallel_figure, parallel_info
from moalign.dashboards.records import Band, Blend, Gain, Sample
from moalign.dashboards.report import Report, report_html, write_report

__all__ = [
    "Band",
    "Blend",
    "Gain",
    "Report",
    "Sample",
    "calibration_figure",
    "calibration_info",
    "control_figure",
    "control_info",
    "front_figure",
    "front_info",
    "pairs_figure",
    "pairs_info",
    "parallel_figure",
    "parallel_info",
    "report_html",
    "write_report",
]
