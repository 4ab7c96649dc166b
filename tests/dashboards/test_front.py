from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from moalign.dashboards import Band, Blend, front_figure, front_info
from moalign.dashboards.marks import Mark, band_rim, blend_paths, corner_labels
from moalign.dashboards.space import net
from moalign.frontiers import hypervolume
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet
from moalign.frontiers.simplex import lattice
from moalign.preference import Preference


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_info_is_a_plain_record() -> None:
    """One point asked for helpful only: its mark holds value, interval, weights and words, and two infos are equal."""
    point = ParetoPoint(
        "a1",
        "modpo",
        Preference.of({"helpful": 1.0}),
        {"helpful": 2.0, "brief": 1.0},
        {"helpful": 0.1, "brief": 0.2},
        {"helpful": (1.8, 2.3)},
        kl_to_reference=1.5,
    )
    info = front_info(ParetoSet(("helpful", "brief"), np.zeros(2), [point]))
    assert info.on_front == (
        Mark(
            adapter="a1",
            label="",
            values=(2.0, 1.0),
            low=(1.8, 1.0),
            high=(2.3, 1.0),
            asked=(1.0, 0.0),
            hover=("helpful 1", "helpful 2.00 ± 0.10", "brief 1.00 ± 0.20", "KL to reference 1.50 nats"),
        ),
    )
    assert info.dominated == info.blends == info.paths == info.exact == ()
    assert info == front_info(ParetoSet(("helpful", "brief"), np.ones(2), [point]))


def test_dominated_points_are_set_apart(make_set) -> None:
    """(1, 1) is beaten by (2, 2); (0, 3) is not."""
    info = front_info(make_set((2.0, 2.0), (1.0, 1.0), (0.0, 3.0)))
    assert [mark.adapter for mark in info.on_front] == ["a0", "a2"]
    assert [mark.adapter for mark in info.dominated] == ["a1"]
    assert [mark.adapter for mark in info.marks] == ["a0", "a2", "a1"]


def test_blends_run_from_one_adapter_to_the_other(make_set) -> None:
    """Rows (1/4, 3/4) and (3/4, 1/4) of a0 and a1, given in any order, are ordered by the share of a1."""
    points = make_set((0.0, 2.0), (2.0, 0.0))

    def blend(row: dict[str, float], helpful: float) -> Blend:
        return Blend(row, Preference.of({"helpful": 1.0}), {"helpful": helpful, "brief": 1.0}, {})

    blends = [
        blend({"a1": 0.75, "a0": 0.25}, 1.6),
        blend({"a0": 0.75, "a1": 0.25}, 0.6),
        blend({"a0": 0.5, "gone": 0.5}, 0.9),
        blend({"a0": 0.2, "a1": 0.3, "a2": 0.5}, 1.0),
        blend({"a0": 1.0, "a1": 0.0}, 1.0),
    ]
    assert blend_paths(blends, points, points.objectives) == (
        ((0.0, 2.0), (0.6, 1.0), (1.6, 1.0), (2.0, 0.0)),
        ((0.0, 2.0), (0.9, 1.0)),
    )


def test_corners_are_named_once(make_set) -> None:
    """Of three points the two that ask most for an objective are named; equal ones, and a single one, are not."""
    points = make_set((0.0, 2.0), (1.0, 1.5), (2.0, 0.0))
    assert corner_labels(points.points, points.objectives) == {"a2": "helpful 0.75", "a0": "brief 0.75"}
    equal = make_set((1.0, 1.0), (1.0, 1.0))
    assert len(corner_labels(equal.points, equal.objectives)) == 1
    assert corner_labels(points.points[:1], points.objectives) == {}


def test_figure_shows_every_layer(two) -> None:
    """Nine points on the front with their intervals, two dominated, twenty blends, the base, the exact front dotted."""
    figure = front_figure(front_info(two.front, two.base, two.blends, two.oracle))
    front = named(figure, "on the front")
    assert (len(front.x), len(named(figure, "dominated").x)) == (9, 2)
    assert front.error_x.array == pytest.approx([0.1] * 9)
    assert front.marker.symbol != named(figure, "dominated").marker.symbol != named(figure, "base model").marker.symbol
    assert len(named(figure, "blends of neighbours").x) == 20
    assert named(figure, "exact front").line.dash == "dot"
    assert [axis.title.text for axis in (figure.layout.xaxis, figure.layout.yaxis)] == ["helpful", "brief"]
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.legendgroup == "on the front"]
    assert list(lines[0].x) == sorted(lines[0].x)


def test_range_holds_everything(two) -> None:
    """Intervals and the exact front lie within the axes."""
    figure = front_figure(front_info(two.front, two.base, two.blends, two.oracle))
    low, high = figure.layout.xaxis.range
    assert low < -0.1
    assert high > 4.0


def test_three_objectives_stand_in_space(three) -> None:
    figure = front_figure(front_info(three.front, three.base, three.blends, three.oracle))
    assert {trace.type for trace in figure.data} == {"scatter3d"}
    assert figure.layout.scene.zaxis.title.text == "warm"


def test_more_objectives_become_pairs(five) -> None:
    """Ten pairs of five objectives; the six that conflict most are drawn."""
    figure = front_figure(five.front)
    assert sum(key.startswith("xaxis") for key in figure.layout.to_plotly_json()) == 6


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ((), "No adapter has been measured yet, so there is no front to show."),
        (((1.0, 2.0),), "Only one adapter has been measured: a trade-off needs at least two."),
        (((1.0, 2.0),) * 3, "All 3 adapters have exactly the same values: they lie on top of each other."),
        (((1.0, 2.0), (2.0, 1.0)), ""),
    ],
)
def test_unusual_fronts_are_told_in_a_sentence(make_set, rows, note) -> None:
    info = front_info(make_set(*rows))
    assert info.note == note
    figure = front_figure(info)
    if not rows:
        assert figure.layout.annotations[0].text == note


def test_one_objective_is_no_front() -> None:
    point = ParetoPoint("a", "modpo", Preference.of({"x": 1.0}), {"x": 1.0}, {}, {})
    info = front_info(ParetoSet(("x",), np.zeros(1), [point]))
    assert info.note.startswith("With a single objective")
    assert front_figure(info).layout.annotations[0].text == info.note


def test_names_are_shown_and_not_read(odd) -> None:
    """<b> stands on the axis as three characters, a name of 200 as 22; neither reaches Plotly as markup."""
    figure = front_figure(front_info(odd.front, odd.base, odd.blends, odd.oracle))
    assert figure.layout.xaxis.title.text == "&lt;b&gt;"
    assert len(figure.layout.yaxis.title.text) == 22
    assert "<b>&lt;b&gt; 1</b>" in named(figure, "on the front").hovertext[0]


def test_exact_front_is_sorted_and_finite(make_set) -> None:
    exact = np.array([[2.0, 0.0], [np.nan, 1.0], [0.0, 2.0]])
    assert front_info(make_set((1.0, 1.0)), oracle=exact).exact == ((0.0, 2.0), (2.0, 0.0))


def test_net_of_a_lattice() -> None:
    """A triangle in 2 divisions has 6 points, 4 small triangles and 9 edges."""
    assert len(net([tuple(row) for row in lattice(3, 2).tolist()])) == 9


def test_intervals_that_miss_the_value_draw_no_negative_bar(two) -> None:
    """A bootstrap interval may leave its own mean out; a bar of negative length would point the wrong way."""
    point = replace(two.front.points[0], intervals={"helpful": (9.0, 9.5)})
    figure = front_figure(ParetoSet(two.front.objectives, np.zeros(2), [point]))
    assert figure.data[0].error_x.arrayminus == (0.0,)


def area(rim) -> float:
    """Of a closed polygon, by the shoelace formula."""
    x, y = np.array(rim).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def test_the_band_is_the_area_between_two_surfaces() -> None:
    """From the lowest corners on: what the outer surface dominates less what the inner one does."""
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0.1, 1.4, size=6))
    outer = 3 * np.column_stack([np.cos(angles), np.sin(angles)])
    inner = outer[::2] - 0.4
    low = np.vstack([outer, inner]).min(axis=0)
    rim = band_rim(Band(outer, inner, ""))
    assert area(rim) == pytest.approx(hypervolume(outer, low) - hypervolume(inner, low))
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise((*rim, rim[0])))


def test_a_band_that_nothing_attains_has_no_rim() -> None:
    assert band_rim(Band(np.array([[1.0, 1.0]]), np.zeros((0, 2)), "")) == ()


def test_the_band_stands_behind_and_within_the_axes(two, three) -> None:
    band = Band(np.array([[1.0, 5.0], [6.0, 1.0]]), np.array([[1.0, 4.0], [3.0, 1.0]]), "in 90 % of all draws")
    info = front_info(two.front, band=band)
    assert info.band_meaning == "in 90 % of all draws"
    figure = front_figure(info)
    shaded = figure.data[0]
    assert (shaded.name, shaded.fill) == ("band of the front", "toself")
    assert max(shaded.x) < figure.layout.xaxis.range[1]
    assert max(shaded.y) < figure.layout.yaxis.range[1]
    assert front_info(two.front).band == front_info(three.front, band=band).band == ()
