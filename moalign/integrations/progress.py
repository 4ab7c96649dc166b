"""How far the objectives have come since training began, from means that may not be known in every batch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float


def known_means(rewards: Float[np.ndarray, "b m"]) -> Float[np.ndarray, " m"]:
    """The mean of each column over its finite values; NaN where it has none.

    >>> known_means(np.array([[1.0, np.nan, np.inf], [2.0, np.nan, 5.0]]))
    array([1.5, nan, 5. ])
    """
    known = np.isfinite(rewards)
    count = known.sum(axis=0)
    total = np.where(known, rewards, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(rewards.shape[1], np.nan), where=count > 0)


@dataclass
class Progress:
    """How far the mean of each objective has come since training began: (now - start) / deviation.

    `deviation` is that of the first batch in which the objective applies, 1 if its rewards do not differ there. All
    three are NaN until they are known, and an objective is at 0 until all are.

    >>> progress = Progress.none(2)
    >>> progress.measure(np.array([[0.0, np.nan], [4.0, np.nan]]))
    >>> for mean in (2.0, 3.0, 4.0):
    ...     progress.add(np.array([mean, np.nan]), 2)
    >>> progress.values()  # the running mean goes 2, (2 + 3) / 2, (2.5 + 4) / 2
    array([0.625, 0.   ])
    """

    start: Float[np.ndarray, " m"]
    now: Float[np.ndarray, " m"]
    deviation: Float[np.ndarray, " m"]
    count: Float[np.ndarray, " m"]

    @classmethod
    def none(cls, objectives: int) -> "Progress":
        """Nothing is known."""
        unknown = np.full(objectives, np.nan)
        return cls(unknown, unknown.copy(), unknown.copy(), np.zeros(objectives))

    def measure(self, rewards: Float[np.ndarray, "b m"]) -> None:
        """Take the deviation of each objective that has none yet."""
        for k, column in enumerate(rewards.T):
            known = column[np.isfinite(column)]
            if np.isnan(self.deviation[k]) and len(known):
                self.deviation[k] = known.std() if np.ptp(known) > 0 else 1.0

    def add(self, means: Float[np.ndarray, " m"], memory: int) -> None:
        """Move the running means towards these: the plain mean of the first `memory`, then by 1 / memory."""
        for k in np.flatnonzero(~np.isnan(means)):
            self.count[k] += 1
            if self.count[k] == 1:
                self.start[k] = self.now[k] = means[k]
            self.now[k] += (means[k] - self.now[k]) / min(self.count[k], memory)

    def values(self) -> Float[np.ndarray, " m"]:
        """The progress of each objective."""
        return np.nan_to_num((self.now - self.start) / self.deviation)

    def state_dict(self) -> dict[str, list[float | None]]:
        """In JSON's types, which have no NaN."""
        lists = {name: values.tolist() for name, values in asdict(self).items()}
        return {name: [None if np.isnan(value) else value for value in values] for name, values in lists.items()}

    @classmethod
    def of(cls, state: Mapping[str, Sequence[float | None]]) -> "Progress":
        """What `state_dict` was taken from."""
        return cls(**{name: np.array(values, dtype=float) for name, values in state.items()})
