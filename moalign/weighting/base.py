"""What a weighter sees, what it answers, and the Protocol of one."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Observation:
    """What the trainer knows of one preference after a batch of rollouts, and before it learns from them.

    `rewards[i, k]` is objective k of sequence i, in the objective's own units. `gram[i, j]` is the inner product of
    the policy gradients of objectives i and j on this batch, over the adapter's parameters alone; `validation` the
    mean objectives of the policy on the validation prompts, in standard deviations of the initial policy's scores
    above their mean, so that 0 is where training began; `attained` is the same mean in the objectives' own units. Each
    is None where it was not measured at this step.

    >>> Observation(step=0, rewards=np.zeros((4, 2)), learning_rate=1e-3).validation is None
    True
    """

    step: int
    rewards: Float[np.ndarray, "b m"]
    learning_rate: float
    gram: Float[np.ndarray, "m m"] | None = None
    validation: Float[np.ndarray, " m"] | None = None
    attained: Float[np.ndarray, " m"] | None = None


@dataclass(frozen=True)
class Weighting:
    """The weights of a batch's objectives, >= 0 and of sum 1, and a positive number that its advantages are times.

    The scale is applied AFTER the advantages are normalised. Applied to the rewards it would be divided out again by
    every estimator that divides by their standard deviation, and do nothing.

    >>> Weighting(np.array([0.7, 0.3])).scale
    1.0
    """

    weights: Float[np.ndarray, " m"]
    scale: float = 1.0


@runtime_checkable  # the tests check annotations at run time
class RewardWeighter(Protocol):
    """Chooses the weights of the objectives, batch by batch, for one preference.

    It is made as ``Class(preference, **settings)``, where the preference is one weight >= 0 per objective, of sum 1.
    `moalign.testing.check_weighter` asserts what is relied on.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Which costly fields of an observation it reads: "gram", measured every step, and "validation"."""
        ...

    @property
    def validation_every(self) -> int:
        """At every how many steps to measure `validation` and `attained`, beginning with the first; 0 for never."""
        ...

    def update(self, seen: Observation) -> Weighting:
        """Called once per batch of rollouts, before the batch is learnt from; the answer is applied to that batch.

        `seen.validation` and `seen.attained` are of the policy before this batch, and None in the steps between two
        validations.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on, beside the settings, in JSON's types."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from where `state_dict` was taken; the settings are those of construction."""
        ...
