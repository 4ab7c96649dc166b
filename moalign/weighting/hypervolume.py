"""Larger updates while the validated policy still adds to the volume that its path dominates.

Lu et al. 2025, "Learning to Optimize Multi-Objective Alignment Through Dynamic Reward Weighting" (arXiv 2509.11452),
Algorithm 1. Three differences from the authors' release, each because it changes the result:

- their scale multiplies the rewards, where estimators that normalise divide it out again; here it multiplies the
  normalised advantages;
- their volume is in raw units, where tanh is a switch between 0.5 and 2 that a token count decides; here the
  objectives are in standard deviations of the initial policy;
- theirs raises when a point is below the reference in the last objective; here such a point adds nothing.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.errors import ConfigError
from moalign.frontiers import hypervolume, non_dominated
from moalign.weighting.base import Observation, Weighting


class Hypervolume:
    """The preference as the weights, and a scale that says whether the last validation advanced the front.

        scale = 0.5 + 1.5 tanh(max(D, 0)),   D = HV(archive + v; z) - HV(archive; z)

    in [0.5, 2), where v is the validation vector, z the first one less `margin`, and the archive holds the vectors
    that added volume, less those dominated since (dropping them changes no volume). D is in deviations to the power
    of the number of objectives. The scale is 1 until there are two vectors to compare, and is kept between
    validations, as in the paper, where the scale of step t comes from the validation before it.

    Args:
        preference: the weights, which stay as they are.
        every: validate at every so many steps; the paper's is 1. Each one generates for all validation prompts.
        margin: how far below the initial policy the reference point is, in deviations. At 0 only a policy that
            is better than the initial one in EVERY objective adds volume.

    Edge cases: a vector below the reference in any objective, or equal to a former one, adds nothing: scale 0.5. A
    vector with a NaN or an infinity is passed over: the scale stays. Raises ConfigError if `every` < 1 or `margin` < 0.

    >>> weighter = Hypervolume(np.array([0.5, 0.5]))
    >>> vectors = [np.zeros(2), np.array([0.3, 1.0]), None, np.array([0.2, 0.9])]
    >>> seen = [Observation(t, np.zeros((4, 2)), 1e-3, validation=v) for t, v in enumerate(vectors)]
    >>> [round(weighter.update(one).scale, 5) for one in seen]
    [1.0, 0.93697, 0.93697, 0.5]
    """

    needs: frozenset[str] = frozenset({"validation"})

    def __init__(self, preference: Float[np.ndarray, " m"], *, every: int = 5, margin: float = 0.0) -> None:
        if every < 1:
            raise ConfigError(f"weighting 'hypervolume': every is {every}; expected a number of steps, at least 1")
        if not 0 <= margin < np.inf:
            raise ConfigError(f"weighting 'hypervolume': margin is {margin:g}; expected a finite number >= 0")
        self.preference = preference.copy()
        self.validation_every = every
        self.margin = margin
        self.reference: Float[np.ndarray, " m"] | None = None
        self.archive: Float[np.ndarray, "n m"] = np.zeros((0, len(preference)))
        self.scale = 1.0

    def update(self, seen: Observation) -> Weighting:
        """The preference, and the scale that the latest validation gave."""
        if seen.validation is not None and np.isfinite(seen.validation).all():
            self._compare(seen.validation.astype(np.float64))
        return Weighting(self.preference.copy(), self.scale)

    def _compare(self, vector: Float[np.ndarray, " m"]) -> None:
        first = self.reference is None
        if self.reference is None:
            self.reference = vector - self.margin
        gain = 0.0
        if not (self.archive >= vector).all(axis=1).any():  # else the difference of two sums may be 1e-17, not 0
            extended = np.vstack([self.archive, vector])
            gain = max(hypervolume(extended, self.reference) - hypervolume(self.archive, self.reference), 0.0)
            if gain > 0:
                self.archive = extended[non_dominated(extended)]
        if not first:
            self.scale = 0.5 + 1.5 * float(np.tanh(gain))

    def state_dict(self) -> dict[str, Any]:
        """The reference point (None before the first validation), the archive, and the scale."""
        return {
            "reference": None if self.reference is None else self.reference.tolist(),
            "archive": self.archive.tolist(),
            "scale": self.scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the reference point, the archive and the scale."""
        self.reference = None if state["reference"] is None else np.array(state["reference"], dtype=np.float64)
        self.archive = np.array(state["archive"], dtype=np.float64).reshape(-1, len(self.preference))
        self.scale = float(state["scale"])
