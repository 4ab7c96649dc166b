"""A front that is known: the best any policy can do where the answers to each prompt can be enumerated.

Over a finite set of answers the optimum of E[w.r] - beta KL(pi || pi_ref) has a closed form, the tilt

    pi*_w(a|x) = pi_ref(a|x) exp(w.r(x,a) / beta) / Z(x)

so a trained adapter can be measured against the exact front, not against another method. All divergences are in
nats per sequence; beta is in the unit of w.r; beta = inf is the reference itself, and beta = 0 the limit of
ever weaker regularisation: the reference restricted to the best answers.

[Korbak] "RL with KL penalties is better viewed as Bayesian inference", arXiv 2205.11275.
[Yang]   "Asymptotics of language model alignment", arXiv 2404.01730.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import logsumexp

from moalign.errors import DataError

SMALLEST_KL = 1e-12  # below it, rounding in the sums over answers hides the difference from the reference


@dataclass(frozen=True, eq=False)
class Answers:
    """The a answers to one prompt: log pi_ref of each, and its scores by objective.

    `log_reference` need not be normalised: every function here divides by the sum over the enumerated answers. An
    answer of probability 0 may be -inf and stays at 0. Raises DataError if there is no answer of positive
    probability, or a NaN or an infinite score.

    >>> Answers(np.log([0.5, 0.3, 0.2]), np.array([[0.0], [1.0], [2.0]])).scores.shape
    (3, 1)
    """

    log_reference: Float[np.ndarray, " a"]
    scores: Float[np.ndarray, "a m"]

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or len(self.scores) != len(self.log_reference):
            raise DataError(
                f"{len(self.log_reference)} reference log-probabilities with scores of shape {self.scores.shape}; "
                "expected one row of scores per answer"
            )
        if not np.isfinite(self.scores).all():
            raise DataError("an answer has a score that is NaN or infinite; expected finite scores")
        if not (self.log_reference < np.inf).all() or not np.isfinite(self.log_reference).any():
            raise DataError(
                "expected reference log-probabilities that are numbers or -inf, at least one of them a number"
            )


@dataclass(frozen=True, eq=False)
class _Flat:
    """The answers to all prompts in one row of arrays; `starts` and `sizes` say where each prompt's lie."""

    log_reference: Float[np.ndarray, " a"]
    scores: Float[np.ndarray, "a m"]
    starts: Int[np.ndarray, " p"]
    sizes: Int[np.ndarray, " p"]


@dataclass(frozen=True, eq=False)
class _Tilted:
    probabilities: Float[np.ndarray, " a"]
    kl: Float[np.ndarray, " p"]
    log_partition: Float[np.ndarray, " p"]  # of exp((w.r - the best w.r) / beta), which cannot overflow
    best: Float[np.ndarray, " p"]


def tilt(answers: Answers, weights: Float[np.ndarray, " m"], beta: float) -> Float[np.ndarray, " a"]:
    """The probabilities of the KL-optimal policy: pi_ref(a) exp(w.r(a) / beta) / Z  [Korbak], [Yang].

    No overflow at any beta; answers of equal utility keep their proportions under the reference. Raises DataError
    if beta is negative or NaN.

    >>> answers = Answers(np.log([0.5, 0.3, 0.2]), np.array([[0.0], [1.0], [2.0]]))
    >>> tilt(answers, np.ones(1), beta=0.5).round(5).tolist()
    [0.03667, 0.16256, 0.80077]
    """
    flat = _flatten([answers])
    return _tilt(flat, flat.scores @ weights, beta).probabilities


def log_partition(answers: Answers, weights: Float[np.ndarray, " m"], beta: float) -> float:
    """log Z = log sum_a pi_ref(a) exp(w.r(a) / beta), in nats.

    With it the value of any policy splits into what can be had and what it misses  [Korbak]:
    E_pi[w.r] - beta KL(pi || pi_ref) = beta log Z - beta KL(pi || pi*_w). It is 0 at beta = inf. Raises
    DataError unless beta is above 0.

    >>> answers = Answers(np.log([0.5, 0.5]), np.array([[0.0], [1.0]]))
    >>> round(log_partition(answers, np.array([np.log(3.0)]), beta=1.0), 12) == round(float(np.log(2.0)), 12)
    True
    """
    if beta == 0:
        raise DataError("beta is 0, where log Z has no value; expected beta > 0")
    flat = _flatten([answers])
    tilted = _tilt(flat, flat.scores @ weights, beta)
    return float(tilted.best[0] / beta + tilted.log_partition[0])


def attained(
    world: Sequence[Answers], weights: Float[np.ndarray, " m"], beta: float
) -> tuple[Float[np.ndarray, " m"], float]:
    """What the KL-optimal policy attains: the mean over prompts of E[r], and of KL(pi*_w || pi_ref).

    Values are in the objectives' units, the divergence in nats per sequence; every prompt counts the same.
    Raises DataError for a world without prompts, or one whose prompts differ in their objectives.

    >>> world = [Answers(np.log([0.5, 0.3, 0.2]), np.array([[0.0], [1.0], [2.0]]))]
    >>> values, kl = attained(world, np.ones(1), beta=0.5)
    >>> values.round(4).tolist(), round(kl, 4)
    ([1.7641], 0.9155)
    """
    return _attained(_flatten(world), weights, beta)


def matched_beta(world: Sequence[Answers], weights: Float[np.ndarray, " m"], kl: float) -> float:
    """The beta' at which the KL-optimal policy has the given mean KL to the reference.

    An adapter trained at beta may end at another KL than pi*_w does; the fair yardstick for it is the best policy of
    the *same* KL. That is the tilt with ONE beta' for all prompts: maximising mean_x E[w.r] subject to
    mean_x KL(pi_x || ref_x) <= kl has the Lagrangian

        mean_x ( E_{pi_x}[w.r] - beta' KL(pi_x || ref_x) ) + beta' kl

    which separates into one problem per prompt, all with the same multiplier beta', each solved by the tilt  [Yang].
    Equalising the KL prompt by prompt would spend nats where they buy little. The mean KL falls as beta' grows, so
    the root is unique; it is found in log beta'.

    kl <= 0 (or below 1e-12, which rounding hides) gives inf: the reference. A kl that even the best answers alone
    do not cost, so also any when all answers are equally good, gives 0: its policy attains less KL, and the
    highest w.r there is. Raises DataError if kl is NaN.

    >>> world = [Answers(np.log([0.5, 0.3, 0.2]), np.array([[0.0], [1.0], [2.0]]))]
    >>> _, kl = attained(world, np.ones(1), beta=0.5)
    >>> round(matched_beta(world, np.ones(1), kl), 9)
    0.5
    """
    return _matched_beta(_flatten(world), weights, kl)


def oracle_front(
    world: Sequence[Answers], weights: Float[np.ndarray, "n m"], beta: float
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, " n"]]:
    """The exact front at one beta: `attained` for each row of weights, as values and KLs.

    >>> world = [Answers(np.log([0.5, 0.5]), np.array([[0.0, 1.0], [1.0, 0.0]]))]
    >>> values, kls = oracle_front(world, np.eye(2), beta=1.0)
    >>> values.round(3).tolist()
    [[0.731, 0.269], [0.269, 0.731]]
    """
    flat = _flatten(world)
    points = [_attained(flat, row, beta) for row in weights]
    values = np.array([values for values, _ in points]).reshape(-1, flat.scores.shape[1])
    return values, np.array([kl for _, kl in points], dtype=float)


def matched_front(
    world: Sequence[Answers], weights: Float[np.ndarray, "n m"], kls: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n m"]:
    """The exact front at the KLs of measured points: per row, the tilt along its weights whose mean KL is kls[i].

    No policy of that KL has a higher w.r (see `matched_beta`): a point that does was measured wrongly.

    >>> world = [Answers(np.log([0.5, 0.5]), np.array([[0.0, 1.0], [1.0, 0.0]]))]
    >>> matched_front(world, np.eye(2), np.array([0.0, 9.0])).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    flat = _flatten(world)
    rows = zip(weights, kls, strict=True)
    values = [_attained(flat, row, _matched_beta(flat, row, float(kl)))[0] for row, kl in rows]
    return np.array(values).reshape(-1, flat.scores.shape[1])


def _flatten(world: Sequence[Answers]) -> _Flat:
    if not world:
        raise DataError("the world has no prompts; expected the answers to at least one")
    if len({answers.scores.shape[1] for answers in world}) > 1:
        raise DataError("the prompts of the world differ in their number of objectives")
    sizes = np.array([len(answers.log_reference) for answers in world])
    log_reference = [answers.log_reference - logsumexp(answers.log_reference) for answers in world]
    return _Flat(
        np.concatenate(log_reference).astype(np.float64),
        np.concatenate([answers.scores for answers in world]).astype(np.float64),
        np.cumsum(sizes) - sizes,
        sizes,
    )


def _tilt(flat: _Flat, utilities: Float[np.ndarray, " a"], beta: float) -> _Tilted:
    """The tilt of every prompt at once, about each prompt's best answer so that no exponent is above 0."""
    if not beta >= 0:
        raise DataError(f"beta is {beta}; expected a number >= 0")
    possible = np.where(np.isfinite(flat.log_reference), utilities, -np.inf)
    best = np.maximum.reduceat(possible, flat.starts)
    # The minimum is for impossible answers, which may be better than the best possible one.
    gaps = np.minimum(utilities - np.repeat(best, flat.sizes), 0.0)
    with np.errstate(over="ignore"):  # a tiny beta sends a gap to -inf, which is its limit
        exponents = np.where(gaps < 0, -np.inf, 0.0) if beta == 0 else gaps / beta
    logits = flat.log_reference + exponents
    highest = np.maximum.reduceat(logits, flat.starts)
    masses = np.exp(logits - np.repeat(highest, flat.sizes))
    totals = np.add.reduceat(masses, flat.starts)
    probabilities = masses / np.repeat(totals, flat.sizes)
    log_z = highest + np.log(totals)
    tilted = np.multiply(probabilities, exponents, out=np.zeros_like(masses), where=probabilities > 0)
    kl = np.maximum(np.add.reduceat(tilted, flat.starts) - log_z, 0.0)
    return _Tilted(probabilities, kl, log_z, best)


def _attained(flat: _Flat, weights: Float[np.ndarray, " m"], beta: float) -> tuple[Float[np.ndarray, " m"], float]:
    tilted = _tilt(flat, flat.scores @ weights, beta)
    return tilted.probabilities @ flat.scores / len(flat.sizes), float(tilted.kl.mean())


def _matched_beta(flat: _Flat, weights: Float[np.ndarray, " m"], kl: float) -> float:
    if math.isnan(kl):
        raise DataError("the KL to match is NaN; expected a number of nats")
    utilities = flat.scores @ weights

    def excess(log_beta: float) -> float:
        return float(_tilt(flat, utilities, math.exp(log_beta)).kl.mean()) - kl

    if kl < SMALLEST_KL:
        return math.inf
    if kl >= float(_tilt(flat, utilities, 0.0).kl.mean()):
        return 0.0
    low = high = math.log(np.ptp(utilities))
    while excess(high) > 0:
        high += 2.0
    while excess(low) < 0:
        low -= 2.0  # ends: below rounding of the smallest gap the tilt is the beta = 0 one, which has more KL
    return math.exp(brentq(excess, low, high, xtol=1e-13))  # pyright: ignore[reportArgumentType]
