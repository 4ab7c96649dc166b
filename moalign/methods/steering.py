"""One preference of an online run: its reward weights, baselines, budgets, and whether it still trains."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from moalign.losses import Aggregation, Baseline, Estimator, advantage_parts, combine, whitening
from moalign.weighting import Observation, RewardWeighter, Weighting

Validated = tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]

_DECAY = 0.9  # of the running moments: a cumulative mean would lag behind a policy that improves


@dataclass
class Moments:
    """Running mean and deviation of each objective over past batches: REINFORCE's baseline, which must not know the
    batch it is subtracted from.

    >>> moments = Moments()
    >>> moments.add(np.array([[1.0], [3.0]]))
    >>> moments.mean.tolist(), moments.deviation.tolist()
    ([2.0], [1.0])
    """

    weight: float = 0.0
    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)

    def add(self, rewards: Float[np.ndarray, "n m"]) -> None:
        """Take in a batch."""
        mean, square = rewards.mean(0), (rewards**2).mean(0)
        first, second = (np.array(old) if old else 0.0 for old in (self.first, self.second))
        self.weight = _DECAY * self.weight + 1 - _DECAY
        self.first = (_DECAY * first + (1 - _DECAY) * mean).tolist()
        self.second = (_DECAY * second + (1 - _DECAY) * square).tolist()

    @property
    def mean(self) -> Float[np.ndarray, " m"]:
        """The mean, without the pull of the empty start."""
        return np.array(self.first) / self.weight

    @property
    def deviation(self) -> Float[np.ndarray, " m"]:
        """The standard deviation."""
        return np.sqrt(np.maximum(np.array(self.second) / self.weight - self.mean**2, 0.0))

    def baseline(self) -> Baseline | None:
        """What REINFORCE subtracts; None before the first batch."""
        return Baseline(torch.tensor(self.mean), torch.tensor(self.deviation)) if self.first else None


@dataclass
class Steering:
    """What decides how one preference's rollouts become its update; `state` and `load` carry it over a restart."""

    weighter: RewardWeighter
    weighting: Weighting
    estimator: Estimator
    aggregation: Aggregation
    moments: Moments = field(default_factory=Moments)
    initial: tuple[list[float], list[float]] | None = None  # mean and deviation of the first validation
    entropy: float | None = None  # per token, of the first batch
    collapsed: bool = False  # said so already
    stopped: dict[str, Any] | None = None  # {"step": ..., "reason": ...}
    gram: list[list[float]] | None = None  # of the last batch, for the log

    def validated(self, rewards: Float[np.ndarray, "n m"]) -> Validated:
        """Mean objectives on validation completions: in deviations of the first ones above their mean, and plain."""
        if self.initial is None:
            deviation = rewards.std(0)
            self.initial = rewards.mean(0).tolist(), np.where(deviation > 0, deviation, 1.0).tolist()
        mean, deviation = map(np.array, self.initial)
        attained = rewards.mean(0)
        return (attained - mean) / deviation, attained

    def decide(self, seen: Observation) -> None:
        """Ask the weighter what the batch is worth."""
        self.gram = None if seen.gram is None else seen.gram.tolist()
        self.weighting = self.weighter.update(seen)

    def parts(self, rewards: Float[np.ndarray, "p g m"]) -> Float[Tensor, "p g m"]:
        """The advantages of each objective, in which the whole advantage is linear, at the present weights."""
        parts = advantage_parts(
            torch.tensor(rewards), self._weights, self.estimator, self.aggregation, self.moments.baseline()
        )
        # Whitening takes the batch's mean away, which for REINFORCE is not zero; so taken, the rest is linear.
        return parts - parts.mean((0, 1)) if self.aggregation == "normalize_then_sum" else parts

    def advantages(self, parts: Float[Tensor, "p g m"]) -> Float[Tensor, "p g"]:
        """The advantage of each completion. The scale comes last: before normalisation it would change nothing."""
        return self.weighting.scale * combine(parts, self._weights, self.aggregation)

    def factors(self, parts: Float[Tensor, "p g m"]) -> Float[Tensor, " m"]:
        """What each objective's own gradient counts in that of `advantages`: scale * weight / whitening."""
        spread = whitening(parts, self._weights) if self.aggregation == "normalize_then_sum" else torch.tensor(1.0)
        return self.weighting.scale / spread * self._weights  # without variance the spread is infinite, and this 0

    @property
    def _weights(self) -> Float[Tensor, " m"]:
        return torch.tensor(self.weighting.weights, dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "weighter": self.weighter.state_dict(),
            "weights": self.weighting.weights.tolist(),
            "scale": self.weighting.scale,
            "moments": vars(self.moments),
            "initial": self.initial,
            "entropy": self.entropy,
            "collapsed": self.collapsed,
            "stopped": self.stopped,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.weighter.load_state_dict(state["weighter"])
        self.weighting = Weighting(np.array(state["weights"]), state["scale"])
        self.moments = Moments(**state["moments"])
        self.initial = tuple(state["initial"]) if state["initial"] else None
        self.entropy, self.collapsed, self.stopped = state["entropy"], state["collapsed"], state["stopped"]
