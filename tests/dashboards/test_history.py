from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from logged import Moment, course

from moalign.dashboards.history import history_figures, history_info
from moalign.dashboards.thinning import averaged, number_of
from moalign.history import Course, History, Landing, Trace
from moalign.preference import Preference

NAMES = ("helpful", "brief")


def landing(key: str, volume: float = 1.0, steps: int = 0, trained: int = 1, kl: float | None = None) -> Landing:
    asked = Preference.of({"helpful": 1.0, "brief": 3.0})
    return Landing(0.0, key, asked, (1.0, 1.0), "NEW", volume, trained, steps, kl, None)


def trace(name: str, moments: list[Moment], adapters: tuple[str, ...] | None = None) -> Trace:
    return Trace(name, (name,) if adapters is None else adapters, None, moments[-1].step, course(moments))


def history(*traces: Trace, landings: tuple[Landing, ...] = (), names: tuple[str, ...] = NAMES) -> History:
    return History(names, (0.0,) * len(names), traces, landings)


def chart(found: History, title: str, current: str = ""):
    return next(each for each in history_info(found, current).charts if each.title.startswith(title))


def test_of_a_run_that_has_not_begun_every_chart_says_so_in_a_sentence() -> None:
    info = history_info(history())
    assert info.label == ""
    assert all(not each.lines and each.note.endswith(".") for each in info.charts)
    for each, figure in zip(info.charts, history_figures(info), strict=True):
        assert len(figure.data) == 0
        assert each.title in figure.layout.annotations[0].text


def test_the_adapter_that_is_looked_at_stands_out_and_the_others_are_faint() -> None:
    found = history(*(trace(key, [Moment(1, kl=kl), Moment(2, kl=2 * kl)]) for key, kl in (("a", 1.0), ("b", 2.0))))
    looked_at = chart(found, "Divergence", "a")
    assert [(line.x, line.y) for line in looked_at.lines] == [((1.0, 2.0), (1.0, 2.0))]
    assert [(line.x, line.y) for line in looked_at.faint] == [((1.0, 2.0), (2.0, 4.0))]
    assert chart(found, "Divergence").lines[0].y == (2.0, 4.0)  # nobody is chosen: the last


def test_the_loss_of_a_group_is_that_of_each_of_its_adapters() -> None:
    found = history(trace("group-1", [Moment(10, loss=0.5)], ("a", "b")), trace("c", [Moment(10, loss=0.25)]))
    assert chart(found, "Loss", "b").lines[0].y == (0.5,)
    assert chart(found, "Loss", "b").remark == "Of 2 adapters side by side."
    assert "nothing is logged" in chart(found, "Loss", "d").remark


def test_a_loss_that_is_rounding_is_not_drawn() -> None:
    assert "rounding" in chart(history(trace("a", [Moment(10, loss=-3e-9)])), "Loss").note


def test_weights_have_a_line_for_each_objective_with_its_colour_and_dash() -> None:
    moving = trace("a", [Moment(1, weights=(0.5, 0.5)), Moment(2, weights=(0.75, 0.25))])
    lines = chart(history(moving), "Weights").lines
    assert [(line.name, line.y, line.column, line.dash) for line in lines] == [
        ("helpful", (0.5, 0.75), 0, 0),
        ("brief", (0.5, 0.25), 1, 1),
    ]


def test_weights_that_never_move_are_a_sentence() -> None:
    assert "fixed" in chart(history(trace("a", [Moment(s, weights=(0.5, 0.5)) for s in (1, 2)])), "Weights").note


def test_conflict_is_the_mean_cosine_of_the_last_steps() -> None:
    """Cosines 1, 0 and -1 in turn: means 1, 1/2 and 0 over all steps so far."""
    grams = [((4.0, c), (c, 1.0)) for c in (2.0, 0.0, -2.0)]
    found = history(trace("a", [Moment(s, gram=gram) for s, gram in enumerate(grams, 1)]))
    (line,) = chart(found, "Gradient").lines
    assert line.name == "helpful and brief"
    assert line.y == pytest.approx((1.0, 0.5, 0.0))


def test_gradients_at_right_angles_are_a_line_at_zero() -> None:
    found = history(trace("a", [Moment(s, gram=((1.0, 0.0), (0.0, 1.0))) for s in (1, 2)]))
    assert chart(found, "Gradient").lines[0].y == (0.0, 0.0)


def test_a_faint_line_has_what_was_logged_seldom() -> None:
    """One step in ten has a loss, none of them where a share of all steps would look."""
    moments = [Moment(step, loss=1.0 if step % 10 == 0 else None, kl=1.0) for step in range(1, 1001)]
    found = history(*(trace(key, moments) for key in "abcdefgh"))
    assert all(len(line.x) == 100 for line in chart(found, "Loss", "a").faint)


def test_a_gradient_of_zero_conflicts_with_nothing() -> None:
    found = history(trace("a", [Moment(1, gram=((0.0, 0.0), (0.0, 1.0)))]))
    assert np.isnan(found.traces[0].course.cosines(0, 1)).all()
    assert chart(found, "Gradient").note == "Every gradient that has been logged is 0, and so conflicts with nothing."


def test_of_many_pairs_those_that_conflict_most_are_drawn() -> None:
    """Five objectives have ten pairs; the six lowest of cosines 0.0, 0.1, ..., 0.9 are drawn, from the lowest."""
    names = tuple("abcde")
    gram = [[1.0] * 5 for _ in names]
    for number, (i, j) in enumerate(combinations(range(5), 2)):
        gram[i][j] = gram[j][i] = number / 10
    found = history(trace("x", [Moment(1, gram=tuple(map(tuple, gram)))]), names=names)
    drawn = chart(found, "Gradient")
    assert [line.y[0] for line in drawn.lines] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert "4 pairs that conflict less are left out" in drawn.remark


def test_a_spike_does_not_outlive_its_window() -> None:
    """A loss of 1e20 in step 3, and 1 ever after: the mean of ten is 1 again as soon as the spike has left it."""
    losses = np.ones((20, 1))
    losses[3] = 1e20
    (_, values), _ = averaged(Course(np.arange(20), {"loss": losses}), number_of("loss"), 10)
    assert values[:3] == (1.0, 1.0, 1.0)
    assert values[13:] == (1.0,) * 7


def test_a_cosine_is_that_of_both_orders() -> None:
    found = Course(np.array([1]), {"gram": np.array([[4.0, -1.0, 1.0]])})
    assert found.cosines(0, 1).tolist() == found.cosines(1, 0).tolist() == [-0.5]


def test_a_long_course_is_averaged_and_a_faint_one_thinned() -> None:
    """1,000 steps whose KL is the step: 200 means of 5, the first of 1 to 5."""
    moments = [Moment(step, kl=float(step)) for step in range(1, 1001)]
    drawn = chart(history(*(trace(key, moments) for key in "abc")), "Divergence", "a")
    assert len(drawn.lines[0].x) == 200
    assert (drawn.lines[0].x[0], drawn.lines[0].y[0]) == (3.0, 3.0)
    assert all(line.x == line.y and len(line.x) <= 240 for line in drawn.faint)
    assert drawn.remark.endswith("Means of 5 steps. Of the faint lines one step in 5.")


def test_of_more_than_a_hundred_others_an_even_share_is_drawn() -> None:
    found = history(*(trace(f"a{i}", [Moment(1, kl=float(i))]) for i in range(301)))
    faint = chart(found, "Divergence", "a300").faint
    assert [line.y[0] for line in faint] == [3.0 * i for i in range(100)]
    assert "Of 300 others 100 are drawn." in chart(found, "Divergence", "a300").remark


def test_what_is_not_logged_in_training_is_shown_of_the_points() -> None:
    found = history(landings=(landing("a", kl=1.5), landing("b"), landing("c", kl=0.0)))
    (line,) = chart(found, "Divergence").lines
    assert (line.x, line.y, line.keys, line.joined) == ((1.0, 3.0), (1.5, 0.0), ("a", "c"), False)
    assert chart(found, "Length").note == "Nothing has been logged of it yet."


def test_a_name_is_text_and_never_html() -> None:
    asked = Preference.of({"<b>": 1.0, "c": 3.0})
    found = history(
        trace("a", [Moment(1, weights=(0.5, 0.5)), Moment(2, weights=(0.75, 0.25))]),
        landings=(replace(landing("a"), preference=asked),),
        names=("<b>", "x" * 200),
    )
    info = history_info(found)
    weights = history_figures(info)[2]
    assert [drawn.name for drawn in weights.data] == ["&lt;b&gt;", "x" * 11 + "…" + "x" * 10]
    over_adapters = history_figures(info)[1]
    assert over_adapters.data[0].hovertext == ("&lt;b&gt; 0.25: hypervolume 1.00",)


@pytest.mark.parametrize("unit", ["round", "step"])
def test_traces_of_another_unit_share_no_axis(unit: str) -> None:
    rounds = Trace("rounds", ("r1",), None, 1, course([Moment(1, length=5.0)]), "round")
    steps = trace("a", [Moment(40, length=9.0)])
    found = chart(history(rounds, steps), "Length", "a" if unit == "step" else "r1")
    assert (found.across, len(found.faint)) == (unit, 0)


def test_a_step_without_the_number_is_left_out_and_not_drawn_as_zero() -> None:
    found = history(trace("a", [Moment(1, kl=1.0), Moment(2), Moment(3, kl=3.0)]))
    assert chart(found, "Divergence").lines[0].x == (1.0, 3.0)
