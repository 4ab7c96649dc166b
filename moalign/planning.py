"""Which adapters a run trains, in which order, and which policies are measured of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moalign import __version__
from moalign.config import SweepConfig
from moalign.direction import Direction
from moalign.files import digest
from moalign.frontiers import corners, lattice, riesz
from moalign.methods import METHODS
from moalign.methods.soup import SoupSettings
from moalign.preference import Preference


@dataclass(frozen=True)
class Plan:
    """One adapter to come: its key, preference, primary objective, steps, and the keys it starts from.

    `stage` counts the adapters before it that it continues. Without steps it is a mere merge of its parents.
    """

    key: str
    preference: Preference
    primary: str
    steps: int
    parents: tuple[str, ...] = ()
    stage: int = 0


@dataclass(frozen=True)
class Policy:
    """What is measured as one point: a mixture of adapters, with a direction in its prompts or without."""

    key: str
    preference: Preference
    row: dict[str, float]
    direction: Direction | None = None


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


class Planner:
    """The adapters and policies of one run; keys are names by content, so that the same plan is found again."""

    def __init__(self, config: SweepConfig, data_digest: str, base_digest: str, amounts: Mapping[str, int]):
        self.config, self.settings, self.amounts = config, config.method_settings, amounts
        self.names, self.adapters = tuple(config.objectives), METHODS[config.method].adapters
        self._common = [base_digest, data_digest, json.dumps(_determining(config), sort_keys=True)]
        self._ends = [Preference.of(dict.fromkeys([name], 1.0)) for name in self.names]

    @property
    def one_by_one(self) -> bool:
        """Whether every adapter is a policy of its own, and every policy an adapter."""
        return self.adapters == "each" or self._merges_factors

    @property
    def _merges_factors(self) -> bool:
        return isinstance(self.settings, SoupSettings) and self.settings.merge == "factors"

    def waves(self) -> list[list[Plan]]:
        """The adapters of a run whose preferences are known beforehand; a later wave needs all of the one before."""
        if self.adapters == "rounds":
            return [[plan] for plan in self._rounds()]
        if self.adapters == "corners":
            return [wave for wave in (self.corners(), self._merged()) if wave]
        waves = (self.first(), self.further(preferences_of(self.config)))
        return [wave for wave in waves if wave]

    def first(self) -> list[Plan]:
        """The corners that others need.

        As the margin models of objectives that are learned from pairs (they are the corner policies themselves, MODPO
        section 4), or as the ends between which a warm start begins.
        """
        learned = [end for end in self._ends if self.config.objectives[next(iter(end.weights))].type is None]
        return [self._plan(end) for end in (self._ends if self.settings.warm_start else learned)]

    def corners(self) -> list[Plan]:
        """An adapter for each objective alone."""
        return [self._plan(end) for end in self._ends]

    def further(self, preferences: Sequence[Preference]) -> list[Plan]:
        """The adapters of these preferences that are not among the first, each once."""
        first = self.first()
        parents = tuple(plan.key for plan in first) if self.settings.warm_start else ()
        done = {_positive(plan.preference) for plan in first}
        wanted = {_positive(preference): preference for preference in reversed(preferences)}
        unique = dict.fromkeys(wanted[_positive(preference)] for preference in preferences)
        return [self._plan(preference, parents) for preference in unique if _positive(preference) not in done]

    def policies(self, plans: Sequence[Plan]) -> list[Policy]:
        """What is measured of these adapters; of all adapters together, where they are not policies one by one."""
        if self.one_by_one:
            return [Policy(plan.key, plan.preference, {plan.key: 1.0}) for plan in plans]
        if self.adapters == "corners":
            return [self._mixed(preference) for preference in preferences_of(self.config)]
        last = self._rounds()[-1]
        return [self._directed(last.key, direction) for direction in self._directions()]

    def _plan(self, preference: Preference, parents: tuple[str, ...] = (), merge: bool = False) -> Plan:
        # The primary objective is the heaviest, so that its weight is at least 1/m and MODPO's 1/w_k is tame.
        primary = self.names[int(np.argmax(preference.vector(self.names)))]
        together = METHODS[self.config.method].together  # one bank, so equally many steps
        amount = max(self.amounts.values()) if together else self.amounts.get(primary, 0)
        steps = 0 if merge else self.settings.steps_for(amount)
        if parents and self.settings.warm_start:
            steps = max(1, round(self.settings.warm_share * steps))
        weights = {name: weight for name, weight in preference.weights.items() if weight > 0}
        key = f"{preference.key[:80]}-{digest(*self._common, json.dumps(weights), *parents)[:12]}"
        return Plan(key, preference, primary, steps, parents)

    def _merged(self) -> list[Plan]:
        """The adapters that average the factors of the corners, where that is what a mixture is taken to be."""
        if not self._merges_factors:
            return []
        parents = tuple(plan.key for plan in self.corners())
        between = [each for each in preferences_of(self.config) if _positive(each) not in map(_positive, self._ends)]
        return [self._plan(preference, parents, merge=True) for preference in between]

    def _rounds(self) -> list[Plan]:
        """One adapter per round, each going on from the one before."""
        even = Preference.of(dict.fromkeys(self.names, 1.0))
        plans: list[Plan] = []
        for number in range(self.settings.rounds):
            plan = self._plan(even, tuple(plan.key for plan in plans[-1:]))
            key = f"round{number + 1}-{digest(plan.key, str(number))[:12]}"
            plans.append(Plan(key, even, plan.primary, plan.steps, plan.parents, number))
        return plans

    def _mixed(self, preference: Preference) -> Policy:
        keys = [plan.key for plan in self.corners()]
        weights = preference.vector(self.names).tolist()
        row = {key: weight for key, weight in zip(keys, weights, strict=True) if weight}
        own = [key for key in row if len(row) == 1]
        return Policy(own[0] if own else row_key(preference, row), preference, row)

    def _directions(self) -> list[Direction]:
        asked = self.settings.directions
        if asked is None:
            return [Direction.toward(preference) for preference in preferences_of(self.config)]
        return [Direction.of(components) for components in asked]

    def _directed(self, key: str, direction: Direction) -> Policy:
        direction.vector(self.names)
        wanted = {name: max(component, 0.0) for name, component in direction.components.items()}
        preference = Preference.of(wanted if any(wanted.values()) else dict.fromkeys(self.names, 1.0))
        return Policy(f"{direction.key[:80]}-{digest(key, str(direction))[:12]}", preference, {key: 1.0}, direction)


def row_key(preference: Preference, row: Mapping[str, float]) -> str:
    """A name for a mixture of adapters."""
    parts = (f"{name}:{weight:.6f}" for name, weight in sorted(row.items()))
    return f"{preference.key[:80]}-{digest(*parts)[:12]}"


def _positive(preference: Preference) -> tuple[tuple[str, float], ...]:
    return tuple(item for item in preference.items if item[1] > 0)


def _determining(config: SweepConfig) -> dict[str, object]:
    """The settings that an adapter depends on; the digest of the data has the rest, by content and not by path."""
    return {
        "method": config.method,
        "settings": config.method_settings.model_dump(
            mode="json",
            exclude={"reference": True, "start": True, "directions": True, "settings": {"reference", "start"}},
        ),
        "adapter": config.adapter.model_dump(mode="json"),
        "objectives": list(config.objectives),
        "seed": config.seed,
        "dtype": config.dtype,
        "version": __version__.rsplit(".", 1)[0],
    }
