import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moalign.errors import DataError, PreferenceError
from moalign.frontiers import (
    AddStatus,
    Gap,
    ParetoPoint,
    ParetoSet,
    blend,
    hypervolume,
    hypervolume_contributions,
    non_dominated,
)
from moalign.preference import Preference

NAMES = ("helpful", "brief")


def point(adapter, helpful, brief):
    values = {"brief": float(brief), "helpful": float(helpful)}
    return ParetoPoint(adapter, "modpo", Preference.of({"helpful": 1.0, "brief": 1.0}), values, {}, {})


def empty():
    return ParetoSet(NAMES, np.zeros(2))


def test_new_replaces_dominated():
    """(1,3) NEW; (3,1) NEW beside it; (1,1) DOMINATED; (2,4) REPLACES (1,3); the front is (3,1), (2,4)."""
    points = empty()
    statuses = [points.add(point(*one)) for one in [("a", 1, 3), ("b", 3, 1), ("c", 1, 1), ("d", 2, 4)]]
    assert statuses == [AddStatus.NEW, AddStatus.NEW, AddStatus.DOMINATED, AddStatus.REPLACES]
    assert [p.adapter for p in points] == ["a", "b", "c", "d"]
    assert [p.adapter for p in points.front] == ["b", "d"]
    assert points.on_front.tolist() == [False, True, False, True]


def test_values_stand_in_the_order_of_the_objectives():
    points = empty()
    points.add(point("a", helpful=1.0, brief=2.0))
    assert points.values.tolist() == [[1.0, 2.0]]
    assert points.hypervolume() == 2.0


def test_beating_only_what_was_dominated_already_replaces_nothing():
    """(0,0) lies behind (3,1); (1,2) dominates it, but no point of the front: NEW."""
    points = empty()
    points.add(point("a", 3, 1))
    points.add(point("b", 0, 0))
    assert points.add(point("c", 1, 2)) is AddStatus.NEW


def test_an_equal_adds_nothing_and_stands_on_the_front():
    points = empty()
    points.add(point("a", 1, 1))
    assert points.add(point("b", 1, 1)) is AddStatus.DOMINATED
    assert points.on_front.tolist() == [True, True]


def test_the_newer_record_of_an_adapter_replaces_the_older():
    """At its place, whatever it measured; its own older record neither dominates it nor is replaced by it."""
    points = empty()
    points.add(point("a", 2, 2))
    points.add(point("b", 3, 0))
    assert points.add(point("a", 1, 1)) is AddStatus.NEW
    assert points.add(point("a", 2, 1)) is AddStatus.NEW
    assert points.values.tolist() == [[2.0, 1.0], [3.0, 0.0]]
    assert ParetoSet(NAMES, np.zeros(2), [point("a", 2, 2), point("a", 1, 1)]).values.tolist() == [[1.0, 1.0]]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_the_status_says_what_happened_to_the_front(added):
    """DOMINATED leaves the volume; NEW and REPLACES put the point on the front; only REPLACES pushes others off."""
    points, latest = ParetoSet(NAMES, np.full(2, -1.0)), {}
    for adapter, helpful, brief in added:
        name = str(adapter)
        others = {other.adapter for other in points.front} - {name}
        status = points.add(point(name, helpful, brief))
        latest[name] = [helpful, brief]
        front = {other.adapter for other in points.front}
        assert (status is AddStatus.REPLACES) == bool(others - front)
        rest = [values for other, values in latest.items() if other != name]
        volume = hypervolume(np.array(rest, dtype=float).reshape(-1, 2), np.full(2, -1.0))
        assert (status is AddStatus.DOMINATED) == (points.hypervolume() == volume)
        assert status is AddStatus.DOMINATED or name in front
    assert points.values.tolist() == list(latest.values())
    assert points.on_front.tolist() == non_dominated(points.values).tolist()


def test_the_empty_set():
    points = empty()
    assert (len(points), list(points), points.front, points.hypervolume()) == (0, [], [], 0.0)
    assert points.values.shape == (0, 2)
    assert points.on_front.shape == (0,)


def test_the_list_that_is_given_is_not_changed():
    given_points = [point("a", 1, 1)]
    points = ParetoSet(NAMES, np.zeros(2), given_points)
    points.add(point("b", 2, 2))
    assert (len(points), len(given_points)) == (2, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_was_not_measured_is_refused(value):
    points = empty()
    with pytest.raises(DataError, match=r"'a' has value (nan|inf) for 'helpful'; expected a finite number"):
        points.add(point("a", value, 1))
    assert len(points) == 0
    with pytest.raises(DataError, match="finite"):
        ParetoSet(NAMES, np.zeros(2), [point("a", value, 1)])


def test_other_objectives_are_refused():
    with pytest.raises(DataError, match="has values for brief, helpful; expected brief, warm"):
        ParetoSet(("brief", "warm"), np.zeros(2)).add(point("a", 1, 1))


def test_a_reference_point_of_another_length_is_refused():
    with pytest.raises(DataError, match="3 numbers; expected 2, for helpful, brief"):
        ParetoSet(NAMES, np.zeros(3))


def test_a_point_survives_json():
    """With numpy numbers in it, an unknown error, and a preference whose rounded weights sum to 1 + 1e-12."""
    whole = ParetoPoint(
        "a1",
        "modpo",
        Preference.of({"a": 4.0, "b": 1.0, "c": 1.0}),
        {"a": float(np.float64(0.5))},
        {"a": 0.25},
        {"a": (0.1, 0.9)},
        kl_to_reference=1.5,
        length=12.0,
    )
    record = json.loads(json.dumps(whole.as_dict(), allow_nan=False))
    assert ParetoPoint.from_dict(record) == whole
    assert record["preference"] == {"a": 0.666666666667, "b": 0.166666666667, "c": 0.166666666667}
    assert record["kl_to_oracle"] is None
    assert ParetoPoint.from_dict({**record, "on_front": True}) == whole


def test_an_unknown_error_is_null_in_json_and_nan_again():
    unknown = ParetoPoint("a", "modpo", Preference.of({"a": 1.0}), {"a": 0.5}, {"a": math.nan}, {"a": (0.5, 0.5)})
    record = unknown.as_dict()
    assert record["standard_errors"] == {"a": None}
    assert math.isnan(ParetoPoint.from_dict(record).standard_errors["a"])


def test_a_record_that_lacks_something():
    record = point("a", 1, 1).as_dict()
    del record["values"]
    with pytest.raises(DataError, match="lacks 'values'; it has adapter, method"):
        ParetoPoint.from_dict(record)


def trained(adapter, weight, helpful, brief, **more):
    """A point whose adapter was trained for so much helpfulness."""
    preference = Preference.of({"helpful": weight, "brief": 1 - weight})
    return ParetoPoint(adapter, "modpo", preference, {"helpful": helpful, "brief": brief}, {}, {}, **more)


def sweep():
    """Four adapters; the third is dominated."""
    rows = [("a", 1.0, 4.0, 0.0), ("b", 0.6, 3.0, 2.0), ("c", 0.4, 2.0, 1.0), ("d", 0.0, 0.0, 3.0)]
    return ParetoSet(NAMES, np.full(2, -1.0), [trained(*row) for row in rows])


def wants(helpful):
    return Preference.of({"helpful": helpful, "brief": 1 - helpful})


@pytest.mark.parametrize(("helpful", "best"), [(1.0, "a"), (0.7, "b"), (0.5, "b"), (0.1, "d"), (0.0, "d")])
def test_the_assignment_is_the_largest_inner_product(helpful, best):
    """For w = (.7, .3): a has 2.8, b 2.85, c 1.7, d .9, though b was trained for (.6, .4)."""
    points = sweep()
    points.add(trained("b", 0.6, 3.0, 2.5))
    utilities = points.values @ wants(helpful).vector(NAMES)
    found = points.best_for(wants(helpful))
    assert found.adapter == best
    assert found is points.points[int(utilities.argmax())]


def test_ties_of_the_assignment_and_of_the_nearest_go_to_the_first():
    points = ParetoSet(NAMES, np.zeros(2), [trained("a", 0.75, 1.0, 1.0), trained("b", 0.25, 1.0, 1.0)])
    assert points.best_for(wants(0.5)).adapter == "a"
    assert points.nearest(wants(0.5)).adapter == "a"
    assert points.nearest(wants(0.4)).adapter == "b"


@pytest.mark.parametrize(("helpful", "near"), [(1.0, "a"), (0.81, "a"), (0.79, "b"), (0.45, "c"), (0.1, "d")])
def test_the_nearest_goes_by_what_was_asked(helpful, near):
    assert sweep().nearest(wants(helpful)).adapter == near


@pytest.mark.parametrize("helpful", [1.0, 0.9, 0.6, 0.5, 0.13, 0.0])
def test_the_bracket_is_the_blend(helpful):
    """The neighbours' shares are those of `blend`, and their preferences average to the wanted one."""
    points = sweep()
    found = points.bracketing(wants(helpful))
    asked = np.array([point.preference.vector(NAMES) for point in points])
    shares = dict(zip("abcd", blend(asked, wants(helpful).vector(NAMES)), strict=True))
    assert {point.adapter: share for point, share in found} == {k: v for k, v in shares.items() if v}
    assert sum(share * point.preference.weights["helpful"] for point, share in found) == pytest.approx(helpful)


def test_a_mixture_can_be_a_neighbour():
    """Between a mixture at .8 and the adapter at 1: halves of both, for .9."""
    points = sweep()
    points.add(trained("e", 0.8, 3.6, 1.0, row={"a": 0.5, "b": 0.5}))
    found = {point.adapter: share for point, share in points.bracketing(wants(0.9))}
    assert found == pytest.approx({"a": 0.5, "e": 0.5})


def test_an_empty_set_has_no_point_to_give():
    for ask in (empty().best_for, empty().nearest, empty().bracketing):
        with pytest.raises(DataError, match=r"no point for brief=0.5,helpful=0.5: expected at least one measured"):
            ask(wants(0.5))
    with pytest.raises(PreferenceError, match="helpfull"):
        sweep().best_for(Preference.of({"helpfull": 1.0}))


def test_gaps_are_in_ranges_of_all_points():
    """Ranges 4 and 3: a-b is sqrt((1/4)^2 + (2/3)^2), b-d sqrt((3/4)^2 + (1/3)^2); c is not on the front."""
    found = sweep().gaps()
    assert [gap.between for gap in found] == [(1, 3), (0, 1)]
    assert [gap.size for gap in found] == pytest.approx([math.hypot(3 / 4, 1 / 3), math.hypot(1 / 4, 2 / 3)])
    assert isinstance(found[0], Gap)
    assert empty().gaps() == []


def test_contributions_are_those_of_the_values():
    points = sweep()
    expected = hypervolume_contributions(points.values, points.reference_point)
    assert points.contributions().tolist() == expected.tolist()
    assert expected[2] == 0 < expected[1]


def test_the_truncated_set_is_a_part_of_the_front():
    points = sweep()
    points.add(trained("e", 0.59, 2.9, 2.1))
    assert [point.adapter for point in points.crowded(9)] == ["a", "b", "d", "e"]
    kept = points.crowded(3)
    assert [point.adapter for point in kept] in (["a", "b", "d"], ["a", "d", "e"])
    assert (kept.objectives, kept.reference_point.tolist()) == (points.objectives, [-1.0, -1.0])
    assert len(points) == 5
    assert len(empty().crowded(3)) == 0


def test_a_notebook_shows_a_table_with_its_errors():
    points = sweep()
    page = points._repr_html_()
    assert page.startswith(f"<p>4 points, 3 on the front; hypervolume {points.hypervolume():.4g}</p><table")
    head, *body = ElementTree.fromstring(page.partition("</p>")[2]).iter("tr")
    assert [cell.text for cell in head] == [None, "weight of helpful", "weight of brief", *NAMES, "on the front"]
    rows = [[cell.text for cell in row] for row in body]
    assert [(row[0], row[-1]) for row in rows] == [("a", "yes"), ("b", "yes"), ("c", None), ("d", "yes")]
    for row, one in zip(rows, points, strict=True):
        wanted = [*one.preference.vector(NAMES), one.values["helpful"], one.values["brief"]]
        assert [float(cell) for cell in row[1:-1]] == pytest.approx(wanted, abs=0.005)
    known = ParetoPoint(
        "a", "modpo", Preference.of({"helpful": 1.0}), {"helpful": 0.51234, "brief": 1.0}, {"helpful": 0.0312}, {}
    )
    assert "<td>0.5123 ± 0.031</td>" in ParetoSet(NAMES, np.zeros(2), [known])._repr_html_()


def test_a_notebook_shows_names_as_text_and_no_more_than_a_screen():
    bad = ParetoSet(("<script>alert(1)</script>", "on the front"), np.zeros(2))
    bad.add(
        ParetoPoint("<b>", "modpo", Preference.of({"on the front": 1.0}), dict.fromkeys(bad.objectives, 1.0), {}, {})
    )
    page = bad._repr_html_()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    many = ParetoSet(NAMES, np.zeros(2), [point(f"p{i}", i, -i) for i in range(2000)])
    assert many._repr_html_().count("<tr") < 60
    assert "0 points, 0 on the front" in empty()._repr_html_()
