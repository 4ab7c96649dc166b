import re
from pathlib import Path

import pytest
from made_runs import made_run, point

from moalign.direction import Direction
from moalign.preference import Preference
from moalign.serving.api.refusals import RefusedError
from moalign.serving.api.wishes import example, plan_for
from moalign.serving.plan import POLICIES, Planner


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    return Planner.of(made_run(tmp_path / "run"))


@pytest.fixture
def directed(tmp_path: Path) -> Planner:
    """A run of dpa, whose adapter was measured in two directions."""
    run = made_run(tmp_path / "directed", points={}, method="dpa")
    for key, weights in (("a", (1.0, 0.0)), ("b", (0.0, 1.0))):
        components = dict(zip(("warm", "brief"), weights, strict=True))
        run.add_point(point(key, weights, weights, row={"adapter": 1.0}, direction=components))
    return Planner.of(run)


def refusal(planner: Planner, *wish: object, **more: object) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        plan_for(planner, *wish, **more)  # pyright: ignore[reportArgumentType]
    return caught.value


def test_weights_of_the_field_and_of_the_name_are_one_wish(planner: Planner) -> None:
    plan = plan_for(planner, "moalign", {"warm": 0.85, "brief": 0.15})
    assert plan.rows == ({"w": pytest.approx(0.7), "m": pytest.approx(0.3)},)
    assert plan.policy == "interpolate"
    for model, weights in (
        ("moalign@warm=0.85,brief=0.15", None),
        ("moalign@brief=15, warm=85", None),
        ("moalign@warm=0.85,brief=0.15", {"brief": 15.0, "warm": 85.0}),
    ):
        assert plan_for(planner, model, weights) == plan


def test_without_weights_all_objectives_count_alike(planner: Planner) -> None:
    assert plan_for(planner, "moalign").preference == Preference.parse("warm=1,brief=1")
    assert plan_for(planner, "moalign").rows == ({"m": 1.0},)


def test_a_policy_is_the_requests_then_the_servers_then_the_runs(planner: Planner) -> None:
    weights = {"warm": 0.6, "brief": 0.4}
    assert plan_for(planner, "moalign", weights).policy == planner.default == "interpolate"
    assert plan_for(planner, "moalign", weights, default="soup").policy == "soup"
    assert plan_for(planner, "moalign", weights, "nearest", default="soup").policy == "nearest"


def test_a_divergence_goes_to_the_decoder(planner: Planner) -> None:
    plan = plan_for(planner, "moalign", None, "decode", "jsd")
    assert (plan.policy, plan.divergence, len(plan.rows)) == ("decode", "jsd", 3)
    assert plan_for(planner, "moalign", None, "decode").divergence == "reverse_kl"
    error = refusal(planner, "moalign", None, "soup", "jsd")
    assert (error.param, error.message) == (
        "divergence",
        "divergence goes with policy 'decode'; this request's policy is 'soup'",
    )


def test_the_base_and_the_adapters_are_models_of_their_own(planner: Planner) -> None:
    assert plan_for(planner, "base").rows == ({},)
    assert plan_for(planner, "warm100").rows == ({"w": 1.0},)
    for given in ({"weights": {"warm": 1.0}}, {"policy": "soup"}, {"divergence": "jsd"}):
        error = refusal(planner, "warm100", **given)
        assert error.status == 400
        assert error.message == f"{next(iter(given))} goes with model 'moalign'; 'warm100' is one fixed policy"


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("warm10", "unknown model 'warm10'; did you mean 'warm100'? (known: moalign, moalign@NAME=WEIGHT"),
        ("", "unknown model ''"),
        ("Moalign", "did you mean 'moalign'?"),
        ("../../etc/passwd", "unknown model '../../etc/passwd'"),
        ("x" * 100_000, "unknown model 'xxxx"),
    ],
)
def test_an_unknown_model_is_not_found(planner: Planner, model: str, line: str) -> None:
    error = refusal(planner, model)
    assert (error.status, error.code) == (404, "model_not_found")
    assert line in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({"wram": 1.0}, "unknown objective 'wram'; did you mean 'warm'? (known: warm, brief)"),
        ({"x" * 100_000: 1.0}, "unknown objective 'xxxx"),
        ({"warm": 1.0, "brief": -0.5}, "weight of 'brief' is -0.5; weights must be >= 0; only policy 'direction'"),
        ({"warm": 0.0, "brief": 0.0}, "all weights are 0 (warm, brief); at least one must be positive"),
        ({"warm": float("nan")}, "weight of 'warm' is nan; expected a finite number >= 0"),
        ({"warm": float("inf")}, "weight of 'warm' is inf"),
        ({f"o{i}": 1.0 for i in range(1000)}, "1000 weights for the 2 objectives of this run (warm, brief)"),
    ],
)
def test_weights_that_are_none_are_refused(planner: Planner, weights: dict[str, float], line: str) -> None:
    error = refusal(planner, "moalign", weights)
    assert error.status == 400
    assert str(error.param).startswith("weights")
    assert line in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("", "a preference needs at least one weight"),
        ("warm", "cannot read 'warm'; expected moalign@NAME=WEIGHT,NAME=WEIGHT, such as moalign@warm=0.5,brief=0.5"),
        ("warm=", "cannot read 'warm='"),
        ("warm=x", "cannot read 'warm=x'"),
        ("warm=1,warm=2", "'warm' is given twice"),
        ("warm=nan", "weight of 'warm' is nan"),
        ("warm=1e999", "weight of 'warm' is inf"),
        ("warm=-1,brief=2", "weights must be >= 0; only policy 'direction'"),
        ("wram=1", "unknown objective 'wram'; did you mean 'warm'?"),
        ("z" * 100_000, "cannot read the weights in it"),
        (",".join(f"o{i}=1" for i in range(1000)), "1000 weights for the 2 objectives"),
    ],
)
def test_a_name_whose_weights_are_none_is_refused(planner: Planner, name: str, line: str) -> None:
    error = refusal(planner, "moalign@" + name)
    assert (error.status, error.param) == (400, "model")
    assert line in error.message
    assert len(error.message) < 400


def test_two_wishes_that_disagree_are_refused(planner: Planner) -> None:
    error = refusal(planner, "moalign@warm=0.7,brief=0.3", {"warm": 0.3, "brief": 0.7})
    assert (error.status, error.param) == (400, "weights")
    assert re.search("weights say brief=0.7,warm=0.3 and the model's name brief=0.3,warm=0.7", error.message)


def test_a_policy_must_be_one_and_one_that_this_run_has(planner: Planner) -> None:
    error = refusal(planner, "moalign", None, "sup")
    assert error.message.startswith("unknown policy 'sup'; did you mean 'soup'?")
    assert all(name in error.message for name in POLICIES)
    assert refusal(planner, "moalign", None, "p" * 10_000).message == "unknown policy"
    for policy in ("direction", "calibrated"):
        assert refusal(planner, "moalign", None, policy).param == "policy"


def test_a_direction_may_ask_for_less(directed: Planner) -> None:
    """A run of dpa has policy direction by default, and only that one takes weights below 0, as a unit vector."""
    plan = plan_for(directed, "moalign@warm=3,brief=-4")
    assert plan.direction == Direction.parse("warm=0.6,brief=-0.8")
    assert plan_for(directed, "moalign", {"warm": 3.0, "brief": -4.0}) == plan
    assert plan_for(directed, "moalign", {"warm": 1.0}).direction == Direction.parse("warm=1")
    assert refusal(directed, "moalign", {"warm": 0.0, "brief": 0.0}).status == 400
    error = refusal(directed, "moalign", {"warm": 1.0, "brief": -1.0}, "nearest")
    assert "only policy 'direction' takes negative ones" in error.message


def test_the_example_is_a_model(planner: Planner) -> None:
    assert plan_for(planner, example(planner.objectives)) == plan_for(planner, "moalign")
