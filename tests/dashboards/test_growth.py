import pytest
from logged import Moment, course

from moalign.dashboards.charts import Chart, chart_figure
from moalign.dashboards.growth import volume_over_adapters, volume_over_steps
from moalign.history import History, Landing, Trace
from moalign.preference import Preference

NAMES = ("helpful", "brief")


def landed(*rows: tuple[float | None, int, int], names: tuple[str, ...] = NAMES) -> History:
    """Points with a volume, the adapters trained, and the steps taken by then."""
    asked = Preference.of({names[0]: 1.0})
    return History(
        names,
        (0.0,) * len(names),
        (),
        tuple(
            Landing(0.0, f"a{i}", asked, (), "NEW", volume, trained, steps, None, None)
            for i, (volume, trained, steps) in enumerate(rows)
        ),
    )


def over_adapters(found: History, current: str = "") -> Chart:
    return volume_over_adapters(found, [landing.adapter for landing in found.landings], current)


def over_steps(found: History) -> Chart:
    return volume_over_steps(found, [landing.adapter for landing in found.landings])


def rewarded(*courses: list[tuple[float | None, ...]], names: tuple[str, ...] = NAMES) -> History:
    """Adapters whose batches were rewarded so, step by step."""
    traces = (
        Trace(f"a{i}", (f"a{i}",), None, len(rows), course(Moment(s, rewards=row) for s, row in enumerate(rows, 1)))
        for i, rows in enumerate(courses)
    )
    return History(names, (0.0,) * len(names), tuple(traces), ())


def test_the_volume_over_adapters_goes_in_steps_and_marks_whom_one_looks_at() -> None:
    chart = over_adapters(landed((1.0, 1, 10), (1.5, 2, 10), (1.5, 3, 20)), "a1")
    assert (chart.across, chart.lines[0].x, chart.lines[0].y) == ("adapters trained", (1.0, 2.0, 3.0), (1.0, 1.5, 1.5))
    figure = chart_figure(chart)
    assert figure.data[0].line.shape == "hv"
    assert list(figure.data[0].customdata) == ["a0", "a1", "a2"]
    assert figure.data[0].hovertext[1] == "a1: hypervolume 1.50"
    assert (figure.data[1].x, figure.data[1].marker.symbol) == ((2.0,), "diamond")


def test_mixtures_of_few_adapters_are_counted_as_points() -> None:
    assert over_adapters(landed((1.0, 2, 10), (1.5, 2, 10))).across == "points measured"


def test_a_volume_that_nobody_knows_is_left_out() -> None:
    assert over_adapters(landed((None, 1, 10), (1.5, 2, 10))).lines[0].x == (2.0,)


def test_without_rewards_the_volume_is_that_of_points_over_all_steps_before_them() -> None:
    chart = over_steps(landed((1.0, 1, 100), (1.5, 2, 100), (2.0, 3, 160)))
    assert (chart.lines[0].x, chart.lines[0].y) == ((100.0, 100.0, 160.0), (1.0, 1.5, 2.0))


@pytest.mark.parametrize(
    ("rows", "why"),
    [((), "No point has landed"), (((1.0, 1, 0),), "No point has landed"), (((1.0, 1, 80), (2.0, 2, 80)), "same step")],
)
def test_one_instant_is_no_course(rows: tuple[tuple[float, int, int], ...], why: str) -> None:
    assert why in over_steps(landed(*rows)).note


def test_with_rewards_it_is_that_of_their_means_over_the_last_ten_steps() -> None:
    """Above (0, 0), one adapter stays at (2, 1), the other has (0, 0) ten times and then (1, 2): means of (s, 2s) / 10.

    After 20 steps the union of the boxes 2 x 1 and 1 x 2 is 3, at step 15 that of 2 x 1 and 1/2 x 1 is 2.
    """
    steady, late = [(2.0, 1.0)] * 20, [(0.0, 0.0)] * 10 + [(1.0, 2.0)] * 10
    (line,) = over_steps(rewarded(steady, late)).lines
    volumes = dict(zip(line.x, line.y, strict=True))
    assert volumes[10.0] == pytest.approx(2.0)
    assert volumes[15.0] == pytest.approx(2.0)
    assert volumes[18.0] == pytest.approx(2.0 + 0.8 * 0.6)
    assert volumes[20.0] == pytest.approx(3.0)


def test_rewards_that_are_not_known_count_nothing() -> None:
    """An adapter that has not begun, or whose objective failed, spans no volume, and breaks nothing."""
    (line,) = over_steps(rewarded([(2.0, 1.0)] * 3, [(None, 1.0)] * 3)).lines
    assert line.y == pytest.approx((2.0, 2.0, 2.0))


def test_of_many_objectives_rewards_would_take_too_long() -> None:
    names = tuple("abcde")
    assert over_steps(rewarded([(1.0,) * 5] * 3, names=names)).lines == ()


def test_the_rewards_of_rounds_are_no_points() -> None:
    rounds = Trace("rounds", ("r1",), None, 2, course(Moment(s, rewards=(1.0, 1.0)) for s in (1, 2)), "round")
    assert over_steps(History(NAMES, (0.0, 0.0), (rounds,), ())).lines == ()
