"""Is one front better than another, or is it the draw?

[Efron]   Efron and Tibshirani, "An introduction to the bootstrap" (1993).
[Phipson] Phipson and Smyth, "Permutation p-values should never be zero: calculating exact p-values when permutations
          are randomly drawn" (2010).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float

from moalign.errors import DataError
from moalign.frontiers.hypervolume import hypervolume

ENOUGH = 10_000  # permutations: all of them up to so many, else so many drawn


@dataclass(frozen=True)
class Comparison:
    """How much more hypervolume the first front has than the second, in the product of the objectives' units.

    `low` and `high` are the ends of the 95 % interval of the difference, `p` the two-sided probability of one at least
    as large if there were none.

    >>> Comparison(0.5, 0.1, 0.9, 0.02).significant
    True
    """

    difference: float
    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether p is below 5 %."""
        return self.p < 0.05


def compare_draws(
    first: Float[np.ndarray, "b n m"], second: Float[np.ndarray, "c q m"], reference_point: Float[np.ndarray, " m"]
) -> Comparison:
    """Is front A better than front B on the same prompts? Draw i of the one is paired with draw i of the other.

    d_i = HV(first_i, z) - HV(second_i, z); the difference is their mean, the interval their 2.5 % and 97.5 % quantiles,
    and p = 2 min(#{d <= 0} + 1, #{d >= 0} + 1) / (b + 1), at most 1  [Efron; Phipson]. The draws are those of
    `resampled_fronts`, with the same prompts drawn for both; what varies is the prompts, not the training.

    A front's hypervolume grows a little with the noise of its points, and a front of more points is favoured by it:
    compare fronts of like numbers. Raises DataError unless both have the same number of draws, at least one.

    >>> first = np.array([[[2.0, 1.0]], [[2.0, 2.0]], [[3.0, 1.0]]])
    >>> round(compare_draws(first, first - 0.5, np.zeros(2)).difference, 3)
    1.583
    """
    if len(first) != len(second) or len(first) == 0:
        raise DataError(
            f"{len(first)} draws of the first front and {len(second)} of the second; expected as many of both, at "
            "least one, made with the same draws of the prompts"
        )
    differences = _volumes(first, reference_point) - _volumes(second, reference_point)
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min((differences <= 0).sum(), (differences >= 0).sum()) + 1
    return Comparison(
        float(differences.mean()), float(low), float(high), min(1.0, 2.0 * float(tail) / (len(differences) + 1))
    )


def compare_fronts(
    first: Sequence[Float[np.ndarray, "_ m"]],
    second: Sequence[Float[np.ndarray, "_ m"]],
    reference_point: Float[np.ndarray, " m"],
    rng: np.random.Generator,
    resamples: int = 1000,
) -> Comparison:
    """Is method A better than method B over seeds? A permutation test of the fronts' hypervolumes, one front per seed.

    difference = mean HV of the first - mean HV of the second; p = the share of all ways to deal the fronts into two
    such groups whose difference is at least as large, either way. All C(a + b, a) ways up to 10 000 of them; beyond,
    10 000 drawn ones and (count + 1) / (10 000 + 1)  [Phipson]. The interval is that of the bootstrap over the
    fronts of each group  [Efron], 2.5 % to 97.5 %.

    3 fronts against 3 cannot give a p below 2 / 20 = 0.1, nor 4 against 4 one below 2 / 70 = 0.029. Raises DataError
    if either has no front.

    >>> rng, better, worse = np.random.default_rng(0), [np.array([[2.0, 2.0]])] * 4, [np.array([[1.0, 1.0]])] * 4
    >>> found = compare_fronts(better, worse, np.zeros(2), rng)
    >>> found.difference, round(found.p, 3)
    (3.0, 0.029)
    """
    if len(first) == 0 or len(second) == 0:
        raise DataError(f"{len(first)} fronts against {len(second)}; expected at least one of both")
    volumes = np.array([hypervolume(front, reference_point) for front in [*first, *second]])
    count = len(first)
    difference = float(volumes[:count].mean() - volumes[count:].mean())
    drawn = _bootstrap_means(volumes[:count], rng, resamples) - _bootstrap_means(volumes[count:], rng, resamples)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Comparison(difference, float(low), float(high), _permutation_p(volumes, count, rng))


def _volumes(draws: Float[np.ndarray, "b n m"], reference_point: Float[np.ndarray, " m"]) -> Float[np.ndarray, " b"]:
    return np.array([hypervolume(front, reference_point) for front in draws])


def _bootstrap_means(
    volumes: Float[np.ndarray, " s"], rng: np.random.Generator, resamples: int
) -> Float[np.ndarray, " b"]:
    return volumes[rng.integers(len(volumes), size=(resamples, len(volumes)))].mean(axis=1)


def _permutation_p(volumes: Float[np.ndarray, " s"], count: int, rng: np.random.Generator) -> float:
    """The share of the ways to choose the first group whose difference is as large as the one at hand, or larger."""
    exact = comb(len(volumes), count) <= ENOUGH
    if exact:
        groups = np.array(list(combinations(range(len(volumes)), count)))
    else:
        groups = rng.permuted(np.tile(np.arange(len(volumes)), (ENOUGH, 1)), axis=1)[:, :count]
    sums = volumes[groups].sum(axis=1)
    differences = np.abs(sums / count - (volumes.sum() - sums) / (len(volumes) - count))
    observed = abs(volumes[:count].mean() - volumes[count:].mean())
    extreme = int((differences >= observed - 1e-12 * np.abs(volumes).max()).sum())
    return extreme / len(groups) if exact else (extreme + 1) / (len(groups) + 1)
