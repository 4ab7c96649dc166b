import numpy as np

from moalign.dashboards.charts import Chart, Line, chart_figure
from moalign.dashboards.theme import ACCENT, NEUTRAL


def test_faint_lines_of_one_kind_share_a_trace_with_gaps() -> None:
    faint = (Line("", (1.0, 2.0), (3.0, 4.0)), Line("", (1.0,), (5.0,)))
    figure = chart_figure(Chart("t", "step", "y", (Line("one", (1.0, 2.0), (1.0, 2.0)),), faint))
    behind, front = figure.data
    np.testing.assert_array_equal(behind.x, [1, 2, np.nan, 1, np.nan])
    np.testing.assert_array_equal(behind.y, [3, 4, np.nan, 5, np.nan])
    assert (behind.line.color, front.line.color) == (NEUTRAL, ACCENT)
    assert behind.line.width < front.line.width


def test_lines_differ_in_more_than_colour() -> None:
    lines = tuple(Line(str(i), (1.0, 2.0), (1.0, 2.0), i, i) for i in range(4))
    drawn = chart_figure(Chart("t", "step", "y", lines)).data
    assert len({trace.line.color for trace in drawn}) == len({trace.line.dash for trace in drawn}) == 4


def test_spikes_of_faint_lines_are_cut_and_told() -> None:
    """One value in a hundred is 1,000 where all others lie between 0 and 1: the axis ends near 1."""
    quiet = tuple(float(i % 2) for i in range(99))
    faint = (Line("", tuple(map(float, range(100))), (*quiet, 1000.0)),)
    figure = chart_figure(Chart("t", "step", "y", (Line("one", (0.0, 99.0), (0.2, 0.4)),), faint))
    assert figure.layout.yaxis.range[1] < 2
    assert "Spikes are cut off" in figure.layout.annotations[0].text


def test_what_stands_out_is_never_cut() -> None:
    line = Line("one", (0.0, 1.0), (0.0, 1000.0))
    figure = chart_figure(Chart("t", "step", "y", (line,), (Line("", (0.0, 1.0), (0.0, 1.0)),)))
    assert figure.layout.yaxis.range[1] > 1000
    assert "Spikes" not in figure.layout.annotations[0].text


def test_a_flat_line_has_an_axis_around_it() -> None:
    for level in (0.0, -2.0):
        low, high = chart_figure(Chart("t", "s", "y", (Line("", (1.0, 2.0), (level, level)),))).layout.yaxis.range
        assert low < level < high


def test_a_note_stands_in_for_the_drawing_on_lines_that_fit() -> None:
    figure = chart_figure(Chart("<title>", "step", "y", note="Nothing. " * 20))
    assert len(figure.data) == 0
    (shown,) = figure.layout.annotations
    assert shown.text.startswith("<b>&lt;title&gt;</b><br>Nothing.")
    assert max(map(len, shown.text.split("<br>"))) <= 60
