"""Which adapters a sweep trains, in which order, and which policies are measured of them."""

from typing import Any

import numpy as np
import pytest

from moalign.config import SweepConfig, parse_config
from moalign.direction import Direction
from moalign.errors import PreferenceError
from moalign.planning import Plan, Planner, Policy, preferences_of
from moalign.preference import Preference

RULES = {"a": {"type": "length"}, "b": {"type": "length"}, "c": {"type": "length"}}
PAIRS = {"a": 64, "b": 64, "c": 640}


def config(objectives: dict[str, Any] = RULES, **changes: Any) -> SweepConfig:
    return parse_config({"base": "org/name", "objectives": objectives, **changes})


def planner(config: SweepConfig, data: str = "d", base: str = "b") -> Planner:
    return Planner(config, data, base, PAIRS)


def waves(config: SweepConfig, data: str = "d", base: str = "b") -> list[list[Plan]]:
    return planner(config, data, base).waves()


def keys(config: SweepConfig, data: str = "d", base: str = "b") -> list[str]:
    return [plan.key for wave in waves(config, data, base) for plan in wave]


def weights(preferences: list[Preference]) -> list[list[float]]:
    return [preference.vector(("a", "b", "c")).tolist() for preference in preferences]


def test_a_lattice_of_three_objectives_and_two_divisions_has_six_points() -> None:
    """C(2 + 3 - 1, 3 - 1) = 6: the corners and the middles of the edges."""
    found = weights(preferences_of(config(preferences={"lattice": 2})))
    assert sorted(found) == sorted(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )


def test_corners_are_one_preference_per_objective() -> None:
    assert weights(preferences_of(config(preferences={"corners": True}))) == np.eye(3).tolist()


def test_a_list_is_normalised_and_each_preference_counts_once() -> None:
    """7:3 and 0.7:0.3 are one wish."""
    listed = preferences_of(config(preferences={"list": [{"a": 7, "b": 3}, {"a": 0.7, "b": 0.3}, {"c": 2}]}))
    assert weights(listed) == [[0.7, 0.3, 0], [0, 0, 1]]


def test_riesz_points_are_as_many_as_asked_with_the_corners_among_them() -> None:
    found = weights(preferences_of(config(preferences={"riesz": 5})))
    assert len(found) == 5
    assert all(corner in found for corner in np.eye(3).tolist())
    assert np.allclose(np.sum(found, axis=1), 1)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"a": -1, "b": 2}, "weight of 'a' is -1"),
        ({"a": 0, "b": 0}, "all weights are 0"),
        ({"a": float("nan")}, "weight of 'a' is nan"),
        ({"a": float("inf")}, "weight of 'a' is inf"),
        ({"aa": 1}, "unknown objective 'aa'; did you mean 'a'?"),
        ({}, "at least one weight"),
    ],
)
def test_weights_that_are_no_preference_are_refused(wish: dict[str, float], expected: str) -> None:
    with pytest.raises(PreferenceError) as caught:
        preferences_of(config(preferences={"list": [wish]}))
    assert expected in str(caught.value)


def test_rules_need_one_wave_and_no_parents() -> None:
    (wave,) = waves(config(preferences={"lattice": 2}))
    assert len(wave) == 6
    assert not any(plan.parents for plan in wave)


def test_the_primary_objective_is_the_heaviest_so_its_weight_is_at_least_one_in_m() -> None:
    (wave,) = waves(config(preferences={"lattice": 5}))
    for plan in wave:
        assert plan.preference.weights[plan.primary] >= 1 / 3
        assert plan.preference.weights[plan.primary] == max(plan.preference.weights.values())


def test_objectives_learned_from_pairs_send_their_corners_ahead() -> None:
    """Their corner adapters are the margin models of all others; a corner that is wanted too is trained once."""
    learned = {"a": {"pairs": "x"}, "b": {"pairs": "y"}, "c": {"type": "length"}}
    first, second = waves(config(learned, preferences={"lattice": 2}))
    assert [plan.preference for plan in first] == [Preference.of({"a": 1.0}), Preference.of({"b": 1.0})]
    assert len(second) == 6 - 2
    assert len({plan.key for plan in [*first, *second]}) == 6


def test_a_warm_start_begins_at_the_corners_and_takes_a_share_of_the_steps() -> None:
    """64 pairs in batches of 16, 3 epochs: 12 steps; of these 40 % are 4.8, so 5."""
    settings = {"warm_start": True, "warm_share": 0.4, "batch_size": 16, "epochs": 3}
    first, second = waves(config(settings=settings, preferences={"list": [{"a": 1, "b": 1}]}))
    assert [plan.preference for plan in first] == [Preference.of({name: 1.0}) for name in "abc"]
    (plan,) = second
    assert plan.parents == tuple(corner.key for corner in first)
    assert (first[0].steps, first[2].steps, plan.steps) == (12, 120, 5)


def test_keys_do_not_depend_on_where_files_lie_or_how_fast_it_goes() -> None:
    """The contents are in the digests of data and base; the same folder name in another place is the same adapter."""
    here = config({"a": {"type": "reward_model", "model": "/x/rm"}, "b": RULES["b"]}, group_size=2)
    there = config({"a": {"type": "reward_model", "model": "/y/rm"}, "b": RULES["b"]}, base="/z/base", device="cpu")
    assert keys(here) == keys(there)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"settings": {"beta": 0.2}},
        {"settings": {"steps": 3}},
        {"adapter": {"rank": 4}},
        {"dtype": "bfloat16"},
        {"objectives": dict(reversed(RULES.items()))},
    ],
)
def test_keys_depend_on_all_that_determines_an_adapter(change: dict[str, Any]) -> None:
    before, after = config(), parse_config({"base": "org/name", "objectives": RULES, **change})
    assert not set(keys(before)) & set(keys(after))
    assert not set(keys(before)) & set(keys(before, data="e"))
    assert not set(keys(before)) & set(keys(before, base="c"))


def test_keys_are_readable_and_short_enough_for_a_file_system() -> None:
    """255 bytes is what a file name may have; hundreds of objectives would not fit."""
    many = {f"objective-with-a-long-name-{i}": {"type": "length"} for i in range(30)}
    (wave,) = Planner(config(many, preferences={"riesz": 30}), "d", "b", dict.fromkeys(many, 64)).waves()
    assert all(len(plan.key) < 120 for plan in wave)
    assert keys(config(preferences={"list": [{"a": 0.7, "b": 0.3}]}))[0].startswith("a70-b30-")


# Corners, rounds, and what is measured


def soup(**changes: Any) -> Planner:
    return planner(config(method="soup", settings=changes, preferences={"lattice": 2}))


def test_a_method_of_single_preferences_has_a_policy_for_each_adapter() -> None:
    planning = planner(config(preferences={"lattice": 2}))
    (wave,) = planning.waves()
    assert planning.one_by_one
    assert planning.policies(wave[:2]) == [Policy(plan.key, plan.preference, {plan.key: 1.0}) for plan in wave[:2]]


def test_a_soup_trains_corners_alone_and_measures_every_preference_as_a_row() -> None:
    planning = soup()
    (wave,) = planning.waves()
    assert [plan.preference for plan in wave] == [Preference.of({name: 1.0}) for name in "abc"]
    assert not planning.one_by_one
    policies = {policy.preference.vector(("a", "b", "c")).tobytes(): policy for policy in planning.policies([])}
    assert len(policies) == 6
    for policy in policies.values():
        weights = policy.preference.vector(("a", "b", "c")).tolist()
        expected = {plan.key: weight for plan, weight in zip(wave, weights, strict=True) if weight}
        assert policy.row == expected
        assert policy.direction is None
        assert (policy.key in {plan.key for plan in wave}) == (len(expected) == 1)
    assert len({policy.key for policy in policies.values()}) == 6


def test_averaged_factors_are_a_second_wave_without_steps() -> None:
    """Three corners, and between them three adapters, each of its corners' factors."""
    planning = soup(merge="factors")
    corners, merged = planning.waves()
    assert planning.one_by_one
    assert [plan.steps > 0 for plan in corners] == [True] * 3
    assert [plan.steps for plan in merged] == [0] * 3
    assert {plan.parents for plan in merged} == {tuple(plan.key for plan in corners)}
    assert not {plan.key for plan in (*corners, *merged)} & {plan.key for plan in soup().waves()[0]}


def dpa(**changes: Any) -> Planner:
    return planner(config(method="dpa", settings={"rounds": 3, "steps": 2, **changes}, preferences={"lattice": 1}))


def test_rounds_go_on_from_each_other_and_the_last_is_measured_in_every_direction() -> None:
    planning = dpa()
    waves = planning.waves()
    assert [len(wave) for wave in waves] == [1, 1, 1]
    first, second, third = (wave[0] for wave in waves)
    assert [plan.stage for plan in (first, second, third)] == [0, 1, 2]
    assert (first.parents, second.parents, third.parents) == ((), (first.key,), (second.key,))
    assert len({first.key, second.key, third.key}) == 3
    policies = planning.policies([])
    assert [policy.direction for policy in policies] == [
        Direction.toward(preference) for preference in preferences_of(planning.config)
    ]
    assert all(policy.row == {third.key: 1.0} for policy in policies)
    assert len({policy.key for policy in policies}) == 3


def test_directions_may_ask_for_less_of_something() -> None:
    """A preference has no negative weights: what is asked less of has none, and if that is all, all count alike."""
    asked = [{"a": 0.8, "b": -0.6}, {"c": -1.0}]
    first, second = dpa(directions=asked).policies([])
    assert first.direction == Direction.of({"a": 0.8, "b": -0.6})
    assert first.preference.vector(("a", "b", "c")).tolist() == [1.0, 0.0, 0.0]
    assert second.preference.vector(("a", "b", "c")).tolist() == pytest.approx([1 / 3] * 3)
    with pytest.raises(PreferenceError, match="unknown objective 'd'"):
        dpa(directions=[{"d": 1.0}]).policies([])


def test_corners_that_share_a_bank_take_equally_many_steps() -> None:
    """However many pairs each has: they are trained through their mixtures, as long as the most pairs ask for."""
    planning = planner(config(method="conditioned"))
    (wave,) = planning.waves()
    assert [plan.steps for plan in wave] == [120] * 3
    assert [plan.steps for plan in soup().corners()] == [12, 12, 120]
