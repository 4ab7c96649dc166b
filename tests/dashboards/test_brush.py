from collections.abc import Callable

import numpy as np
import pytest

from moalign.dashboards import front_info
from moalign.dashboards.brush import axes, brush_info, brushed, matrix_figure, parcoords_figure
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet
from moalign.preference import Preference

ROWS = (
    ((1.0, 0.0, 0.0), (4.0, 0.0, 7.0)),
    ((0.0, 1.0, 0.0), (0.0, 2.0, 7.0)),
    ((1.0, 1.0, 0.0), (0.0, 1.0, 7.0)),
)


@pytest.fixture
def make() -> Callable[..., ParetoSet]:
    """Builds a set from rows of (asked, attained)."""

    def build(*rows, names: tuple[str, ...] = ("a", "b", "c")) -> ParetoSet:
        points = []
        for i, (asked, attained) in enumerate(rows):
            weights, values = (dict(zip(names, each, strict=True)) for each in (asked, attained))
            points.append(ParetoPoint(f"p{i}", "modpo", Preference.of(weights), values, {}, {}))
        return ParetoSet(names, np.zeros(len(names)), points)

    return build


@pytest.fixture
def info(make):
    """Three objectives, the third flat; the last point is dominated and asks for a and b alike."""
    return brush_info(front_info(make(*ROWS)))


def test_points_are_taken_apart_into_columns(info) -> None:
    assert info.adapters == ("p0", "p1", "p2")
    assert info.values == ((4.0, 0.0, 7.0), (0.0, 2.0, 7.0), (0.0, 1.0, 7.0))
    assert info.favours == (0, 1, -1)
    assert info.on_front == (True, True, False)
    assert info.asked == ("a 1", "b 1", "a 0.5 · b 0.5")


def test_the_columns_that_conflict_come_first(make) -> None:
    """b falls as c rises, a goes with neither: tau(b, c) = -1, tau(a, b) = 1/3, tau(a, c) = -1/3: c, b, a."""
    rows = [((1.0, 1.0, 1.0), row) for row in ((1.0, 3.0, 1.0), (3.0, 2.0, 2.0), (0.0, 1.0, 3.0))]
    assert brush_info(front_info(make(*rows))).conflict == (2, 1, 0)


def test_every_axis_is_in_its_own_units_and_a_flat_one_has_room(info) -> None:
    parallel = parcoords_figure(info).data[0]
    assert [each.label for each in parallel.dimensions] == ["a", "b", "c", "asked most for", "on the front"]
    assert [list(each.values) for each in parallel.dimensions[:2]] == [[4.0, 0.0, 0.0], [0.0, 2.0, 1.0]]
    assert list(parallel.dimensions[0].range) == [0.0, 4.0]
    assert list(parallel.dimensions[2].range) == [6.0, 8.0]


def test_colour_is_not_alone_in_saying_what_was_asked_for_most(info) -> None:
    """Each colour stands for one tick of an axis of its own, at the middle of its part of the scale."""
    parallel = parcoords_figure(info).data[0]
    asked = parallel.dimensions[3]
    assert list(asked.values) == list(parallel.line.color) == [0.0, 1.0, -1.0]
    assert (list(asked.tickvals), list(asked.ticktext)) == ([-1, 0, 1], ["no one", "a", "b"])
    low, high = parallel.line.cmin, parallel.line.cmax
    for column in (-1, 0, 1, 2):
        at = (column - low) / (high - low)
        start, end = parallel.line.colorscale[2 * (column + 1) : 2 * (column + 2)]
        assert start[0] < at < end[0]
        assert start[1] == end[1]


def test_the_axes_are_told_from_left_to_right(info, make) -> None:
    assert axes(info) == (0, 1, 2, 3, 4)
    assert axes(info, [2, 0]) == (2, 0, 3, 4)
    assert axes(brush_info(front_info(make(*ROWS[:2])))) == (0, 1, 2, 3)
    labels = [each.label for each in parcoords_figure(info, [2, 0]).data[0].dimensions]
    assert labels == ["c", "a", "asked most for", "on the front"]


def test_brushes_keep_what_lies_in_all_of_them(info) -> None:
    assert brushed(info, {}) == ("p0", "p1", "p2")
    assert brushed(info, {1: [(1.0, 2.0)]}) == ("p1", "p2")
    assert brushed(info, {1: [(1.0, 2.0)], 4: [(0.5, 1.5)]}) == ("p1",)
    assert brushed(info, {1: [(0.0, 0.5), (1.5, 2.5)]}) == ("p0", "p1")
    assert brushed(info, {1: []}) == ("p0", "p1", "p2")


def test_the_matrix_has_all_points_with_their_adapters_and_looks_that_differ(info) -> None:
    traces = matrix_figure(info).data
    assert sorted(adapter for trace in traces for adapter in trace.customdata) == ["p0", "p1", "p2"]
    assert {trace.customdata[0]: trace.marker.symbol for trace in traces} == {
        "p0": "circle",
        "p1": "square",
        "p2": "circle-open",
    }
    (faint,) = [trace for trace in traces if trace.customdata[0] == "p2"]
    assert faint.marker.opacity < traces[0].marker.opacity
    assert [each.label for each in matrix_figure(info, [2, 0]).data[0].dimensions] == ["c", "a"]


@pytest.mark.parametrize("draw", [parcoords_figure, matrix_figure])
def test_what_cannot_be_brushed_is_a_sentence(make, draw) -> None:
    for points, said in ((make(), "No adapter"), (make(((1.0, 0.0), (1.0, 2.0)), names=("a", "b")), "plane")):
        figure = draw(brush_info(front_info(points)))
        assert len(figure.data) == 0
        assert said in figure.layout.annotations[0].text


@pytest.mark.parametrize("draw", [parcoords_figure, matrix_figure])
def test_one_point_and_equal_points_are_drawn(make, draw) -> None:
    for rows in (ROWS[:1], ROWS[:1] * 3):
        assert len(draw(brush_info(front_info(make(*rows)))).data) == 1


def test_names_are_text_where_plotly_reads_html_and_as_they_are_where_it_does_not(make) -> None:
    info = brush_info(front_info(make(*ROWS, names=("<b>", "x" * 200, "c"))))
    dimensions = parcoords_figure(info).data[0].dimensions
    assert [each.label for each in dimensions[:2]] == ["&lt;b&gt;", "xxxxxxx…xxxxxx"]
    assert list(dimensions[3].ticktext) == ["no one", "<b>", "xxxxxx…xxxxx"]
    first = matrix_figure(info).data[0]
    assert (first.dimensions[0].label, first.name) == ("&lt;b&gt;", "mostly &lt;b&gt;")
    assert first.hovertext[0] == "&lt;b&gt; 1"
