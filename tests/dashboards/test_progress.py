from moalign.dashboards.progress import progress_figure, progress_info
from moalign.history import Progress, Standing
from moalign.preference import Preference

NAMES = ("helpful", "brief")
HALF = Preference.of({"helpful": 1.0, "brief": 1.0})


def test_rows_say_what_is_asked_how_far_it_is_and_why_it_stopped() -> None:
    standings = (
        Standing("x", HALF, "k", "training", 40, 200),
        Standing("round1", None, "r", "trained", 300, None, "kl above 8"),
        Standing("y", HALF, "", "waiting"),
    )
    rows = progress_info(Progress(standings, 0, 3, 0, 1), NAMES).rows
    assert [(row.asked, row.state, row.steps, row.share, row.note) for row in rows] == [
        ("helpful 0.5 · brief 0.5", "in training", "step 40 of 200", 0.2, ""),
        ("round1", "trained", "step 300", None, "stopped early: kl above 8"),
        ("helpful 0.5 · brief 0.5", "waiting", "", None, ""),
    ]


def test_the_sentence_counts_and_says_whether_anybody_is_at_work() -> None:
    """What an explorer has not chosen yet waits too."""
    standings = (Standing("x", HALF, "k", "measured"), Standing("y", HALF, "l", "paused", 3))
    working = progress_info(Progress(standings, 1, 4, 2, 2), NAMES)
    assert working.sentence == "1 of 4 adapters trained; 1 of 4 points measured; 2 workers at work."
    assert working.counts == (("measured", 1), ("paused", 1), ("waiting", 2))
    assert working.live
    left = progress_info(Progress(standings, 1, 4, 2, 0), NAMES)
    assert "nobody is at work" in left.sentence
    assert not left.live


def test_a_sweep_that_has_ended_says_nothing_of_workers() -> None:
    info = progress_info(Progress((Standing("x", HALF, "k", "measured", stopped="kl"),), 1, 1, 0, 0), NAMES)
    assert info.sentence == "1 of 1 adapter trained; 1 of 1 points measured; 1 adapter stopped early."


def test_the_strip_has_a_part_for_each_state_that_differs_in_more_than_colour() -> None:
    states = ("measured", "trained", "training", "paused", "waiting")
    standings = tuple(Standing(state, HALF, "k", state) for state in states)
    figure = progress_figure(progress_info(Progress(standings, 1, 5, 0, 1), NAMES))
    assert [trace.name for trace in figure.data] == [
        "1 measured",
        "1 trained",
        "1 in training",
        "1 paused",
        "1 waiting",
    ]
    looks = [(trace.marker.pattern.shape, trace.marker.color) for trace in figure.data]
    assert len({shape for shape, _ in looks[1:]}) == 4
    assert len({colour for _, colour in looks}) == 5


def test_without_adapters_there_is_a_sentence() -> None:
    figure = progress_figure(progress_info(Progress((), 0, 0, 0, 0), NAMES))
    assert "no adapters" in figure.layout.annotations[0].text
