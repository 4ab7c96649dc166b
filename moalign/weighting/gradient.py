"""Weights that move towards the objectives whose gradients agree with the sum of all.

Lu et al. 2025, "Learning to Optimize Multi-Objective Alignment Through Dynamic Reward Weighting" (arXiv 2509.11452),
the gradient-based variant. The K x K Gram matrix is all that it needs, so that the gradients, here those of the
adapter alone, never leave the trainer.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from moalign.errors import ConfigError
from moalign.weighting.base import Observation, Weighting

_NAME = "weighting 'gradient'"
_TINY = 1e-12  # a weight of 0 has no logarithm; from here mirror descent could lift it, but takes some 280 steps of 0.1


class Gradient:
    """Mirror descent on the weights by the influence of each objective on all of them.

        I_k = sum_j <g_k, g_j>,    log w <- log w + (eta / mu) I,    w <- softmax(log w)

    where g_k is the policy gradient of objective k alone on this batch, and eta the learning rate. Objectives that
    agree with the sum gain weight; one that fights the others, or is saturated, loses it. So this follows what all
    can improve, and forgets the preference, from which it only starts.

    Args:
        preference: where the weights start; a 0 starts at 1e-12.
        mu: the step is eta / mu per unit of influence. The authors' is 0.1 per step, from eta = 1e-6 and mu = 1e-5.
        accumulate: move every so many steps, by the mean influence since the last move.
        clip: the longest that a g_k may be (gradient's norm); None leaves them. It bounds |I| by m clip^2 and has no
            effect on cosines.
        include_self: whether the sum over j has the k itself, whose |g_k|^2 favours the largest gradient.
        influence: "dot" is the inner product of the paper, "cosine" divides it by both norms (a gradient of zero
            has cosine 0 with all, itself included).
        minimum: w = minimum + (1 - m minimum) softmax(log w), so that no objective is forgotten, exactly.

    Edge cases: the sign of all gradients together, or a zero Gram, changes nothing; a Gram with a NaN or an infinity
    is passed over. Raises ConfigError for a setting out of its range, ValueError for an observation without a Gram.

    >>> rows = np.array([[1.0, 0.0], [0.0, 2.0], [-0.5, 0.0]])
    >>> weighter = Gradient(np.full(3, 1 / 3), mu=1e-5, clip=None)
    >>> weighter.update(Observation(0, np.zeros((4, 3)), 1e-6, gram=rows @ rows.T)).weights.round(6)
    array([0.298792, 0.424006, 0.277202])
    """

    needs: frozenset[str] = frozenset({"gram"})
    validation_every: int = 0

    def __init__(
        self,
        preference: Float[np.ndarray, " m"],
        *,
        mu: float = 1e-2,
        accumulate: int = 1,
        clip: float | None = 1.0,
        include_self: bool = True,
        influence: Literal["dot", "cosine"] = "dot",
        minimum: float = 0.0,
    ) -> None:
        if not 0 < mu < np.inf:
            raise ConfigError(f"{_NAME}: mu is {mu:g}; expected a finite number > 0")
        if accumulate < 1:
            raise ConfigError(f"{_NAME}: accumulate is {accumulate}; expected a number of steps, at least 1")
        if clip is not None and not clip > 0:
            raise ConfigError(f"{_NAME}: clip is {clip:g}; expected a norm > 0, or null for none")
        if not 0 <= minimum * len(preference) < 1:
            raise ConfigError(
                f"{_NAME}: minimum is {minimum:g}; expected at least 0 and below 1 / {len(preference)}, "
                "the weight of each objective if all were equal"
            )
        self.mu, self.accumulate, self.clip = mu, accumulate, clip
        self.include_self, self.influence, self.minimum = include_self, influence, minimum
        # The inverse of the last line of `_weights`, so that the first weights are the preference, floor or not.
        free = (preference.astype(np.float64) - minimum) / (1 - len(preference) * minimum)
        self.log_weights = _log_softmax(np.log(np.maximum(free, _TINY)))
        self.pending = np.zeros(len(preference))
        self.waiting = 0  # how many influences are summed in `pending`
        self.last: Float[np.ndarray, " m"] | None = None

    def update(self, seen: Observation) -> Weighting:
        """The weights after this batch's gradients, which are then applied to the same batch; scale 1."""
        if seen.gram is None:
            raise ValueError(f"{_NAME} needs the Gram matrix of the objectives' gradients at every step; it got none")
        if np.isfinite(seen.gram).all():
            self.last = self._influence(seen.gram.astype(np.float64))
            self.pending = self.pending + self.last
            self.waiting += 1
        if self.waiting == self.accumulate:
            step = seen.learning_rate / self.mu * self.pending / self.waiting
            self.log_weights = _log_softmax(self.log_weights + step)
            self.pending, self.waiting = np.zeros_like(step), 0
        return Weighting(self._weights())

    def _influence(self, gram: Float[np.ndarray, "m m"]) -> Float[np.ndarray, " m"]:
        norms = np.sqrt(np.maximum(np.diagonal(gram), 0))
        if self.influence == "cosine":
            factors = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        elif self.clip is not None:
            factors = np.divide(self.clip, norms, out=np.ones_like(norms), where=norms > self.clip)
        else:
            factors = np.ones_like(norms)
        gram = gram * factors * factors[:, None]
        if not self.include_self:
            gram = gram - np.diag(np.diagonal(gram))
        return gram.sum(axis=1)

    def _weights(self) -> Float[np.ndarray, " m"]:
        free = np.exp(self.log_weights)
        return self.minimum + (1 - len(free) * self.minimum) * free / free.sum()

    def state_dict(self) -> dict[str, Any]:
        """The log-weights, what is accumulated towards the next move, and `influence`, the last one, for logs."""
        return {
            "log_weights": self.log_weights.tolist(),
            "pending": self.pending.tolist(),
            "waiting": self.waiting,
            "influence": None if self.last is None else self.last.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the log-weights and what is accumulated."""
        self.log_weights = np.array(state["log_weights"], dtype=np.float64)
        self.pending = np.array(state["pending"], dtype=np.float64)
        self.waiting = int(state["waiting"])
        self.last = None if state["influence"] is None else np.array(state["influence"], dtype=np.float64)


def _log_softmax(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    shifted = values - values.max()
    return shifted - np.log(np.exp(shifted).sum())
