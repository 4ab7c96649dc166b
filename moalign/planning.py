"""Which adapters a sweep trains, in which order, and how many side by side."""

import gc
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch import Tensor

from moalign import __version__
from moalign.config import SweepConfig
from moalign.files import digest
from moalign.frontiers import corners, lattice, riesz
from moalign.preference import Preference


@dataclass(frozen=True)
class Plan:
    """One adapter to come: its key, preference, primary objective, steps, and the keys it starts from."""

    key: str
    preference: Preference
    primary: str
    steps: int
    parents: tuple[str, ...] = ()


def preferences_of(config: SweepConfig) -> list[Preference]:
    """The preferences that a config asks for, each once.

    Raises PreferenceError for weights that are negative, all zero, not finite, or name an unknown objective.
    """
    names, wanted = tuple(config.objectives), config.preferences
    if wanted.points is not None:
        found = [Preference.of(weights) for weights in wanted.points]
        for preference in found:
            preference.vector(names)
        return list(dict.fromkeys(found))
    if wanted.lattice is not None:
        rows = lattice(len(names), wanted.lattice)
    elif wanted.riesz is not None:
        rows = riesz(len(names), wanted.riesz, config.seed)
    else:
        rows = corners(len(names))
    return [Preference.of(dict(zip(names, row.tolist(), strict=True))) for row in rows]


def waves_of(config: SweepConfig, data_digest: str, base_digest: str, pairs: Mapping[str, int]) -> list[list[Plan]]:
    """The adapters to train, in waves: a later wave needs all of the one before.

    The corners come first where others need them: as the margin models of objectives that are learned from pairs
    (they are the corner policies themselves, MODPO section 4), or as the ends between which a warm start begins. The
    primary objective of a preference is its heaviest, so that its weight is at least 1/m and MODPO's 1/w_k is tame.
    """
    names, settings = tuple(config.objectives), config.method_settings
    wanted = preferences_of(config)
    ends = [Preference.of(dict.fromkeys([end], 1.0)) for end in names]
    learned = [end for end in ends if config.objectives[next(iter(end.weights))].type is None]
    first = ends if settings.warm_start else learned
    common = [base_digest, data_digest, json.dumps(_determining(config), sort_keys=True)]

    def plan(preference: Preference, parents: tuple[str, ...] = ()) -> Plan:
        primary = names[int(np.argmax(preference.vector(names)))]
        steps = settings.steps_for(pairs.get(primary, 0))
        if parents:
            steps = max(1, round(settings.warm_share * steps))
        weights = {name: weight for name, weight in preference.weights.items() if weight > 0}
        key = f"{preference.key[:80]}-{digest(*common, json.dumps(weights), *parents)[:12]}"
        return Plan(key, preference, primary, steps, parents)

    corner_plans = [plan(end) for end in first]
    done = {_positive(end) for end in first}
    parents = tuple(corner.key for corner in corner_plans) if settings.warm_start else ()
    rest = [plan(preference, parents) for preference in wanted if _positive(preference) not in done]
    return [wave for wave in (corner_plans, rest) if wave]


def _positive(preference: Preference) -> tuple[tuple[str, float], ...]:
    return tuple(item for item in preference.items if item[1] > 0)


def _determining(config: SweepConfig) -> dict[str, object]:
    """The settings that an adapter depends on; the digest of the data has the rest, by content and not by path."""
    return {
        "method": config.method,
        "settings": config.method_settings.model_dump(mode="json", exclude={"reference", "start"}),
        "adapter": config.adapter.model_dump(mode="json"),
        "objectives": list(config.objectives),
        "seed": config.seed,
        "dtype": config.dtype,
        "version": __version__.rsplit(".", 1)[0],
    }


def groups_of(wave: Sequence[Plan], size: int) -> list[list[Plan]]:
    """Neighbours of equal length in training, at most `size` together.

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
