"""How many adapters train side by side: neighbours of equal length, as many as are fastest on this machine."""

import gc
import time
from collections.abc import Sequence

import psutil
import torch
from torch import Tensor

from moalign.planning import Plan


def groups_of(wave: Sequence[Plan], size: int) -> list[list[Plan]]:
    """Neighbours of equal length in training, at most `size` together.

    >>> from moalign.preference import Preference
    >>> plans = [Plan(str(i), Preference.of({"a": 1.0}), "a", steps) for i, steps in enumerate([5, 5, 5, 3])]
    >>> [[plan.key for plan in group] for group in groups_of(plans, 2)]
    [['0', '1'], ['2'], ['3']]
    """
    groups: list[list[Plan]] = []
    for steps in dict.fromkeys(plan.steps for plan in wave):
        same = [plan for plan in wave if plan.steps == steps]
        groups += [same[start : start + size] for start in range(0, len(same), size)]
    return groups


def best_group_size(one_step, most: int, memory_gb: float | None) -> int:
    """How many adapters to train side by side on this machine.

    `one_step(size)` does a forward and a backward pass for `size` adapters. Sizes 1, 2, 4, ... up to `most` are timed
    as long as they fit the memory; the smallest within 5 % of the best time per adapter wins, because its points land
    sooner.
    """
    kept = _Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
        one_step(1)
    budget = memory_gb * 2**30 if memory_gb else 0.6 * _free_bytes()
    times: dict[int, float] = {}
    sizes = sorted({min(2**power, most) for power in range(most.bit_length() + 1)})
    for size in sizes:
        if size > 1 and size * kept.bytes > budget:
            break
        one_step(size)
        start = time.perf_counter()
        one_step(size)
        times[size] = (time.perf_counter() - start) / size
        if times[size] > 1.3 * min(times.values()):
            break
    gc.collect()
    fastest = min(times.values())
    return next(size for size, seconds in times.items() if seconds <= 1.05 * fastest)


class _Kept:
    """Counts the bytes that autograd keeps for the backward pass, each storage once."""

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: set[int] = set()

    def add(self, tensor: Tensor) -> Tensor:
        """Called by autograd for each tensor that it saves."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def _free_bytes() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    return float(psutil.virtual_memory().available)
