"""Pairs from scores: which of two responses an objective prefers, and how surely."""

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from moalign.batches import PreferencePairs, Prompt
from moalign.errors import DataError

Labels = Literal["observed", "bradley_terry"]


def pairs_from_scores(
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    scores: Float[np.ndarray, " n"],
    source: Sequence[str],
    rng: np.random.Generator,
    per_prompt: int,
    labels: Labels,
) -> PreferencePairs:
    """Up to `per_prompt` distinct pairs of each prompt's responses, the one with the higher score chosen.

    observed:       P(chosen wins) = 1; ties are no pairs
    bradley_terry:  P(chosen wins) = sigma(r_chosen - r_rejected); a tie is a pair with 0.5

    Source: Bradley & Terry 1952, as in DPO (arXiv:2305.18290) eq. 1; the probabilities are those a conservative DPO
    target takes. Pairs are drawn without replacement, all of them where there are no more. Responses without a score
    (NaN) and pairs of equal texts are left out. `source` of a pair reads "chosen's > rejected's". Raises
    DataError if no pair can be made, and says why.

    >>> rng = np.random.default_rng(0)
    >>> pairs = pairs_from_scores(["Hi", "Hi"], ["a", "b"], np.array([1.0, 3.0]), ["f:1", "f:2"], rng, 1, "observed")
    >>> pairs.chosen, pairs.rejected, pairs.probability, pairs.source
    (['b'], ['a'], array([1.]), ['f:2 > f:1'])
    """
    groups: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        if not np.isnan(scores[i]):
            groups.setdefault(json.dumps(prompt, sort_keys=True), []).append(i)
    drawn = [_draw(np.array(group), responses, scores, rng, per_prompt, labels) for group in groups.values()]
    first, second = np.concatenate([np.empty((2, 0), dtype=np.int64), *drawn], axis=1)
    if not len(first):
        raise DataError(_why_no_pair(scores, list(groups.values())))
    higher = np.where(scores[first] >= scores[second], first, second)
    better: list[int] = higher.tolist()
    worse: list[int] = (first + second - higher).tolist()
    return PreferencePairs(
        [prompts[i] for i in better],
        [responses[i] for i in better],
        [responses[i] for i in worse],
        _probability(scores[better] - scores[worse], labels),
        [f"{source[c]} > {source[r]}" for c, r in zip(better, worse, strict=True)],
    )


def relabel(
    pairs: PreferencePairs,
    scores_chosen: Float[np.ndarray, " n"],
    scores_rejected: Float[np.ndarray, " n"],
    labels: Labels,
) -> PreferencePairs:
    """The same two responses of each pair, ordered by another objective's scores, labelled as `pairs_from_scores` does.

    Where a score is NaN, or (observed) the two tie, the pair is left out. Order and source of the others stay. Raises
    DataError if none is left.

    >>> pair = PreferencePairs(["Hi"], ["a long answer"], ["short"], np.ones(1), ["f:1"])
    >>> relabel(pair, np.array([-3.0]), np.array([-1.0]), "observed").chosen
    ['short']
    """
    gap = scores_chosen - scores_rejected
    kept = np.flatnonzero(_usable(gap, labels)).tolist()
    if not kept:
        raise DataError(
            f"none of {len(pairs)} pairs can be relabelled: the two responses have the same score, or one has none; "
            "expected scores that tell some pair apart"
        )
    turned = [
        (pairs.rejected[i], pairs.chosen[i]) if gap[i] < 0 else (pairs.chosen[i], pairs.rejected[i]) for i in kept
    ]
    return PreferencePairs(
        [pairs.prompts[i] for i in kept],
        [chosen for chosen, _ in turned],
        [rejected for _, rejected in turned],
        _probability(np.abs(gap[kept]), labels),
        [pairs.source[i] for i in kept],
    )


def _draw(
    group: Int[np.ndarray, " g"],
    responses: Sequence[str],
    scores: Float[np.ndarray, " n"],
    rng: np.random.Generator,
    per_prompt: int,
    labels: Labels,
) -> Int[np.ndarray, "2 pairs"]:
    first, second = group[np.stack(np.triu_indices(len(group), k=1))]
    differ = np.array([responses[a] != responses[b] for a, b in zip(first, second, strict=True)], dtype=bool)
    usable = np.flatnonzero(differ & _usable(scores[first] - scores[second], labels))
    if len(usable) > per_prompt:
        usable = np.sort(rng.choice(usable, size=per_prompt, replace=False))
    return np.stack([first[usable], second[usable]])


def _usable(gap: Float[np.ndarray, " pairs"], labels: Labels) -> Bool[np.ndarray, " pairs"]:
    return ~np.isnan(gap) & ((gap != 0) | (labels == "bradley_terry"))


def _probability(gap: Float[np.ndarray, " pairs"], labels: Labels) -> Float[np.ndarray, " pairs"]:
    return expit(gap) if labels == "bradley_terry" else np.ones(len(gap))


def _why_no_pair(scores: Float[np.ndarray, " n"], groups: list[list[int]]) -> str:
    text = f"no pair can be made from {len(scores)} scored responses: "
    if not groups:
        return text + "none of them has this score"
    if max(map(len, groups)) < 2:
        return text + f"each of the {len(groups)} prompts has one response; expected two or more to one prompt"
    return text + "all responses to a prompt have the same score or the same text; expected scores that tell some apart"
