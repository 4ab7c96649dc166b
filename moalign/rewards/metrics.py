"""How well rewards agree with labels that they were not fitted to.

[Spearman]  Spearman, "The proof and measurement of association between two things" (1904), with mean ranks for ties.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

_ENOUGH = 20  # pairs of one prompt; a data set in which a prompt or two happens to come twice has fewer


class PairAccuracy(NamedTuple):
    """The share of pairs that are ordered rightly, how many pairs that is of, and whether each is of one prompt."""

    share: float
    pairs: int
    same_prompt: bool


def agreement(
    rewards: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"], prompts: Int[np.ndarray, " n"]
) -> dict[str, Any] | None:
    """All that is said of one head, on the rows that have its label; None where none has.

    What is not defined is None too: a record is JSON, which has no NaN.

    >>> found = agreement(np.array([1.0, 2.0]), np.array([1.0, np.nan]), np.array([0, 1]))
    >>> found["rows"], found["r2"], found["pairs"]
    (1, None, 0)
    """
    known = ~np.isnan(labels)
    if not known.any():
        return None
    rewards, labels = rewards[known], labels[known]
    pairs = pair_accuracy(rewards, labels, prompts[known])
    numbers = {
        "r2": r_squared(rewards, labels),
        "rank_correlation": rank_correlation(rewards, labels),
        "pairwise_accuracy": pairs.share,
    }
    found = {name: None if math.isnan(number) else number for name, number in numbers.items()}
    return {"rows": int(known.sum()), **found, "pairs": pairs.pairs, "same_prompt": pairs.same_prompt}


def r_squared(rewards: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"]) -> float:
    """The share of the labels' variance that the rewards explain: R2 = 1 - sum (r~ - r)^2 / sum (r - mean r)^2.

    1 is perfect, 0 as good as the mean of these labels, below 0 worse than that. Labels that are all alike: NaN.

    >>> r_squared(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    0.5
    """
    spread = ((labels - labels.mean()) ** 2).sum() if len(labels) else 0.0
    return float(1 - ((rewards - labels) ** 2).sum() / spread) if spread > 0 else float("nan")


def rank_correlation(rewards: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"]) -> float:
    """The correlation of the ranks, ties at their mean rank, from -1 to 1  [Spearman].

    Where either side is all alike, or there are fewer than two rows, there is no order: NaN.

    >>> rank_correlation(np.array([1.0, 8.0, 9.0]), np.array([1.0, 2.0, 2.0])).__round__(6)
    0.866025
    """
    if len(labels) < 2 or np.ptp(rewards) == 0 or np.ptp(labels) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(rewards), rankdata(labels))[0, 1])


def pair_accuracy(
    rewards: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"], prompts: Int[np.ndarray, " n"]
) -> PairAccuracy:
    """Of two responses, how often has the one with the higher label the higher reward?

    Over the pairs of one prompt whose labels differ, where there are at least 20; otherwise over all pairs whose labels
    differ, of one prompt or not. A tie of rewards counts one half. No such pair: NaN. `prompts` numbers the prompts.

    >>> pair_accuracy(np.array([1.0, 2.0, 0.0]), np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1]))
    PairAccuracy(share=0.3333333333333333, pairs=3, same_prompt=False)
    """
    order = np.argsort(prompts, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(prompts[order])) + 1)
    won, pairs = _counted(rewards, labels, parts)
    same = pairs >= _ENOUGH
    if not same:
        won, pairs = _counted(rewards, labels, [order])
    return PairAccuracy(won / pairs if pairs else float("nan"), pairs, same)


def _counted(
    rewards: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"], parts: Sequence[np.ndarray]
) -> tuple[float, int]:
    """Pairs within the parts, won and all; row by row, since the pairs of many rows together fill the memory."""
    won, pairs = 0.0, 0
    for rows in parts:
        for row in rows:
            below = rewards[rows[labels[rows] < labels[row]]]
            won += float((below < rewards[row]).sum() + 0.5 * (below == rewards[row]).sum())
            pairs += len(below)
    return won, pairs
