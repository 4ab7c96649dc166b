"""Which adapters a sweep trains, in which order, and how many side by side."""

from typing import Any

import numpy as np
import pytest
import torch

from moalign import planning
from moalign.config import SweepConfig, parse_config
from moalign.errors import PreferenceError
from moalign.planning import Plan, best_group_size, groups_of, preferences_of, waves_of
from moalign.preference import Preference

RULES = {"a": {"type": "length"}, "b": {"type": "length"}, "c": {"type": "length"}}
PAIRS = {"a": 64, "b": 64, "c": 640}


def config(objectives: dict[str, Any] = RULES, **changes: Any) -> SweepConfig:
    return parse_config({"base": "org/name", "objectives": objectives, **changes})


def waves(config: SweepConfig, data: str = "d", base: str = "b") -> list[list[Plan]]:
    return waves_of(config, data, base, PAIRS)


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
    (wave,) = waves_of(config(many, preferences={"riesz": 30}), "d", "b", dict.fromkeys(many, 64))
    assert all(len(plan.key) < 120 for plan in wave)
    assert keys(config(preferences={"list": [{"a": 0.7, "b": 0.3}]}))[0].startswith("a70-b30-")


def test_groups_are_of_one_length_in_training() -> None:
    plans = [Plan(str(i), Preference.of({"a": 1.0}), "a", steps) for i, steps in enumerate([5, 3, 5, 5, 3])]
    assert [[plan.key for plan in group] for group in groups_of(plans, 2)] == [["0", "2"], ["3"], ["1", "4"]]


class Machine:
    """A machine whose step for n adapters takes `seconds[n]`, and keeps n * kept bytes for the backward pass."""

    def __init__(self, seconds: dict[int, float], kept: int = 4):
        self.seconds, self.kept, self.clock, self.asked = seconds, kept, 0.0, []

    def one_step(self, size: int) -> None:
        self.asked.append(size)
        x = torch.ones(size * self.kept // 4, requires_grad=True)
        (x * x).sum().backward()
        self.clock += self.seconds[size]


def size_on(machine: Machine, monkeypatch: pytest.MonkeyPatch, most: int, memory_gb: float | None = 1.0) -> int:
    monkeypatch.setattr(planning.time, "perf_counter", lambda: machine.clock)
    return best_group_size(machine.one_step, most, memory_gb)


def test_the_smallest_of_the_fastest_group_sizes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Per adapter 1, .6, .51, .5 seconds: 4 is within 5 % of the best (.5), 2 is not."""
    machine = Machine({1: 1.0, 2: 1.2, 4: 4 * 0.51, 8: 4.0})
    assert size_on(machine, monkeypatch, most=8) == 4


def test_a_machine_that_one_adapter_fills_trains_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the work in 2.8 times the time: larger groups are not even tried."""
    machine = Machine({1: 1.0, 2: 2.8})
    assert size_on(machine, monkeypatch, most=16) == 1
    assert max(machine.asked) == 2


def test_a_group_is_no_larger_than_its_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({1: 1.0, 2: 1.0, 3: 1.0})
    assert size_on(machine, monkeypatch, most=3) == 3


def test_sizes_that_do_not_fit_the_memory_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One adapter keeps 2^20 bytes; 3 MiB hold two, and not four."""
    machine = Machine(dict.fromkeys([1, 2, 4, 8], 1.0), kept=2**20)
    assert size_on(machine, monkeypatch, most=8, memory_gb=3 / 2**10) == 2
    assert max(machine.asked) == 2
