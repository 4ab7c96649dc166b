"""The weights: every mark at its place, what can be clicked, and a shade that is the map's own word."""

from itertools import pairwise
from math import dist, sqrt

import numpy as np
import plotly.graph_objects as go
import pytest

from moalign.dashboards.bars import Bar, bars_figure
from moalign.dashboards.front import front_info
from moalign.dashboards.shading import BANDS, Shade, bands, map_shade, place, triangle
from moalign.dashboards.simplex import simplex_figure, simplex_info
from moalign.errors import PreferenceError
from moalign.frontiers import ParetoPoint, ParetoSet, corners, fit_calibration, lattice
from moalign.preference import Preference

NAMES = ("helpful", "brief", "warm")


def traces(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.name}


def texts(figure: go.Figure) -> list[str]:
    return [note.text for note in figure.layout.annotations]


def area(polygon):
    x, y = np.array(polygon).T
    return abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2


@pytest.fixture(scope="module")
def curved():
    """Three adapters that have one objective each, and no blend: the map is flat between them."""
    return fit_calibration(np.eye(3), 4 * np.eye(3), np.full((3, 3), 0.1), corners(3))


def test_the_triangle_is_equilateral_and_linear():
    """Sides of length 1, and the middle of all weights in the middle of the corners."""
    ends = [place(row) for row in corners(3).tolist()]
    assert [dist(ends[i], ends[i - 1]) for i in range(3)] == pytest.approx([1, 1, 1])
    assert place((1 / 3, 1 / 3, 1 / 3)) == pytest.approx((0.5, sqrt(3) / 6))


def test_every_mark_stands_where_it_was_asked_to_go(three):
    now = Preference.of({"helpful": 0.5, "brief": 0.3, "warm": 0.2})
    info = simplex_info(front_info(three.front), now)
    drawn = traces(simplex_figure(info))
    asked = {point.adapter: tuple(point.preference.vector(NAMES).tolist()) for point in three.front}
    front = {point.adapter for point in three.front.front}
    for name, wanted in (("on the front", front), ("dominated", set(asked) - front)):
        assert {row[0] for row in drawn[name].customdata} == wanted
        for x, y, (adapter, *weights) in zip(drawn[name].x, drawn[name].y, drawn[name].customdata, strict=True):
            assert tuple(weights) == asked[adapter]
            assert (x, y) == pytest.approx(place(weights))
    assert (drawn["chosen now"].x[0], drawn["chosen now"].y[0]) == pytest.approx(place((0.5, 0.3, 0.2)))


def test_anywhere_else_can_be_clicked(three):
    """231 faint dots, 5 % apart, each with no adapter and the weights at its place."""
    dots = traces(simplex_figure(simplex_info(front_info(three.front))))["any weights"]
    assert len(dots.x) == 231
    for x, y, (adapter, *weights) in zip(dots.x, dots.y, dots.customdata, strict=True):
        assert adapter == ""
        assert (x, y) == pytest.approx(place(weights))
    assert "chosen now" not in traces(simplex_figure(simplex_info(front_info(three.front))))


def test_two_objectives_are_a_line(two):
    figure = simplex_figure(simplex_info(front_info(two.front), Preference.of({"helpful": 0.3, "brief": 0.7})))
    drawn = traces(figure)
    assert all(
        x == row[2] and row[1] == pytest.approx(1 - x)
        for name in ("on the front", "dominated")
        for x, row in zip(drawn[name].x, drawn[name].customdata, strict=True)
    )
    assert drawn["chosen now"].x == (0.7,)
    assert texts(figure) == ["<b>helpful</b> 30 %", "<b>brief</b> 70 %"]


def test_more_are_bars(five):
    info = simplex_info(front_info(five.front), Preference.of({"helpful": 0.35, "warm": 0.65}))
    (bars,) = simplex_figure(info).data
    assert bars.x == (0.35, 0.0, 0.65, 0.0, 0.0)
    assert texts(simplex_figure(info))[:4] == ["helpful", "35 %", "brief", "0 %"]
    assert info.note == "Now: helpful 35 %, brief 0 %, warm 65 %, careful 0 % and format 0 %."


def test_the_note_tells_what_is_drawn(three, curved):
    now = Preference.of({"helpful": 0.5, "brief": 0.3, "warm": 0.2})
    assert simplex_info(front_info(three.front), now, map_shade(curved, NAMES, "helpful")).note == (
        "Now: helpful 50 %, brief 30 % and warm 20 %. 15 policies were trained at the marked weights; 13 of them are "
        "on the front. The stronger the colour, the more: predicted helpful, from 0.00 to 4.00."
    )


def test_the_same_set_gives_the_same_record(three):
    assert simplex_info(front_info(three.front)) == simplex_info(front_info(three.front))
    assert simplex_info(front_info(three.front)) != simplex_info(
        front_info(three.front), Preference.of({"helpful": 1.0})
    )


@pytest.mark.parametrize("objective", [None, "helpful", "warm"])
def test_a_shade_is_what_the_map_predicts_of_its_own_choice(objective):
    """At every lattice point as good for the weights as the mixture that the calibration finds, to 0.5 %."""
    rows = np.vstack([np.eye(3), lattice(3, 2)[[1, 2, 4]]])
    values = rows @ (4 * np.eye(3)) + 1.6 * np.stack([rows[:, 0] * rows[:, 1]] * 3, axis=1)
    known = fit_calibration(rows, values, np.full(values.shape, 0.05), corners(3))
    shade = map_shade(known, NAMES, objective)
    for i in range(0, len(triangle()), 23):
        weights = np.array(triangle()[i])
        attained = known.predict(known.row_for_preference(weights))[0]
        expected = weights @ attained if objective is None else attained[NAMES.index(objective)]
        if objective is None or np.sort(weights)[-1] > 0.7:  # in the middle a tie may go either way
            assert shade.values[i] == pytest.approx(expected, abs=0.05)


def test_bands_cover_the_triangle_once():
    """Their areas sum to that of the triangle; of a linear value, each has the area that geometry gives."""
    linear = bands(Shade("first", tuple(row[0] for row in triangle())))
    areas = [sum(area(polygon) for polygon in band.polygons) for band in linear]
    whole = sqrt(3) / 4
    cut = [(1 - i / BANDS) ** 2 * whole for i in range(BANDS + 1)]
    assert areas == pytest.approx([low - high for low, high in pairwise(cut)])
    assert [band.low for band in linear] == ["0.00", "0.20", "0.40", "0.60", "0.80"]
    rough = bands(Shade("rough", tuple(np.random.default_rng(0).normal(size=231).tolist())))
    assert sum(area(polygon) for band in rough for polygon in band.polygons) == pytest.approx(whole)


def test_a_flat_shade_is_one_band_and_nan_is_left_out():
    (flat,) = bands(Shade("flat", (2.5,) * 231))
    assert (flat.low, flat.high) == ("2.50", "2.50")
    assert sum(area(polygon) for polygon in flat.polygons) == pytest.approx(sqrt(3) / 4)
    holed = bands(Shade("holed", (float("nan"), *(row[0] for row in triangle()[1:]))))
    assert 0 < sum(area(polygon) for band in holed for polygon in band.polygons) < sqrt(3) / 4
    assert bands(Shade("nothing", (float("nan"),) * 231)) == ()


@pytest.mark.parametrize("value", [2.5, float("nan")])
def test_an_odd_shade_is_drawn_without_complaint(three, value):
    figure = simplex_figure(simplex_info(front_info(three.front), shade=Shade("odd", (value,) * 231)))
    assert "on the front" in traces(figure)


def test_a_shade_has_a_key_with_its_numbers(three, curved):
    figure = simplex_figure(simplex_info(front_info(three.front), None, map_shade(curved, NAMES, "brief")))
    assert texts(figure)[:7] == ["0.00", "0.80", "1.60", "2.40", "3.20", "4.00", "predicted brief"]
    corner = triangle().index((0.0, 1.0, 0.0))
    assert traces(figure)["any weights"].hovertext[corner].endswith("<br>predicted brief 4.00")


def test_an_unknown_objective_is_refused(three, curved):
    with pytest.raises(PreferenceError, match="did you mean 'helpful'"):
        map_shade(curved, NAMES, "helpfull")
    with pytest.raises(PreferenceError, match="unknown objective"):
        simplex_info(front_info(three.front), Preference.of({"shiny": 1.0}))


def test_what_cannot_be_drawn_is_said(bare, five, make_set):
    empty, one, equal = bare().front, make_set((1.0, 2.0)), make_set((1.0, 2.0), (1.0, 2.0))
    single = ParetoSet(("helpful",), np.zeros(1))
    assert simplex_info(front_info(empty)).note.startswith("No adapter has been measured yet")
    assert simplex_info(front_info(single)).note.startswith("No adapter has been measured yet")
    assert simplex_info(front_info(five.front)).note == "No weights are chosen yet."
    single.add(ParetoPoint("a", "modpo", Preference.of({"helpful": 1.0}), {"helpful": 2.0}, {}, {}))
    assert simplex_info(front_info(single)).note.startswith("With a single objective there is no trade-off")
    for front in (empty, single, five.front):
        assert texts(simplex_figure(simplex_info(front_info(front)))) == [simplex_info(front_info(front)).note]
    assert simplex_info(front_info(one)).note == "One policy was trained at the marked weights; it is on the front."
    assert (
        simplex_info(front_info(equal)).note == "2 policies were trained at the marked weights; all are on the front."
    )
    assert len(traces(simplex_figure(simplex_info(front_info(one))))["on the front"].x) == 1


def test_names_are_text(odd):
    figure = simplex_figure(simplex_info(front_info(odd.front), Preference.of({"<b>": 1.0})))
    assert texts(figure)[0] == "<b>&lt;b&gt;</b> 100 %"
    assert all(len(text) < 60 for text in texts(figure))
    written = bars_figure([Bar("<script>alert(1)</script>", 0.5, "50 %")])
    assert texts(written)[0] == "&lt;script&gt;alert(1)&lt;/script&gt;"
