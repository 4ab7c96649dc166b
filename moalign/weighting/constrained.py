"""Climb one objective and keep the others above thresholds: the second stage of C-MORL.

Liu et al. 2025, "C-MORL: Multi-Objective Reinforcement Learning through Efficient Discovery of Pareto Front" (arXiv
2410.02236), stage 2. In the authors' release the barrier's cost is clip(ratio) mean(return) against beta mean(return):
its derivative is the same for every sample, so that its expected gradient is zero and nothing is constrained. Here the
slack is measured on validation prompts, and multiplies each objective's own advantages.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from moalign.errors import ConfigError
from moalign.weighting.base import Observation, Weighting

_NAME = "weighting 'constrained'"


def barrier_multipliers(slack: Float[np.ndarray, " m"], sharpness: float, margin: float) -> Float[np.ndarray, " m"]:
    """The derivative of the log barrier (1/t) log(slack): what each constrained objective counts beside the target.

        lambda_i = 1 / (t max(slack_i, margin))          (t the sharpness)

    C-MORL (arXiv 2410.02236), stage 2; the interior-point method of Boyd and Vandenberghe, Sec. 11.2. Slack and margin
    are in the same unit. A slack below the margin, or negative, counts as the margin, an infinite one gives 0, and a
    NaN stays.

    >>> barrier_multipliers(np.array([0.5, 0.001, np.inf]), sharpness=20.0, margin=0.01).tolist()
    [0.1, 5.0, 0.0]
    """
    return 1 / (sharpness * np.maximum(slack, margin))


def thresholds_from(
    attained: Float[np.ndarray, " m"], lowest: Float[np.ndarray, " m"], highest: Float[np.ndarray, " m"], retain: float
) -> Float[np.ndarray, " m"]:
    """The least that a branch of an adapter must attain in each objective, for the share that it is to retain.

        s = (J - lowest) / (highest - lowest),    tau = lowest + (highest - lowest) max(s - (1 - retain) |s|, 0)

    C-MORL (arXiv 2410.02236), stage 2, where retain is beta = 0.9; theirs is tau = beta J, which for a negative J asks
    for MORE than the adapter attains. `lowest` is the nadir and `highest` the ideal; everything is in the objectives'
    own units. An adapter below the nadir must climb back to it, a NaN stays, and retain 1 asks for all, above the
    nadir. Raises ConfigError for a share outside [0, 1] and for an objective without a range.

    >>> thresholds_from(np.array([-20.0, 0.8]), np.array([-40.0, 0.0]), np.array([0.0, 1.0]), retain=0.9)
    array([-22.  ,   0.72])
    """
    if not 0 <= retain <= 1:
        raise ConfigError(f"retain is {retain:g}; expected a share from 0 to 1, such as 0.9")
    span = highest - lowest
    if not (np.isfinite(span) & (span > 0)).all():
        place = int(np.argmin(np.isfinite(span) & (span > 0)))
        raise ConfigError(
            f"objective {place} has no range: lowest {lowest[place]:g}, highest {highest[place]:g}; expected finite "
            "numbers, the lowest below the highest"
        )
    share = (attained - lowest) / span
    return lowest + span * np.maximum(share - (1 - retain) * np.abs(share), 0.0)


class Constrained:
    """Maximise one objective subject to J_i >= tau_i for the others, by weights that follow the measured slack.

        slack_i = (attained_i - tau_i) / range_i,    weights ~ lambda, lambda_l = 1 for the objective l

        barrier       lambda_i = 1 / (t max(slack_i, margin)), so that what climbs is J_l + (1/t) sum_i log(slack_i);
                      where slacks are negative, lambda_i = -slack_i for these, and 0 for all else: the gradient of
                      -(1/2) sum_i slack_i^2, so that the worst is mended first, and the target waits
        lagrangian    lambda_i <- max(lambda_i - rate slack_i, 0) at each validation, from 0; a violated constraint
                      gains weight until it is met, and one that is met for good loses all

    The first is C-MORL's interior-point method (arXiv 2410.02236, stage 2), the second its usual replacement. At the
    barrier's optimum each constraint costs the objective at most 1/t of its range (exactly, where it binds and the
    front is straight); the lagrangian ends on the threshold itself, but overshoots on the way, and where the front is
    straight and nothing damps it (a KL penalty does), it circles. Between validations lambda stays; before the first,
    each slack counts as the margin, and the lagrangian's multipliers are 0.

    The scale is 1. An advantage that is whitened has no size that 1 + sum(lambda) could restore: it would instead
    loosen the KL penalty just where a constraint is near. One that is not whitened shrinks beside the KL penalty
    there, as sum(w) = 1 demands.

    Args:
        preference: only its length is read; the objective decides.
        objective: which one climbs, counted from 0.
        thresholds: the least of each objective, in its own units; None or -inf for none. The objective's own is not
            read.
        ranges: what counts as 1 of each objective, such as ideal less nadir; None for 1 of its own units.
        kind: "barrier" or "lagrangian".
        sharpness: t, of the barrier; the authors' is 20.
        margin: the smallest slack, of the barrier: lambda is at most 1 / (t margin), 5 by default.
        rate: how much a multiplier gains per validation and unit of violation, of the lagrangian.
        every: validate at every so many steps.
        units: what the trainer weighs: advantages (or margins) over their own "deviations" (normalize_then_sum), or in
            the objectives' "own" units (sum_then_normalize), where each weight is also divided by its range. "own"
            is the barrier's exact gradient; with deviations t is t deviation_i / range_i for each i.

    Edge cases: without thresholds only the objective climbs; where one that has a threshold attains a NaN or an
    infinity, the last weights stay; a slack of 0 is no violation; on an infeasible problem the barrier never climbs the
    objective, and the lagrangian's multipliers grow without end. Raises ConfigError for a setting out of its range.

    >>> weighter = Constrained(np.array([0.5, 0.5]), objective=0, thresholds=[None, -3.0])
    >>> seen = [Observation(t, np.zeros((4, 2)), 1e-3, attained=np.array([0.0, v])) for t, v in enumerate((-2.9, -3.1))]
    >>> [weighter.update(one).weights.round(3).tolist() for one in seen]
    [[0.667, 0.333], [0.0, 1.0]]
    """

    needs: frozenset[str] = frozenset({"validation"})

    def __init__(
        self,
        preference: Float[np.ndarray, " m"],
        *,
        objective: int,
        thresholds: list[float | None],
        ranges: list[float] | None = None,
        kind: Literal["barrier", "lagrangian"] = "barrier",
        sharpness: float = 20.0,
        margin: float = 0.01,
        rate: float = 2.0,
        every: int = 5,
        units: Literal["deviations", "own"] = "deviations",
    ) -> None:
        m = len(preference)
        if not 0 <= objective < m:
            raise ConfigError(f"{_NAME}: objective is {objective}; expected a place from 0 to {m - 1}")
        for name, number in (("sharpness", sharpness), ("margin", margin), ("rate", rate)):
            if not 0 < number < np.inf:
                raise ConfigError(f"{_NAME}: {name} is {number:g}; expected a finite number > 0")
        if every < 1:
            raise ConfigError(f"{_NAME}: every is {every}; expected a number of steps, at least 1")
        self.objective, self.kind, self.units = objective, kind, units
        self.sharpness, self.margin, self.rate, self.validation_every = sharpness, margin, rate, every
        self.thresholds = _thresholds(thresholds, objective, m)
        self.ranges = _ranges(ranges, m)
        self.bound: Bool[np.ndarray, " m"] = self.thresholds > -np.inf
        self.multipliers = self._climb(
            barrier_multipliers(np.where(self.bound, margin, np.inf), sharpness, margin)
            if kind == "barrier"
            else np.zeros(m)
        )

    def update(self, seen: Observation) -> Weighting:
        """The weights that the latest slack gives; scale 1."""
        if seen.attained is not None and np.isfinite(seen.attained[self.bound]).all():
            slack = np.full(len(self.thresholds), np.inf)
            slack[self.bound] = ((seen.attained - self.thresholds) / self.ranges)[self.bound]
            self.multipliers = self._next(slack)
        weights = self.multipliers / self.ranges if self.units == "own" else self.multipliers
        return Weighting(weights / weights.sum())

    def _next(self, slack: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        if self.kind == "lagrangian":
            return self._climb(np.maximum(self.multipliers - self.rate * slack, 0.0))
        if (slack < 0).any():
            return np.maximum(-slack, 0.0)
        return self._climb(barrier_multipliers(slack, self.sharpness, self.margin))

    def _climb(self, multipliers: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """The same, with the 1 of the objective itself."""
        return np.where(np.arange(len(multipliers)) == self.objective, 1.0, multipliers)

    def state_dict(self) -> dict[str, Any]:
        """The multipliers, the objective's own 1 among them (0 while violated constraints are mended)."""
        return {"multipliers": self.multipliers.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the multipliers."""
        self.multipliers = np.array(state["multipliers"], dtype=np.float64)


def _thresholds(given: list[float | None], objective: int, m: int) -> Float[np.ndarray, " m"]:
    """-inf where nothing is asked for."""
    if len(given) != m:
        raise ConfigError(f"{_NAME}: {len(given)} thresholds for {m} objectives; expected one each, null for none")
    asked = np.array([-np.inf if one is None else one for one in given], dtype=np.float64)
    asked[objective] = -np.inf
    if not (asked < np.inf).all():
        wrong = ", ".join("null" if one is None else f"{one:g}" for one in given)
        raise ConfigError(f"{_NAME}: thresholds are {wrong}; expected finite numbers, null or -inf for none")
    return asked


def _ranges(given: list[float] | None, m: int) -> Float[np.ndarray, " m"]:
    ranges = np.ones(m) if given is None else np.array(given, dtype=np.float64)
    if len(ranges) != m:
        raise ConfigError(f"{_NAME}: {len(ranges)} ranges for {m} objectives; expected one each")
    if not (np.isfinite(ranges) & (ranges > 0)).all():
        shown = ", ".join(f"{one:g}" for one in ranges)
        raise ConfigError(f"{_NAME}: ranges are {shown}; expected finite numbers > 0")
    return ranges
