from collections.abc import Callable

import numpy as np
import pytest

from moalign.dashboards import Band
from moalign.dashboards.versus import apart, versus_figure, versus_info
from moalign.frontiers.comparison import Comparison
from moalign.frontiers.pareto_set import ParetoSet

NAMES = ("old", "new")


@pytest.fixture
def fronts(make_set: Callable[..., ParetoSet]) -> tuple[ParetoSet, ParetoSet]:
    return make_set((1.0, 4.0), (3.0, 2.0), (2.0, 1.0)), make_set((2.0, 5.0), (4.0, 3.0))


def test_both_fronts_are_drawn_in_one_plane_with_marks_and_dashes_of_their_own(fronts) -> None:
    figure = versus_figure(versus_info(NAMES, fronts))
    shown = [trace for trace in figure.data if trace.showlegend]
    assert [trace.name for trace in shown] == ["old", "new"]
    assert [list(trace.x) for trace in shown] == [[1.0, 3.0], [2.0, 4.0]]
    assert [trace.marker.symbol for trace in shown] == ["circle", "square"]
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [trace.line.dash for trace in lines] == ["solid", "dash"]
    assert {trace.line.shape for trace in lines} == {"vh"}
    faint = next(trace for trace in figure.data if trace.name == "old, dominated")
    assert list(faint.x) == [2.0]


def test_bands_stand_in_for_error_bars(fronts) -> None:
    band = Band(np.array([[2.0, 3.0]]), np.array([[1.0, 2.0]]), "in 90 % of all samples of the prompts")
    bare, banded = (versus_figure(versus_info(NAMES, fronts, bands)) for bands in ((None, None), (band, band)))
    assert [trace.fill for trace in banded.data[:2]] == ["toself", "toself"]
    assert all(trace.error_x.array is None for trace in banded.data)
    assert any(trace.error_x.array is not None for trace in bare.data)


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (
            Comparison(-2.0, -3.0, -1.0, 0.01),
            "new has 2.00 more hypervolume than old (95 % of the draws of the prompts: 1.00 to 3.00; p = 0.010).",
        ),
        (
            Comparison(0.5, -1.0, 2.0, 0.4),
            "old has 0.500 more hypervolume than new "
            "(95 % of the draws of the prompts: \N{MINUS SIGN}1.00 to 2.00; p = 0.400): "
            "that may well be the draw of the prompts.",
        ),
        (Comparison(0.0, 0.0, 0.0, 1.0), "old and new have the same hypervolume on every draw of the prompts."),
    ],
)
def test_the_verdict_says_which_reaches_more_and_how_sure_that_is(fronts, comparison, verdict) -> None:
    info = versus_info(NAMES, fronts, volumes=(8.0, 10.0), comparison=comparison)
    assert info.verdict == verdict
    assert info.hypervolumes == ("8.00", "10.0")
    assert info.reference == "Counted from one point for both, that of old: helpful 0.00, brief 0.00."


def test_without_a_comparison_it_says_why_and_has_the_volumes_nevertheless(fronts) -> None:
    """Above (0, 0): 1 x 4 and 3 x 2 are 8 together, 2 x 5 and 4 x 3 are 16."""
    info = versus_info(NAMES, fronts, why="Other prompts.")
    assert (info.verdict, info.hypervolumes) == ("Other prompts.", ("8.00", "16.0"))


def test_both_volumes_count_from_the_reference_point_of_the_first(fronts) -> None:
    elsewhere = ParetoSet(fronts[1].objectives, np.array([-9.0, -9.0]), fronts[1].points)
    assert versus_info(NAMES, (fronts[0], elsewhere)).hypervolumes == ("8.00", "16.0")


def test_of_many_objectives_no_volume_is_computed(five) -> None:
    assert versus_info(NAMES, (five.front, five.front)).hypervolumes == ()


def test_other_objectives_share_no_plane() -> None:
    info = apart(NAMES, (("a", "b"), ("a", "c")))
    assert info.note == "old is about a and b; new about a and c: other objectives, so they share no plane."
    assert "another order" in apart(NAMES, (("a", "b"), ("b", "a"))).note
    assert "they share" in versus_figure(info).layout.annotations[0].text
    assert len(versus_figure(info).data) == 0


def test_fronts_of_other_objectives_are_told_apart(fronts) -> None:
    other = ParetoSet(("helpful", "warm"), np.zeros(2))
    assert "other objectives" in versus_info(NAMES, (fronts[0], other)).note


def test_an_empty_front_is_named(make_set) -> None:
    info = versus_info(NAMES, (make_set((1.0, 1.0)), make_set()))
    assert info.note == "No adapter of new has been measured yet."
    assert len(versus_figure(info).data) == 0


@pytest.mark.parametrize("rows", [[(1.0, 1.0)], [(1.0, 1.0)] * 3, [(1.0, 1.0), (1.0, 2.0)]])
def test_one_point_equal_points_and_a_flat_objective_are_drawn(make_set, rows) -> None:
    assert len(versus_figure(versus_info(NAMES, (make_set(*rows), make_set(*rows)))).data) >= 2


def test_of_more_objectives_a_pair_is_drawn_without_lines(five) -> None:
    info = versus_info(NAMES, (five.front, five.front), pair=(1, 3))
    figure = versus_figure(info)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("brief", "careful")
    assert all(trace.mode == "markers" for trace in figure.data)
    assert versus_info(NAMES, (five.front, five.front)).pair in [(i, j) for i in range(5) for j in range(i + 1, 5)]


def test_names_are_text(fronts) -> None:
    figure = versus_figure(versus_info(("<script>", "b" * 200), fronts))
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert shown == ["&lt;script&gt;", "b" * 11 + "…" + "b" * 10]
