"""From a wish to rows: every policy over a front of three points, by hand.

The front (made_runs.THREE) over (warm, brief): w asked for (1, 0) attains (1, 1/4), m for (1/2, 1/2) attains
(3/4, 1/2), b for (0, 1) attains (1/4, 1); errors are .1 each, intervals +- .2.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import THREE, made_run, point

from moalign.direction import Direction
from moalign.errors import ConfigError, PreferenceError, RunError
from moalign.files import write_json
from moalign.mapping import calibrated
from moalign.preference import Preference
from moalign.runs import Run
from moalign.serving.plan import POLICIES, Plan, Planner

CORNERS = {key: THREE[key] for key in "wb"}


def wish(warm: float) -> Preference:
    return Preference.of({"warm": warm, "brief": 1 - warm})


def values(plan: Plan) -> tuple[float, float]:
    return plan.predicted["warm"].value, plan.predicted["brief"].value


def blended(run: Run, row: dict[str, float], attained: tuple[float, float]) -> Run:
    """With a measured mixture of the two corners."""
    one = replace(point("blend-1", (row["w"], row["b"]), attained), row=row)
    write_json(run.folder / "blends" / "blend-1.json", one.as_dict())
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(tmp_path / "run")


@pytest.fixture
def planner(run: Run) -> Planner:
    return Planner.of(run)


@pytest.fixture
def directed(tmp_path: Path) -> Run:
    """A run of dpa: two directions of one adapter, to warm and to brief."""
    run = made_run(tmp_path / "dpa", points={}, method="dpa")
    for key in "wb":
        weights, attained = THREE[key]
        told = dict(zip(("warm", "brief"), weights, strict=True))
        run.add_point(replace(point(key, weights, attained), row={"round2": 1.0}, direction=told))
    return run


# Policies


@pytest.mark.parametrize(("warm", "key"), [(1.0, "w"), (0.7, "w"), (0.5, "b"), (0.45, "b"), (0.0, "b")])
def test_nearest_is_the_best_measured_point(planner: Planner, warm: float, key: str) -> None:
    """w.J is (1 + 3 warm)/4 of w, (2 + warm)/4 of m and (4 - 3 warm)/4 of b: at 1/2 all are 5/8, and b is the first."""
    plan = planner.plan(wish(warm), "nearest")
    assert plan.rows == ({key: 1.0},)
    assert plan.shares == (1.0,)
    assert (plan.policy, plan.preference, plan.direction, plan.source) == ("nearest", wish(warm), None, "measured")
    assert values(plan) == THREE[key][1]


@pytest.mark.parametrize(
    ("warm", "row", "attained"),
    [
        (0.75, {"w": 0.5, "m": 0.5}, (0.875, 0.375)),
        (0.9, {"w": 0.8, "m": 0.2}, (0.95, 0.3)),
        (0.1, {"b": 0.8, "m": 0.2}, (0.35, 0.9)),
    ],
)
def test_interpolate_is_between_the_neighbours(
    planner: Planner, warm: float, row: dict[str, float], attained: tuple[float, float]
) -> None:
    plan = planner.plan(wish(warm), "interpolate")
    assert plan.rows[0] == pytest.approx(row)
    assert plan.source == "interpolated"
    assert values(plan) == pytest.approx(attained)
    # Errors of .1 add up to .1 at most, whatever their shares.
    assert plan.predicted["warm"].standard_error == pytest.approx(0.1)
    assert plan.predicted["warm"].interval == pytest.approx((attained[0] - 0.196, attained[0] + 0.196))


def test_a_preference_that_was_trained_is_that_point_as_it_was_measured(planner: Planner) -> None:
    plan = planner.plan(wish(0.5))
    assert (plan.policy, plan.rows, plan.source) == ("interpolate", ({"m": 1.0},), "measured")
    assert plan.predicted["brief"].value == 0.5
    assert plan.predicted["brief"].interval == (0.3, 0.7)


def test_soup_is_the_corners_by_their_weights(planner: Planner) -> None:
    """The point in the middle is no part of it, and the line between the corners is (1/4, 1) to (1, 1/4)."""
    plan = planner.plan(wish(0.6), "soup")
    assert plan.rows[0] == pytest.approx({"w": 0.6, "b": 0.4})
    assert (plan.shares, plan.source) == ((1.0,), "interpolated")
    assert values(plan) == pytest.approx((0.7, 0.55))


def test_a_corner_that_counts_nothing_may_be_missing(tmp_path: Path) -> None:
    planner = Planner.of(made_run(tmp_path, points={"w": THREE["w"], "m": THREE["m"]}))
    assert planner.plan(wish(1.0), "soup").rows == ({"w": 1.0},)
    for policy in ("soup", "decode"):
        with pytest.raises(ConfigError) as caught:
            planner.plan(wish(0.9), policy)
        assert str(caught.value) == (
            f"policy {policy!r} mixes the corners, and this run has no point for brief=1 alone; train one, or use "
            "'nearest' or 'interpolate'"
        )


def test_the_corner_is_the_adapter_itself_where_a_mixture_was_asked_for_the_same(tmp_path: Path) -> None:
    """The mixture has the smaller key, so that it comes first on the front."""
    run = made_run(tmp_path)
    run.add_point(replace(point("a", *THREE["w"]), row={"w": 0.5, "m": 0.5}))
    assert Planner.of(run).plan(wish(1.0), "soup").rows == ({"w": 1.0},)


def test_calibrated_is_the_best_row_of_the_map(tmp_path: Path) -> None:
    """Halfway between the corners both objectives attain .9, where the line has .625: the middle is best for (.5, .5).

    The row and its values are those of the map itself.
    """
    run = blended(made_run(tmp_path, points=CORNERS), {"w": 0.5, "b": 0.5}, (0.9, 0.9))
    fitted = calibrated(run)
    assert fitted is not None
    plan = Planner.of(run).plan(wish(0.55), "calibrated")
    row = fitted.row_for_preference(wish(0.55).vector(("warm", "brief")))
    assert [plan.rows[0][key] for key in "bw"] == pytest.approx(row.tolist())
    assert 0.5 < plan.rows[0]["w"] < 0.65
    attained, errors = fitted.predict(row)
    assert plan.source == "calibrated"
    assert values(plan) == pytest.approx(tuple(attained.tolist()))
    assert plan.predicted["warm"].standard_error == pytest.approx(errors[0])
    assert plan.predicted["warm"].interval == pytest.approx(
        (attained[0] - 1.96 * errors[0], attained[0] + 1.96 * errors[0])
    )


def test_without_blends_there_is_no_map(planner: Planner) -> None:
    with pytest.raises(ConfigError) as caught:
        planner.plan(wish(0.6), "calibrated")
    assert str(caught.value) == (
        "policy 'calibrated' needs a map, and this run has no measured blends to fit one on: measure some by `moalign "
        "report RUN --blends 1` or `moalign fill RUN`, or use 'nearest' or 'interpolate' or 'soup' or 'decode'"
    )


def test_decode_has_a_lane_for_each_corner_that_counts(planner: Planner) -> None:
    plan = planner.plan(wish(0.6), "decode")
    assert dict(zip([next(iter(row)) for row in plan.rows], plan.shares, strict=True)) == {"w": 0.6, "b": 0.4}
    assert all(list(row.values()) == [1.0] for row in plan.rows)
    assert (plan.divergence, plan.predicted, plan.source) == ("reverse_kl", {}, "unknown")


@pytest.mark.parametrize("divergence", ["forward_kl", "jsd"])
def test_decode_adds_the_base_where_the_reference_counts(planner: Planner, divergence: str) -> None:
    plan = planner.plan(wish(0.6), "decode", divergence)
    assert plan.rows[-1] == {}
    assert plan.shares == (0.4, 0.6, 0.0)
    assert plan.divergence == divergence


@pytest.mark.parametrize("divergence", ["reverse_kl", "jsd"])
def test_decode_of_one_corner_is_that_corner(planner: Planner, divergence: str) -> None:
    plan = planner.plan(wish(0.0), "decode", divergence)
    assert (plan.rows, plan.shares, plan.source) == (({"b": 1.0},), (1.0,), "measured")
    assert values(plan) == (0.25, 1.0)


# Directions


def test_a_preference_is_told_as_its_direction(directed: Run) -> None:
    """(3/4, 1/4) points along (3, 1) / sqrt(10), and lies a quarter of the way from warm to brief."""
    planner = Planner.of(directed)
    plan = planner.plan(wish(0.75))
    assert planner.default == plan.policy == "direction"
    assert plan.direction == Direction.parse("warm=3,brief=1")
    assert (plan.rows, plan.preference, plan.source) == (({"round2": 1.0},), wish(0.75), "interpolated")
    assert values(plan) == pytest.approx((0.8125, 0.4375))


def test_a_direction_that_was_measured_is(directed: Run) -> None:
    plan = Planner.of(directed).plan(Direction.parse("warm=2"))
    assert (plan.source, values(plan)) == ("measured", (1.0, 0.25))
    assert plan.preference == Preference.of({"warm": 1.0})


def test_a_direction_may_be_below_0_and_then_nothing_is_predicted(directed: Run) -> None:
    plan = Planner.of(directed).plan(Direction.parse("warm=3,brief=-4"))
    assert plan.direction == Direction.parse("warm=0.6,brief=-0.8")
    assert (plan.rows, plan.preference, plan.predicted, plan.source) == (({"round2": 1.0},), None, {}, "unknown")


def test_a_direction_outside_the_measured_ones_is_not_predicted(directed: Run) -> None:
    """Only (1, 0) and (1, 1) remain; (1, 2) lies beyond both."""
    (directed.folder / "points" / "b.json").unlink()
    middle = point("m", *THREE["m"])
    told = Direction.parse("warm=1,brief=1").components
    directed.add_point(replace(middle, row={"round2": 1.0}, direction=told))
    planner = Planner.of(directed)
    assert planner.plan(Preference.parse("warm=1,brief=2")).source == "unknown"
    assert planner.plan(Preference.parse("warm=2,brief=1")).source == "interpolated"


def test_a_point_that_was_told_less_of_something_says_nothing_about_preferences(directed: Run) -> None:
    """It is filed under the preference (1, 0), and its key comes first."""
    told = Direction.parse("warm=1,brief=-1").components
    directed.add_point(replace(point("a", (1.0, 0.0), (9.0, 9.0)), row={"round2": 1.0}, direction=told))
    assert values(Planner.of(directed).plan(wish(0.75))) == pytest.approx((0.8125, 0.4375))


def test_the_nearest_point_of_a_directed_run_states_its_own_direction(directed: Run) -> None:
    plan = Planner.of(directed).plan(wish(0.7), "nearest")
    assert plan.direction == Direction.parse("warm=1,brief=0")
    assert (plan.rows, plan.source, values(plan)) == (({"round2": 1.0},), "measured", (1.0, 0.25))


@pytest.mark.parametrize("policy", ["interpolate", "soup", "calibrated", "decode"])
def test_one_adapter_is_not_mixed(directed: Run, policy: str) -> None:
    with pytest.raises(ConfigError, match=f"{policy!r} mixes adapters, .* use 'direction' or 'nearest'$"):
        Planner.of(directed).plan(wish(0.7), policy)


@pytest.mark.parametrize("asked", [Direction.parse("warm=1,brief=-1"), wish(0.5)])
def test_other_runs_read_no_direction(planner: Planner, asked: Direction | Preference) -> None:
    with pytest.raises(ConfigError, match="this run was trained by 'modpo', whose adapters read no direction"):
        planner.plan(asked, "direction")
    if isinstance(asked, Direction):
        with pytest.raises(ConfigError, match="adapters read no direction"):
            planner.plan(asked)


def test_only_one_policy_takes_a_direction(planner: Planner) -> None:
    with pytest.raises(ConfigError, match="policy 'soup' reads no direction; ask for weights >= 0"):
        planner.plan(Direction.parse("warm=1"), "soup")


# What is predicted


def test_a_row_that_was_measured_as_a_blend_is_measured(tmp_path: Path) -> None:
    run = blended(made_run(tmp_path, points=CORNERS), {"w": 0.25, "b": 0.75}, (0.6, 0.8))
    plan = Planner.of(run).plan(wish(0.25), "soup")
    assert (plan.source, values(plan)) == ("measured", (0.6, 0.8))
    assert plan.predicted["warm"].interval == pytest.approx((0.4, 0.8))


def test_rounding_hides_no_measurement(tmp_path: Path) -> None:
    run = blended(made_run(tmp_path, points=CORNERS), {"w": 0.333333333334, "b": 0.666666666666}, (0.6, 0.8))
    assert Planner.of(run).plan(wish(1 / 3), "soup").source == "measured"


def test_a_point_comes_before_a_blend_of_the_same_row(tmp_path: Path) -> None:
    """As where a blend became a point, and was measured again."""
    half = {"w": 0.5, "b": 0.5}
    run = blended(made_run(tmp_path, points=CORNERS), half, (0.6, 0.8))
    run.add_point(replace(point("mix", (0.3, 0.7), (0.61, 0.81)), row=half))
    assert values(Planner.of(run).plan(wish(0.5), "soup")) == (0.61, 0.81)


def test_other_rows_are_predicted_by_the_map_where_there_is_one(tmp_path: Path) -> None:
    run = blended(made_run(tmp_path, points=CORNERS), {"w": 0.5, "b": 0.5}, (0.9, 0.9))
    plan = Planner.of(run).plan(wish(0.25), "interpolate")
    assert plan.source == "calibrated"
    assert plan.predicted["warm"].value > 0.4375 + 0.05  # the straight line, and what the blend bends it by


def test_a_mixture_of_adapters_that_are_no_points_is_interpolated(tmp_path: Path) -> None:
    """As in a run of conditioned: mixtures of two adapters, neither measured alone."""
    run = made_run(tmp_path, points={})
    for key, share in (("x", 0.2), ("y", 0.8)):
        row = {"w": share, "b": 1 - share}
        run.add_point(replace(point(key, (share, 1 - share), (share, 1 - share)), row=row))
    planner = Planner.of(run)
    plan = planner.plan(wish(0.5))
    assert plan.rows[0] == pytest.approx({"w": 0.5, "b": 0.5})
    assert (plan.source, values(plan)) == ("interpolated", pytest.approx((0.5, 0.5)))
    assert sorted(planner.adapters) == ["b", "w"]


def test_errors_that_are_not_known_are_none(tmp_path: Path) -> None:
    run = made_run(tmp_path, points={"w": THREE["w"]})
    run.add_point(replace(point("b", *THREE["b"]), standard_errors={}, intervals={}))
    planner = Planner.of(run)
    for warm in (0.0, 0.5):
        found = planner.plan(wish(warm)).predicted["brief"]
        assert (found.standard_error, found.interval) == (None, None)


# Names, errors, records


def test_named_plans_are_points_and_the_base(planner: Planner, directed: Run) -> None:
    plan = planner.named("brief50-warm50")
    assert (plan.policy, plan.preference, plan.rows, plan.source) == ("named", wish(0.5), ({"m": 1.0},), "measured")
    base = planner.named("base")
    assert (base.policy, base.preference, base.rows, base.source) == ("base", None, ({},), "measured")
    assert values(base) == (0.25, 0.25)
    assert Planner.of(directed).named("warm100").direction == Direction.parse("warm=1,brief=0")
    with pytest.raises(ConfigError, match="unknown adapter 'warm10'; did you mean 'warm100'"):
        planner.named("warm10")


def test_what_does_not_exist_is_named(planner: Planner) -> None:
    with pytest.raises(ConfigError, match="unknown policy 'neerest'; did you mean 'nearest'"):
        planner.plan(wish(0.5), "neerest")
    with pytest.raises(ConfigError, match=r"unknown policy '' \(known: nearest, interpolate, soup,"):
        planner.plan(wish(0.5), "")
    with pytest.raises(ConfigError, match="unknown divergence 'reverse'; did you mean 'reverse_kl'"):
        planner.plan(wish(0.5), "decode", "reverse")
    with pytest.raises(ConfigError, match="divergence 'jsd' is for policy 'decode' only, and this is 'soup'"):
        planner.plan(wish(0.5), "soup", "jsd")


@pytest.mark.parametrize("policy", POLICIES)
def test_an_unknown_objective_is_refused_by_every_policy(planner: Planner, directed: Run, policy: str) -> None:
    asked = Preference.of({"wram": 1.0})
    for each in (planner, Planner.of(directed)):
        with pytest.raises(PreferenceError, match="unknown objective 'wram'; did you mean 'warm'"):
            each.plan(asked, policy)


@pytest.mark.parametrize("measured", [True, False])
def test_a_run_without_adapters_has_no_plans(tmp_path: Path, measured: bool) -> None:
    run = made_run(tmp_path, points={})
    if not measured:
        (run.folder / "reference.json").unlink()
    with pytest.raises(RunError, match="run its sweep first"):
        Planner.of(run)


def test_a_plan_is_what_json_can_hold(planner: Planner, directed: Run) -> None:
    record = planner.plan(wish(0.6), "decode", "jsd").as_dict()
    assert json.loads(json.dumps(record)) == {
        "policy": "decode",
        "preference": {"brief": 0.4, "warm": 0.6},
        "direction": None,
        "lanes": [{"row": {"b": 1.0}, "share": 0.4}, {"row": {"w": 1.0}, "share": 0.6}, {"row": {}, "share": 0.0}],
        "divergence": "jsd",
        "predicted": {},
        "source": "unknown",
    }
    record = Planner.of(directed).plan(Preference.of({"warm": 1.0})).as_dict()
    assert json.loads(json.dumps(record)) == {
        "policy": "direction",
        "preference": {"warm": 1.0},
        "direction": {"warm": 1.0},
        "lanes": [{"row": {"round2": 1.0}, "share": 1.0}],
        "predicted": {
            "warm": {"value": 1.0, "standard_error": 0.1, "interval": [0.8, 1.2]},
            "brief": {"value": 0.25, "standard_error": 0.1, "interval": [0.04999999999999999, 0.45]},
        },
        "source": "measured",
    }


def test_a_run_is_read_once_and_plans_are_remembered(run: Run, planner: Planner) -> None:
    """Also where the folder is gone, and from many threads."""
    wishes = [wish(step / 40) for step in range(41)]
    first = [planner.plan(each) for each in wishes]
    (run.folder / "reference.json").unlink()
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(planner.plan, wishes * 5))
    assert all(plan is first[place % 41] for place, plan in enumerate(again))
    before = time.process_time()
    for each in wishes:
        planner.plan(each)
    assert time.process_time() - before < 41e-3
