import math
from dataclasses import replace

import pytest

from moalign.dashboards import control_figure, control_info
from moalign.frontiers import ParetoSet, Violation


def test_order_kept_and_order_broken(make_set) -> None:
    """Asked for helpful in the order 1, 2, 3: attained 1, 2, 3 has tau 1.

    Brief is asked for in the order 3, 2, 1 and attains 5, 6, 4: of three pairs two keep the order, tau = (2 - 1) / 3.
    """
    info = control_info(make_set((1.0, 5.0), (2.0, 6.0), (3.0, 4.0)))
    assert [panel.objective for panel in info.panels] == ["helpful", "brief"]
    assert [panel.tau for panel in info.panels] == pytest.approx([1.0, 1 / 3])
    assert info.panels[0].on_front == (False, True, True)
    assert [mark.asked for mark in info.panels[0].marks] == [(0.25, 0.75), (0.5, 0.5), (0.75, 0.25)]
    assert info == control_info(make_set((1.0, 5.0), (2.0, 6.0), (3.0, 4.0)))


def test_flat_objective_has_no_order(make_set) -> None:
    """Without two different values no order exists: the title says so and shows no NaN. The other order is reversed."""
    info = control_info(make_set((1.0, 5.0), (1.0, 6.0)))
    assert info.panels[0].tau is None
    titles = [annotation.text for annotation in control_figure(info).layout.annotations]
    assert titles == ["<b>helpful</b>   no order", "<b>brief</b>   τ = \N{MINUS SIGN}1.00   1 violation"]


def test_figure_holds_every_panel(two) -> None:
    """Hollow marks are dominated, the base model is a dotted level across, and each part can stand alone."""
    info = control_info(two.front, two.base)
    figure = control_figure(info)
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    assert [len(trace.x) for trace in marks] == [11, 11]
    assert sum(symbol == "circle-open" for symbol in marks[0].marker.symbol) == 2
    assert [set(trace.y) for trace in figure.data if trace.mode == "lines"] == [{1.1}, {1.1}]
    assert [len(part.panels) for part in info.split()] == [1, 1]


def test_violations_beyond_the_noise_are_joined(make_set) -> None:
    """Brief, asked .25, .5, .75: attained 4, 6, 5; the step down of 1 is beyond 1.96 x .07, one of .1 is not."""
    info = control_info(make_set((1.0, 5.0), (2.0, 6.0), (3.0, 4.0)))
    assert [panel.violations for panel in info.panels] == [(), (Violation((1,), (0,), 1.0),)]
    assert info.violations == 1
    line = next(trace for trace in control_figure(info).data if trace.name == "violation")
    assert (line.x, line.y) == ((0.5, 0.75), (6.0, 5.0))
    assert line.hovertext == "asked for more, attained 1.00 less"
    assert control_info(make_set((1.0, 5.9), (2.0, 6.0), (3.0, 4.0))).violations == 0


def test_an_unknown_error_hides_no_violation(make_set) -> None:
    points = make_set((1.0, 5.0), (2.0, 6.0), (3.0, 4.0))
    unknown = [replace(point, standard_errors={"helpful": math.nan}) for point in points]
    assert control_info(ParetoSet(points.objectives, points.reference_point, unknown)).violations == 1


def test_nothing_measured(make_set) -> None:
    info = control_info(make_set())
    assert info.panels == info.split() == ()
    assert control_figure(info).layout.annotations[0].text == info.note
