"""The current trade-off: what is mixed, what is promised, and on which side of the front that lies."""

import pytest

from moalign.dashboards.bars import Bar
from moalign.dashboards.explorer.tradeoff import predictions
from moalign.dashboards.tradeoff import SOURCES, Outlook, TradeoffInfo, promise, tradeoff_info


def plan(rows, predicted=None, source="interpolated", shares=(1.0,), direction=None):
    """A plan as `Plan.as_dict` writes it: values with an interval of 0.2 to either side."""
    told = {
        name: {"value": value, "standard_error": 0.1, "interval": [value - 0.2, value + 0.2]}
        for name, value in (predicted or {}).items()
    }
    lanes = [{"row": row, "share": share} for row, share in zip(rows, shares, strict=True)]
    return {
        "policy": "interpolate",
        "preference": None,
        "direction": direction,
        "lanes": lanes,
        "predicted": told,
        "source": source,
    }


@pytest.fixture
def front(make_set):
    """Three adapters on a front, at (4, 0), (3, 3) and (0, 4), and one inside it at (2, 2)."""
    return make_set((4.0, 0.0), (3.0, 3.0), (0.0, 4.0), (2.0, 2.0))


def test_the_mixture_is_told_by_what_its_adapters_were_asked(front):
    """Adapters 0 and 1 of 4 were asked for 1 to 4 and 2 to 3."""
    info = tradeoff_info(plan([{"a0": 0.25, "a1": 0.75}], {"helpful": 3.25, "brief": 2.25}), front)
    assert info.parts == (Bar("brief60-helpful40", 0.75, "75 %"), Bar("brief80-helpful20", 0.25, "25 %"))
    assert info.note == (
        "Mixed: 75 % brief60-helpful40 and 25 % brief80-helpful20. Values: helpful 3.25 (3.05 to 3.45) and brief "
        f"2.25 (2.05 to 2.45). {SOURCES['interpolated']} It lies on the front: no measured policy is as good in "
        "everything."
    )


def test_lanes_count_by_their_shares_and_no_row_is_the_base(front):
    lanes = [{"a0": 0.5, "a1": 0.5}, {"a1": 1.0}, {}]
    info = tradeoff_info(plan(lanes, source="unknown", shares=(0.5, 0.3, 0.2)), front)
    assert [(part.name, part.share) for part in info.parts] == [
        ("brief60-helpful40", pytest.approx(0.55)),
        ("brief80-helpful20", pytest.approx(0.25)),
        ("base model", pytest.approx(0.2)),
    ]
    assert info.where == "unknown"
    assert info.note.endswith(SOURCES["unknown"])
    steering = tradeoff_info(plan([{"a0": 1.0}, {}], source="unknown", shares=(1.0, 0.0)), front)
    assert [part.name for part in steering.parts] == ["brief80-helpful20"]


def test_adapters_that_nobody_measured_and_twins_keep_their_keys(make_set):
    """Asked for the same twice, an adapter is called by its key; so is one that is no point."""
    twins = make_set((4.0, 0.0), (3.0, 3.0), (0.0, 4.0))
    twins.points[2] = twins.points[2].__class__(
        "a2", "modpo", twins.points[0].preference, twins.points[2].values, {}, {}
    )
    info = tradeoff_info(plan([{"a0": 0.5, "a2": 0.3, "other": 0.2}]), twins)
    assert [part.name for part in info.parts] == ["a0", "a2", "other"]


def test_of_many_adapters_the_rest_is_summed_up(front):
    info = tradeoff_info(plan([{f"x{i}": (12 - i) / 78 for i in range(12)}]), front)
    assert len(info.parts) == 9
    assert (info.parts[-1].name, info.parts[-1].said) == ("4 more", "12.8 %")
    assert sum(part.share for part in info.parts) == pytest.approx(1.0)


def test_the_range_is_that_of_the_front_and_the_base(front, two):
    """The dominated point counts nothing; a base at 1.1 lies inside, one at -1 widens the range."""
    base = two.base.__class__("base", "base", two.base.preference, {"helpful": -1.0, "brief": 1.1}, {}, {})
    helpful, brief = tradeoff_info(plan([{"a0": 1.0}], {"helpful": 4.0, "brief": 0.0}), front, base).outlooks
    assert (helpful.low, helpful.high) == (-1.0, 4.0)
    assert (brief.low, brief.high) == (0.0, 4.0)
    assert helpful.interval == (3.8, 4.2)


@pytest.mark.parametrize(
    ("values", "where", "said"),
    [
        ((3.0, 3.0), "on the front", "no measured policy"),
        ((3.5, 1.5), "on the front", "no measured policy"),
        ((1.0, 2.9), "inside", "brief60-helpful40 is at least as good in everything."),
        ((2.95, 2.9), "inside", "though by no more than the intervals allow."),
    ],
)
def test_where_it_lies(front, values, where, said):
    info = tradeoff_info(plan([{"a0": 1.0}], dict(zip(("helpful", "brief"), values, strict=True))), front)
    assert info.where == where
    assert info.note.endswith(said) or said in info.note


def test_a_direction_is_told(front):
    info = tradeoff_info(plan([{"a0": 1.0}], direction={"helpful": 0.8, "brief": -0.6}), front)
    assert "The prompt states the direction helpful 0.80 and brief \N{MINUS SIGN}0.60." in info.note


def test_little_or_nothing_known_is_told_all_the_same(bare, make_set):
    """An empty set, and one point without an interval."""
    nothing = tradeoff_info(plan([{}], source="unknown"), bare().front)
    assert nothing.note == f"Mixed: 100 % base model. {SOURCES['unknown']}"
    assert [promise(one) for one in nothing.outlooks] == ["not known", "not known"]
    told = plan([{"a0": 1.0}], {"helpful": 1.0, "brief": 2.0}, "measured")
    told["predicted"]["helpful"]["interval"] = None
    one = tradeoff_info(told, make_set((1.0, 2.0)))
    assert promise(one.outlooks[0]) == "1.00"


def test_sources_are_those_of_plans():
    assert set(SOURCES) == {"measured", "calibrated", "interpolated", "unknown"}


def test_a_range_that_ends_at_zero_is_drawn_to_its_end() -> None:
    """At -1 of -3 to 0 the dot stands two thirds along its track, and the interval around it."""
    one = Outlook("brief", 0, -1.0, (-1.3, -0.7), -3.0, 0.0)
    shown = str(predictions(TradeoffInfo((), (one,), "", "", "")).to_plotly_json())
    assert "'left': '66.67%'" in shown
    assert "'left': '56.67%', 'width': '20.00%'" in shown
