"""How many adapters train side by side: as many as are fastest, of one length."""

import pytest
import torch

from moalign import grouping
from moalign.grouping import best_group_size, groups_of
from moalign.planning import Plan
from moalign.preference import Preference


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
    monkeypatch.setattr(grouping.time, "perf_counter", lambda: machine.clock)
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
