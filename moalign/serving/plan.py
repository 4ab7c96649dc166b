"""From a preference to a row: which adapters answer a wish, and what they are predicted to attain."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from moalign.blends import read_blends
from moalign.direction import Direction
from moalign.errors import ConfigError, RunError, unknown
from moalign.frontiers import ParetoPoint, ParetoSet
from moalign.preference import Preference
from moalign.runs import BASE, Run
from moalign.serving.decoding import DIVERGENCES, with_base
from moalign.serving.names import served_names
from moalign.serving.policies import POLICIES, Choice, Known, Wish, alone
from moalign.serving.usable import sound, usable_front

__all__ = ["POLICIES", "Plan", "Planner", "Predicted"]

TWO_SIDED = 1.96  # standard errors to either side hold 95 % of a normal distribution
KEPT = 4096  # plans that are remembered
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predicted:
    """What one objective is expected to be, in its own units: standard error and 95 % interval are None if unknown."""

    value: float
    standard_error: float | None
    interval: tuple[float, float] | None

    @classmethod
    def normal(cls, value: float, standard_error: float) -> "Predicted":
        """A normal estimate: value +- 1.96 standard errors; NaN for an error that is not known.

        >>> Predicted.normal(0.0, 0.5).interval
        (-0.98, 0.98)
        """
        if not math.isfinite(standard_error):
            return cls(value, None, None)
        half = TWO_SIDED * standard_error
        return cls(value, standard_error, (value - half, value + half))


@dataclass(frozen=True)
class Plan:
    """How a wish is answered: one mixture per lane (adapter key to weight; {} is the base), and their shares.

    All policies but `decode` have one lane, of share 1. `direction` is to be stated in the prompt. `predicted` has a
    value for each objective, or none where `source` is "unknown"; "measured" is that very policy, "calibrated" the
    fitted map's word, "interpolated" a straight line between measured points.
    """

    policy: str
    preference: Preference | None
    direction: Direction | None
    rows: tuple[dict[str, float], ...]
    shares: tuple[float, ...]
    divergence: str
    predicted: dict[str, Predicted]
    source: str

    def as_dict(self) -> dict[str, Any]:
        """The plan in what JSON can hold, without what does not apply: a divergence is for several lanes only."""
        return {
            "policy": self.policy,
            "preference": None if self.preference is None else self.preference.weights,
            "direction": None if self.direction is None else self.direction.components,
            "lanes": [{"row": dict(row), "share": share} for row, share in zip(self.rows, self.shares, strict=True)],
            **({"divergence": self.divergence} if self.policy == "decode" else {}),
            "predicted": {
                name: {
                    "value": each.value,
                    "standard_error": each.standard_error,
                    "interval": None if each.interval is None else list(each.interval),
                }
                for name, each in self.predicted.items()
            },
            "source": self.source,
        }


class Planner:
    """Every plan of one run, which is read once; plans are remembered, and may be asked for by several threads."""

    def __init__(self, known: Known, names: Mapping[str, ParetoPoint], measured: list[ParetoPoint]):
        self._known, self.names = known, dict(names)
        self.objectives = known.front.objectives
        self.adapters = list(dict.fromkeys(key for point in known.front for key in point.mixture))
        self.default = "direction" if known.reads_directions else "interpolate"
        # Backwards, so that of two measurements of one row the first stands: a point before a blend.
        self._measured = {_key(point.mixture): point for point in reversed(measured)}
        self._remembered = lru_cache(KEPT)(self._plan)

    @classmethod
    def of(cls, run: Run, front: ParetoSet | None = None) -> "Planner":
        """Read a run's blends and map, and its points, unless they are given as `front`.

        A point that cannot be used (a value that is not finite) is in no plan; the log says which, a line each. Raises
        RunError if nothing is trained yet, or nothing can be used.
        """
        if front is None:
            front, left_out = usable_front(run)
            for line in left_out:
                log.warning(line)
            if left_out and not len(front):
                raise RunError(f"{run.folder} has no point that can be used; {left_out[0]}")
        known, base = Known.of(run, front), run.base_point()
        blends = (ParetoPoint.from_dict(record) for record in read_blends(run))
        measured = [*known.front, *filter(sound, blends)]
        # The base's point has a preference and a key of its own, which no row shows.
        return cls(known, served_names(run, front), [*measured, *([_as_base(base)] if base and sound(base) else [])])

    def plan(self, wish: Wish, policy: str | None = None, divergence: str = "reverse_kl") -> Plan:
        """How a wish is answered by a policy of `POLICIES`; by the run's `default` where none is named.

        Raises PreferenceError, with near names, for an objective that the run has not, and ConfigError for a policy
        or divergence that does not exist, or that this run or this wish does not allow.
        """
        default = "direction" if isinstance(wish, Direction) else self.default
        chosen = default if policy is None else policy
        if chosen not in POLICIES:
            raise ConfigError(unknown("policy", chosen, POLICIES))
        if divergence not in DIVERGENCES:
            raise ConfigError(unknown("divergence", divergence, DIVERGENCES))
        if divergence != "reverse_kl" and chosen != "decode":
            raise ConfigError(f"divergence {divergence!r} is for policy 'decode' only, and this is {chosen!r}")
        if isinstance(wish, Direction) and chosen != "direction":
            raise ConfigError(f"policy {chosen!r} reads no direction; ask for weights >= 0, or use 'direction'")
        return self._remembered(chosen, wish, divergence)

    def named(self, name: str) -> Plan:
        """The plan of one of `names`, or of "base". Raises ConfigError, with the near name, for any other."""
        if name == BASE:
            return self._planned(BASE, None, Choice(({},)), "reverse_kl")
        if name not in self.names:
            raise ConfigError(unknown("adapter", name, [BASE, *self.names]))
        point = self.names[name]
        return self._planned("named", point.preference, alone(point), "reverse_kl")

    def _plan(self, policy: str, wish: Wish, divergence: str) -> Plan:
        wish.vector(self.objectives)  # first, so that an unknown objective is never something else's error
        preference = wish.preference() if isinstance(wish, Direction) else wish
        return self._planned(policy, preference, POLICIES[policy](self._known, wish), divergence)

    def _planned(self, policy: str, preference: Preference | None, choice: Choice, divergence: str) -> Plan:
        rows, shares = with_base(choice.rows, choice.shares, divergence)
        predicted, source = self._predict(choice)
        return Plan(policy, preference, choice.direction, rows, shares, divergence, predicted, source)

    def _predict(self, choice: Choice) -> tuple[dict[str, Predicted], str]:
        """What is known of a choice: by measurement, else by the map, else by a straight line, else nothing."""
        if len(choice.rows) != 1:
            return {}, "unknown"
        (row,), names = choice.rows, self.objectives
        plain = choice.direction is None  # with a direction, a row says too little
        point = choice.parts[0][0] if len(choice.parts) == 1 else self._measured.get(_key(row)) if plain else None
        if point is not None:
            return {name: _measured(point, name) for name in names}, "measured"
        columns, fitted = self._known.columns, self._known.map
        if fitted is not None and set(row) <= set(columns):
            values, errors = fitted.predict(np.array([row.get(key, 0.0) for key in columns]))
            pairs = zip(names, values.tolist(), errors.tolist(), strict=True)
            return {name: Predicted.normal(value, error) for name, value, error in pairs}, "calibrated"
        if not choice.parts:
            return {}, "unknown"
        return {name: _interpolated(choice.parts, name) for name in names}, "interpolated"


def _key(row: Mapping[str, float]) -> frozenset[tuple[str, float]]:
    """What a row is, whatever the order in which its parts are written, and what rounding did to them."""
    return frozenset((name, round(weight, 9)) for name, weight in row.items() if round(weight, 9))


def _as_base(base: ParetoPoint) -> ParetoPoint:
    return ParetoPoint(BASE, base.method, base.preference, base.values, base.standard_errors, base.intervals, row={})


def _measured(point: ParetoPoint, name: str) -> Predicted:
    error, interval = point.standard_errors.get(name, math.nan), point.intervals.get(name, (math.nan, math.nan))
    return Predicted(
        point.values[name],
        error if math.isfinite(error) else None,
        (interval[0], interval[1]) if all(map(math.isfinite, interval)) else None,
    )


def _interpolated(parts: tuple[tuple[ParetoPoint, float], ...], name: str) -> Predicted:
    """sum_i c_i J_i, with the error sum_i c_i SE_i.

    That is the largest which errors of any correlation can add up to: points are measured on the same prompts. How far
    the truth bends from the line is not in it.
    """
    value = math.fsum(share * point.values[name] for point, share in parts)
    error = math.fsum(share * point.standard_errors.get(name, math.nan) for point, share in parts)
    return Predicted.normal(value, error)
