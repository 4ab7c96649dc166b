"""Weights that stay what the user asked for."""

from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.weighting.base import Observation, Weighting


class Fixed:
    """The preference is the weights, in every batch: linear scalarisation, w(t) = w, scale 1.

    Its optima are the points where the front has a supporting hyperplane: the inside of a concave part is empty
    (Das and Dennis 1997, "A closer look at drawbacks of minimizing weighted sums of objectives"). No settings, no
    state; a weight 0 stays 0.

    >>> weighter = Fixed(np.array([0.7, 0.3]))
    >>> weighter.update(Observation(step=0, rewards=np.ones((4, 2)), learning_rate=1e-3)).weights
    array([0.7, 0.3])
    """

    needs: frozenset[str] = frozenset()
    validation_every: int = 0

    def __init__(self, preference: Float[np.ndarray, " m"]) -> None:
        self.preference = preference.copy()

    def update(self, seen: Observation) -> Weighting:
        """The preference, whatever was seen."""
        return Weighting(self.preference.copy())

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
