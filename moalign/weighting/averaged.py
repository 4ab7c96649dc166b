"""A weighter that remembers what it has answered."""

from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.weighting.base import Observation, RewardWeighter, Weighting


class Averaged:
    """Answers as another weighter does, and knows the mean of its weights since `restart`.

    The weights of a constrained problem swing about their optimum, as it climbs and recovers; their mean settles on the
    multipliers (the ergodic average of dual ascent), which are the weights that the point is the best for.

    >>> from moalign.weighting.fixed import Fixed
    >>> weighter = Averaged(Fixed(np.array([0.7, 0.3])))
    >>> _ = weighter.update(Observation(step=0, rewards=np.ones((4, 2)), learning_rate=1e-3))
    >>> weighter.mean.tolist()
    [0.7, 0.3]
    """

    def __init__(self, inner: RewardWeighter):
        self.inner = inner
        self.restart()

    def restart(self) -> None:
        """Forget what was answered so far."""
        self._sum: list[float] = []
        self._count = 0

    @property
    def answered(self) -> bool:
        """Whether it has been asked since `restart`: one whose training has stopped is not."""
        return self._count > 0

    @property
    def mean(self) -> Float[np.ndarray, " m"]:
        """The mean of all answers since `restart`; there must have been one."""
        return np.array(self._sum) / self._count

    @property
    def needs(self) -> frozenset[str]:
        """What the other one needs."""
        return self.inner.needs

    @property
    def validation_every(self) -> int:
        """As often as the other one."""
        return self.inner.validation_every

    def update(self, seen: Observation) -> Weighting:
        """The other one's answer."""
        found = self.inner.update(seen)
        self._sum = (found.weights + (np.array(self._sum) if self._sum else 0.0)).tolist()
        self._count += 1
        return found

    def state_dict(self) -> dict[str, Any]:
        """That of the other one, and the sum so far."""
        return {"inner": self.inner.state_dict(), "sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.inner.load_state_dict(state["inner"])
        self._sum, self._count = list(state["sum"]), int(state["count"])
