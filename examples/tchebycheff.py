"""A weighter of your own: Tchebycheff, which also reaches the concave part of a front, where no fixed weights lead.

With this file beside the config of a sweep (its settings are optional):

    method: online
    settings: {weighting: {type: "tchebycheff:Tchebycheff", temperature: 0.1}}

By itself it shows the difference on two objectives:

python examples/tchebycheff.py
"""

from pathlib import Path
from typing import Any

import numpy as np

from moalign.weighting import Fixed, Observation, RewardWeighter, Weighting, build_weighter


class Tchebycheff:
    """Minimise max_k p_k (z_k - J_k), made smooth: a batch's weights are the gradient of its soft maximum.

        w_k ~ p_k exp(p_k (z_k - J_k) / temperature)

    p is the preference, J the running mean of the rewards, and z the `ideal`, or else the best single reward seen.
    (Lin et al. 2024, "Smooth Tchebycheff Scalarization", arXiv 2402.19078; J and z are estimates of our own.)
    The objectives should have comparable units: a gap of one counts the same in each. A weight 0 stays 0.
    """

    needs: frozenset[str] = frozenset()  # or {"gram"}, {"validation"}: costly, so measured only where asked for
    validation_every = 0

    def __init__(
        self,
        preference: np.ndarray,
        *,
        temperature: float = 0.05,  # -> 0: all weight on what lags most; -> infinity: the preference itself
        memory: float = 0.8,  # the share of J that is older than this batch
        ideal: list[float] | None = None,
    ) -> None:
        self.preference, self.temperature, self.memory = preference.copy(), temperature, memory
        self.ideal = None if ideal is None else np.array(ideal)
        self.mean: np.ndarray | None = None
        self.best: np.ndarray | None = None

    def update(self, seen: Observation) -> Weighting:
        now = seen.rewards.mean(axis=0)
        top = seen.rewards.max(axis=0) if self.ideal is None else self.ideal
        mean = now if self.mean is None else self.memory * self.mean + (1 - self.memory) * now
        best = top if self.best is None else np.maximum(self.best, top)
        self.mean, self.best = mean, best
        lag = self.preference * (best - mean) / self.temperature
        weights = self.preference * np.exp(lag - lag[self.preference > 0].max())
        return Weighting(weights / weights.sum())

    def state_dict(self) -> dict[str, Any]:
        values = {"mean": self.mean, "best": self.best}
        return {name: None if value is None else value.tolist() for name, value in values.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.best = (None if state[k] is None else np.array(state[k]) for k in ("mean", "best"))


def climb(weighter: RewardWeighter, start: float, steps: int = 2000, pace: float = 0.05) -> tuple[float, float]:
    """Follow the weighted gradient on the front (p^2, (1 - p)^2), the chance that two coins show 1 1, or 0 0."""
    angle = np.log(start / (1 - start))
    for step in range(steps):
        p = 1 / (1 + np.exp(-angle))
        weights = weighter.update(Observation(step, np.array([[p**2, (1 - p) ** 2]]), pace)).weights
        angle += pace * (weights @ [2 * p, -2 * (1 - p)]) * p * (1 - p)
    return round(float(p**2), 2), round(float((1 - p) ** 2), 2)


def main() -> None:
    for first in (0.2, 0.35, 0.5, 0.65, 0.8):
        preference = np.array([first, 1 - first])
        ours = build_weighter("tchebycheff:Tchebycheff", preference, {"ideal": [1.0, 1.0]}, Path(__file__).parent)
        print(preference, "fixed", climb(Fixed(preference), 0.55), "tchebycheff", climb(ours, 0.55))


if __name__ == "__main__":
    main()
