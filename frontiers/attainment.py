"""How a front varies from one draw to the next: with another seed, or with other prompts.

[Grunert]  Grunert da Fonseca, Fonseca and Hall, "Inferential performance assessment of stochastic optimisers and the
           attainment function" (2001).
[Fonseca]  Fonseca, Guerreiro, Lopez-Ibanez and Paquete, "On the computation of the empirical attainment function"
           (2011): the algorithm, moocore's.
[Efron]    Efron and Tibshirani, "An introduction to the bootstrap" (1993).
"""

from collections.abc import Sequence
from math import ceil

import moocore
import numpy as np
from jaxtyping import Float, Shaped

from moalign.errors import ConfigError, DataError
from moalign.frontiers.dominance import non_dominated


def attainment_bands(
    fronts: Sequence[Float[np.ndarray, "_ m"]], levels: Sequence[float] = (0.05, 0.5, 0.95)
) -> list[Float[np.ndarray, "_ m"]]:
    """For each level, the best points that at least this share of the fronts attain.

    A front attains z when one of its points is >= z in every objective; the share of the fronts that do is the
    empirical attainment function  [Grunert], and the surface of level p bounds {z: share(z) >= p}. Returned are its
    corners, which no other dominates, in rising order of the first objective; everything below and left of one is
    attained. By moocore  [Fonseca]. So few fronts attain the surface of 0.05 that it lies outside: the band of 90 %
    goes from the surface of 0.95, inside, to that of 0.05.

    A level counts fronts upward: 0.5 of 5 are 3. With one front all surfaces are that front. Rows with a NaN are left
    out; a front without rows attains nothing, and a level that then nothing reaches has a surface of 0 rows. Raises
    DataError without fronts and with more than 3 objectives (take two or three of them), ConfigError for a level
    that is not in (0, 1].

    >>> fronts = [np.array([[1.0, 3.0], [3.0, 1.0]]), np.array([[2.0, 2.0]])]
    >>> [surface.tolist() for surface in attainment_bands(fronts, (0.5, 1.0))]
    [[[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]]
    """
    if len(fronts) == 0 or not 1 <= fronts[0].shape[1] <= 3:
        raise DataError(
            f"{len(fronts)} fronts of {fronts[0].shape[1] if len(fronts) else 'no'} objectives; expected at least one "
            "front, of 1 to 3: an attainment surface of more has too many corners, so take two or three of them"
        )
    if not all(0 < level <= 1 for level in levels):
        raise ConfigError(f"attainment levels {list(levels)}; expected shares of the fronts, above 0 and at most 1")
    known = [front[~np.isnan(front).any(axis=1)] for front in fronts]
    return [_surface(known, max(1, ceil(level * len(known) - 1e-9))) for level in levels]


def resampled_fronts(
    scores: Sequence[Float[np.ndarray, "_ m"]],
    cluster: Shaped[np.ndarray, " g"],
    rng: np.random.Generator,
    resamples: int = 200,
) -> Float[np.ndarray, "b n m"]:
    """The values that all points would have had with other prompts: one front per draw of the prompts.

    Draw as many clusters (prompts) as there are, with replacement, and take each point's mean over the answers to
    those drawn; the same draw for all points, since all answered the same prompts  [Efron]. `scores` has one array per
    point, whose rows belong to the prompts in `cluster`.

    Give two methods' points in one call, or the same seed in two, and their fronts are paired. With one prompt all
    draws are alike. A NaN among a point's scores makes that objective of it NaN in each draw that has it. Raises
    DataError without points, or if one does not have a row for each entry of `cluster`.

    >>> rng, cluster = np.random.default_rng(0), np.array(["a", "b"])
    >>> resampled_fronts([np.array([[1.0], [3.0]]), np.array([[2.0], [4.0]])], cluster, rng, 3).tolist()
    [[[2.0], [3.0]], [[2.0], [3.0]], [[3.0], [4.0]]]
    """
    lengths = sorted({len(one) for one in scores})
    if lengths != [len(cluster)] or len(cluster) == 0:
        raise DataError(
            f"{len(scores)} points with {', '.join(map(str, lengths)) or 'no'} scores each, for {len(cluster)} "
            "answers; expected at least one point, and one row for each answer: score all points on the same prompts"
        )
    labels, index = np.unique(cluster, return_inverse=True)
    stacked = np.stack(list(scores), axis=1)
    drawn = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=resamples)
    weights = drawn[:, index].astype(float)
    # A NaN counts where its prompt was drawn; a weight of 0 must not spread it.
    unknown = np.isnan(stacked)
    sums = np.tensordot(weights, np.where(unknown, 0.0, stacked), axes=1)
    touched = np.tensordot(weights, unknown.astype(float), axes=1) > 0
    return np.where(touched, np.nan, sums / weights.sum(axis=1)[:, None, None])


def _surface(fronts: list[Float[np.ndarray, "_ m"]], count: int) -> Float[np.ndarray, "q m"]:
    """The corners of what at least `count` of the fronts attain."""
    m = fronts[0].shape[1]
    filled = [front for front in fronts if len(front)]
    if count > len(filled):
        return np.zeros((0, m))
    if m == 1:
        best = sorted((float(front.max()) for front in filled), reverse=True)
        return np.array([[best[count - 1]]])
    owners = np.repeat(np.arange(len(filled)), [len(front) for front in filled])
    # moocore minimises, and names a level by the percentage of the sets that it is given.
    levels = moocore.eaf(-np.concatenate(filled), owners, percentiles=[100 * count / len(filled)])
    corners = np.unique(-levels[:, :m], axis=0)
    return corners[non_dominated(corners)] + 0.0
