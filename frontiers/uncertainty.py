"""How sure a mean is when the prompts, and not the answers, are the sample.

Two answers to one prompt resemble each other, so they carry less news than answers to two prompts. The prompts are
drawn independently; everything here treats the answers to one prompt as one draw, a cluster.

[Miller] "Adding error bars to evals", arXiv 2411.00640, section on clustered standard errors.
[Efron]  Efron and Tibshirani, "An introduction to the bootstrap" (1993), the percentile interval.
"""

import numpy as np
from jaxtyping import Float, Shaped


def clustered_mean(
    scores: Float[np.ndarray, "n m"], cluster: Shaped[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The mean of all scores, and its standard error over clusters.

    mean = 1/n sum_i s_i
    SE^2 = G / (G - 1) * 1/n^2 * sum over the G clusters of (sum over i in the cluster of (s_i - mean))^2  [Miller]

    in the objectives' units. G / (G - 1) is ours, not Miller's: with equally many answers per prompt it makes SE
    the standard deviation of the prompts' means over sqrt(G), and with one answer per prompt the usual
    standard error.

    `cluster` holds one label per score, of any kind that sorts. With one cluster the standard error is unknown:
    NaN. No scores: both NaN. A NaN among an objective's scores makes that objective's mean and error NaN.

    >>> mean, error = clustered_mean(np.array([[1.0], [1.0], [3.0], [3.0]]), np.array(["a", "a", "b", "b"]))
    >>> mean.tolist(), error.tolist()
    ([2.0], [1.0])
    """
    n, m = scores.shape
    if n == 0:
        return np.full(m, np.nan), np.full(m, np.nan)
    sums, sizes = _cluster_sums(scores, cluster)
    mean = sums.sum(axis=0) / n
    if len(sizes) == 1:
        return mean, np.full(m, np.nan)
    residuals = sums - sizes[:, None] * mean
    correction = len(sizes) / (len(sizes) - 1)
    return mean, np.sqrt(correction * (residuals**2).sum(axis=0)) / n


def bootstrap_interval(
    scores: Float[np.ndarray, "n m"],
    cluster: Shaped[np.ndarray, " n"],
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 1000,
) -> Float[np.ndarray, "m 2"]:
    """The interval in which the mean falls in `level` of the worlds made by drawing the prompts again.

    Draw as many clusters as there are, with replacement, and take the mean of all their scores; do it
    `resamples` times; the ends are the (1 - level)/2 and (1 + level)/2 quantiles  [Efron]. Rows are
    objectives, columns (low, high), in the objectives' units. The objectives share their draws.

    With one cluster every draw is the same, and both ends are the mean. No scores: NaN. A NaN among an
    objective's scores makes its interval NaN.

    >>> rng = np.random.default_rng(0)
    >>> bootstrap_interval(np.array([[1.0], [3.0]]), np.array(["a", "b"]), rng).tolist()
    [[1.0, 3.0]]
    """
    if len(scores) == 0:
        return np.full((scores.shape[1], 2), np.nan)
    sums, sizes = _cluster_sums(scores, cluster)
    count = len(sizes)
    means = np.empty((resamples, scores.shape[1]))
    for row in means:
        # How often each cluster was drawn is all that a mean needs, and takes no copy of the scores.
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        row[:] = drawn @ sums / (drawn @ sizes)
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).T


def _cluster_sums(
    scores: Float[np.ndarray, "n m"], cluster: Shaped[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "c m"], Float[np.ndarray, " c"]]:
    """The sum of the scores in each cluster, and how many there are."""
    labels, index = np.unique(cluster, return_inverse=True)
    sums = np.zeros((len(labels), scores.shape[1]))
    np.add.at(sums, index, scores)
    return sums, np.bincount(index, minlength=len(labels)).astype(float)
