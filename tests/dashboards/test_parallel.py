import numpy as np
import pytest

from moalign.dashboards import front_info, parallel_figure, parallel_info
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet
from moalign.preference import Preference


@pytest.fixture
def small() -> ParetoSet:
    """Three objectives, the third flat; the last point is dominated and asks for a and b alike."""
    rows = [
        ((1.0, 0.0, 0.0), (4.0, 0.0, 7.0)),
        ((0.0, 1.0, 0.0), (0.0, 2.0, 7.0)),
        ((1.0, 1.0, 0.0), (0.0, 1.0, 7.0)),
    ]
    points = [
        ParetoPoint(
            str(i), "modpo", Preference.of(dict(zip("abc", w, strict=True))), dict(zip("abc", v, strict=True)), {}, {}
        )
        for i, (w, v) in enumerate(rows)
    ]
    return ParetoSet(("a", "b", "c"), np.zeros(3), points)


def test_heights_are_shares_of_each_range(small) -> None:
    """a spans 0 to 4, b 0 to 2, c is flat at 7 and drawn at half height."""
    info = parallel_info(front_info(small))
    assert (info.low, info.high) == ((0.0, 0.0, 7.0), (4.0, 2.0, 7.0))
    assert [thread.heights for thread in info.threads] == [(1.0, 0.0, 0.5), (0.0, 1.0, 0.5), (0.0, 0.5, 0.5)]
    assert [thread.favours for thread in info.threads] == [0, 1, None]
    assert [thread.on_front for thread in info.threads] == [True, True, False]


def test_kinds_differ_in_more_than_colour(small) -> None:
    """Each kind has a colour, a dash and a symbol; a dominated one is fainter, and marks grow with the weight asked."""
    figure = parallel_figure(parallel_info(front_info(small)))
    drawn = [trace for trace in figure.data if not trace.showlegend and trace.showlegend is not None]
    assert len({trace.line.dash for trace in drawn}) == len({trace.marker.symbol for trace in drawn}) == 3
    assert sorted(trace.opacity for trace in drawn) == [0.25, 0.9, 0.9]
    favours_a = next(trace for trace in drawn if trace.legendgroup == "0")
    assert favours_a.marker.size.tolist() == [14.0, 3.0, 3.0, 0.0]
    assert [trace.name for trace in figure.data if trace.name] == ["no favourite", "mostly a", "mostly b"]


def test_two_thousand_points_stay_few_traces() -> None:
    """Points of one kind share a trace: nine objectives give at most ten kinds, each on the front or not."""
    rng = np.random.default_rng(0)
    names = tuple(f"o{i}" for i in range(9))
    points = [
        ParetoPoint(
            str(i),
            "modpo",
            Preference.of(dict(zip(names, rng.dirichlet(np.ones(9)), strict=True))),
            dict(zip(names, rng.normal(size=9).tolist(), strict=True)),
            {},
            {},
        )
        for i in range(2000)
    ]
    figure = parallel_figure(parallel_info(front_info(ParetoSet(names, np.zeros(9), points))))
    assert len(figure.data) <= 30


def test_too_few_objectives_or_points(make_set, small) -> None:
    """Two objectives have a plane; an empty set has nothing; both are told."""
    flat = parallel_info(front_info(make_set((1.0, 2.0), (2.0, 1.0))))
    assert flat.threads == ()
    assert parallel_figure(flat).layout.annotations[0].text == "Two objectives are better seen in the plane above."
    empty = parallel_info(front_info(ParetoSet(small.objectives, small.reference_point)))
    assert empty.note.startswith("No adapter has been measured")
