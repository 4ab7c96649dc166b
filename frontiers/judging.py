"""Weights from picks: what somebody who chose between pairs of texts counts, and which pair says most about it.

[Bradley-Terry] "Rank analysis of incomplete block designs: I. The method of paired comparisons" (1952).
[BALD]          Houlsby, Huszar, Ghahramani and Lengyel, "Bayesian active learning for classification and preference
                learning" (2011), Eq. 2.
[SMC]           Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers" (2006).
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.special import entr, expit, log_ndtr, ndtri
from scipy.stats import qmc

from moalign.errors import DataError

DRAWS = 4096  # a power of two, as Sobol's points want it
SETTLED = 15.0  # degrees; a cosine of 0.95 is 18, and who stops when it looks good stops a little early
USUAL, DOUBT = 10.0, 1.2  # decisiveness before any pick: its median, and the deviation of its logarithm
HALF = 0.5  # of the draws must still count when the picks are let in a little further
MOVES, LAST = 5, 10  # steps of each draw, after each of those lettings-in and after the last
MOST = 60  # candidates of which pairs are made: 1,770 pairs
THINNED = 512  # draws that judge a pair
NOTHING = 1e-9  # bits


@dataclass(frozen=True, eq=False)
class Judgement:
    """What picks say about the weights w, which sum to 1, and about the decisiveness t of who picked.

    `draws` and `decisiveness` are equally likely pairs of them. `mean` is the mean of the weights, `interval` holds
    90 % of each. `spread`, in degrees, is the half-angle of the cone around the mean that holds 90 % of the draws.
    Make it with `judge`.
    """

    mean: Float[np.ndarray, " m"]
    interval: Float[np.ndarray, "m 2"]
    spread: float
    draws: Float[np.ndarray, "s m"]
    decisiveness: Float[np.ndarray, " s"]

    @property
    def settled(self) -> bool:
        """Whether more picks would change little: the cone is narrower than SETTLED."""
        return self.spread <= SETTLED


def judge(differences: Float[np.ndarray, "n m"], seed: int) -> Judgement:
    """The posterior of the weights after n picks, a row for each: scores of the winner minus those of the loser.

    P(a before b) = sigma(t w.(r_a - r_b))  [Bradley-Terry],   w ~ Dirichlet(1),   log t ~ N(log 10, 1.2^2)

    Rows are in units that make objectives alike, such as each one's range over the candidates; the weights are meant
    in the same units (`own_units` undoes it). Quasi-random draws of the prior are carried to the posterior by letting
    the picks in little by little, with resampling and Metropolis steps  [SMC]; the same seed gives the same draws.
    A tie is no row. Without rows it is the prior. An objective in which no pair differed keeps a wide interval, and
    picks that contradict each other make t small. Raises DataError for a number that is not finite, and without
    objectives.

    >>> found = judge(np.array([[1.0, -1.0]] * 4), seed=0)
    >>> bool(found.mean[0] > 0.7), found.settled
    (True, False)
    """
    n, m = differences.shape
    if m < 1 or not np.isfinite(differences).all():
        raise DataError(f"{n} picks over {m} objectives; expected at least one objective, and finite differences")
    rng = np.random.default_rng(seed)
    uniform = qmc.Sobol(m + 1, rng=rng).random(DRAWS)
    places = ndtri(np.clip(uniform, 1e-12, 1 - 1e-12))
    if m > 1 and n > 0:
        places = _carried(places, differences, rng)
    # Shuffled, so that a few of them are like all: every eighth of Sobol's points lie in one eighth of the space.
    draws, decisiveness = _meant(rng.permutation(places))
    mean = draws.mean(axis=0)
    cosines = draws @ mean / (np.linalg.norm(draws, axis=1) * np.linalg.norm(mean))
    spread = float(np.degrees(np.arccos(np.clip(np.quantile(cosines, 0.1), -1.0, 1.0))))
    return Judgement(mean, np.quantile(draws, [0.05, 0.95], axis=0).T, spread, draws, decisiveness)


def own_units(weights: Float[np.ndarray, " m"], scale: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Weights for scores in their own units, from weights that were learned on scores divided by `scale`.

    w.(r / s) ranks as (w / s).r does; the result is that, over its sum. Raises DataError unless the scale is above 0.

    >>> own_units(np.array([0.5, 0.5]), np.array([1.0, 3.0])).tolist()
    [0.75, 0.25]
    """
    if not (scale > 0).all():
        raise DataError(f"units of {scale.tolist()}; expected numbers above 0")
    shares = weights / scale
    return shares / shares.sum()


def information(differences: Float[np.ndarray, "q m"], judgement: Judgement) -> Float[np.ndarray, " q"]:
    """How many bits a pick between each of q pairs would say about weights and decisiveness, on average.

    I = H(E p) - E H(p),  p = sigma(t w.difference),  expectations over the draws  [BALD]

    0 for a pair that does not differ, and at most 1. Raises DataError for a number that is not finite.

    >>> information(np.array([[1.0, -1.0], [0.0, 0.0]]), judge(np.zeros((0, 2)), seed=0)).round(1).tolist()
    [0.7, 0.0]
    """
    if not np.isfinite(differences).all():
        raise DataError("a pair whose scores differ by no finite number; leave it out")
    chances = expit(differences @ (judgement.draws[:THINNED] * judgement.decisiveness[:THINNED, None]).T)
    return np.maximum(_entropy(chances.mean(axis=1)) - _entropy(chances).mean(axis=1), 0.0)


def next_pair(
    candidates: Float[np.ndarray, "c m"], judgement: Judgement, asked: Collection[tuple[int, int]] = ()
) -> tuple[int, int] | None:
    """The pair of candidates, first < second, whose pick says most; None where none is left that says anything.

    `candidates` are scores, in the units of the judgement's picks; pairs in `asked` count in either order. Of more
    than 60 candidates the pairs are made from 60 that lie far apart. Ties go to the first.

    >>> next_pair(np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), judge(np.zeros((0, 2)), seed=0))
    (0, 2)
    """
    done = {frozenset(pair) for pair in asked}
    pairs = [pair for pair in combinations(_far_apart(candidates), 2) if frozenset(pair) not in done]
    if not pairs:
        return None
    first, second = np.array(pairs).T
    bits = information(candidates[first] - candidates[second], judgement)
    best = int(bits.argmax())
    return pairs[best] if bits[best] > NOTHING else None


def _meant(places: Float[np.ndarray, "s d"]) -> tuple[Float[np.ndarray, "s m"], Float[np.ndarray, " s"]]:
    """Weights and decisiveness at places that are standard normal before any pick.

    Exponentials over their sum are Dirichlet(1), and -log Phi(-z) is exponential.
    """
    parts = -log_ndtr(-places[:, :-1])
    return parts / parts.sum(axis=1, keepdims=True), USUAL * np.exp(DOUBT * places[:, -1])


def _likelihood(places: Float[np.ndarray, "s d"], differences: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " s"]:
    weights, decisiveness = _meant(places)
    utility = (weights * decisiveness[:, None]) @ differences.T
    # log sigma without overflow at either end; scipy's is three times as slow.
    return (np.minimum(utility, 0.0) - np.log1p(np.exp(-np.abs(utility)))).sum(axis=1)


def _carried(
    places: Float[np.ndarray, "s d"], differences: Float[np.ndarray, "n m"], rng: np.random.Generator
) -> Float[np.ndarray, "s d"]:
    """From draws of the prior to draws of the posterior: prior x likelihood^share, the share going from 0 to 1."""
    share, found = 0.0, _likelihood(places, differences)
    while share < 1.0:
        step = _step(found, 1.0 - share)
        share = 1.0 if step >= 1.0 - share else share + step
        weights = np.exp(step * (found - found.max()))
        chosen = _resampled(weights / weights.sum(), rng)
        places, found = _moved(places[chosen], found[chosen], differences, share, rng)
    return places


def _step(found: Float[np.ndarray, " s"], most: float) -> float:
    """The largest step of the share, at most `most`, after which half of the draws still count (Kish's size)."""

    def counts(step: float) -> float:
        weights = np.exp(step * (found - found.max()))
        return weights.sum() ** 2 / (weights**2).sum() / len(found)

    if counts(most) >= HALF:
        return most
    low, high = 0.0, most
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle) >= HALF else (low, middle)
    return low


def _resampled(weights: Float[np.ndarray, " s"], rng: np.random.Generator) -> np.ndarray:
    """Systematic resampling: each draw as often as its weight says, to within one."""
    ticks = (np.arange(len(weights)) + rng.random()) / len(weights)
    return np.minimum(np.searchsorted(np.cumsum(weights), ticks), len(weights) - 1)


def _moved(
    places: Float[np.ndarray, "s d"],
    found: Float[np.ndarray, " s"],
    differences: Float[np.ndarray, "n m"],
    share: float,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "s d"], Float[np.ndarray, " s"]]:
    """Metropolis steps of every draw, shaped by the covariance of all of them; they keep prior x likelihood^share."""
    s, d = places.shape
    shape = np.linalg.cholesky(np.cov(places.T) + 1e-9 * np.eye(d))
    length = 2.38 / np.sqrt(d)
    for _ in range(LAST if share == 1.0 else MOVES):
        proposed = places + length * rng.standard_normal((s, d)) @ shape.T
        there = _likelihood(proposed, differences)
        prior = ((places**2).sum(axis=1) - (proposed**2).sum(axis=1)) / 2
        accepted = np.log(rng.random(s)) < prior + share * (there - found)
        places = np.where(accepted[:, None], proposed, places)
        found = np.where(accepted, there, found)
        length *= np.exp(accepted.mean() - 0.25)
    return places, found


def _entropy(chance: np.ndarray) -> np.ndarray:
    """Of a coin, in bits."""
    return (entr(chance) + entr(1 - chance)) / np.log(2)


def _far_apart(candidates: Float[np.ndarray, "c m"]) -> list[int]:
    """All candidates, or MOST of them: from the first on, always the one that is furthest from those taken."""
    if len(candidates) <= MOST:
        return list(range(len(candidates)))
    taken, distance = [0], np.full(len(candidates), np.inf)
    while len(taken) < MOST:
        distance = np.minimum(distance, np.linalg.norm(candidates - candidates[taken[-1]], axis=1))
        taken.append(int(distance.argmax()))
    return sorted(taken)
