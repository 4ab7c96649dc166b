"""Advantages of groups of completions under several objectives: the four estimators, summed before or after scaling.

Bias: the expected gradient against grad E[s], s = w.r, each estimator under its own rule of policy.LENGTH.

- sum_then_normalize, reinforce and rloo: none. dr_grpo: exactly (g - 1)/g of it, over the length constant.
- sum_then_normalize, grpo: the division by std(s) re-weights prompts, and the mean over tokens sequences, by 1/length.
  For one prompt, s of two values and equal lengths (1 token) the direction is exact: c grad p, p = P(s is the larger),
  c = sqrt((g-1)/g) E[sqrt(N (g-N))] / (g p (1-p)), N ~ Binomial(g, p). That s spans 1 or 1000 makes no difference, and
  from g = 4 on rare successes count more. With more values even one prompt's direction is off (at g = 2 it climbs the
  chance to win against its own sample), and so it is with unequal lengths.
- normalize_then_sum: the same of each objective, so that roughly sum_k w_k E[r_k] / std(r_k) is what climbs; the
  batch's own deviation couples prompts and objectives further. No estimator is unbiased here; grpo, dr_grpo and rloo
  have the same advantages, and differ in LENGTH alone.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Estimator = Literal["grpo", "rloo", "reinforce", "dr_grpo"]
Aggregation = Literal["sum_then_normalize", "normalize_then_sum"]

_FLAT = 1e-9  # of the largest magnitude: a range below it is rounding, not variance
_STALE = 1e-7  # the same for running moments: E[r^2] - E[r]^2 knows a deviation only to the root of the rounding error


@dataclass(frozen=True)
class Baseline:
    """Mean and standard deviation of each objective over PAST batches, which REINFORCE subtracts and divides by.

    Moments that know the batch they are applied to would make REINFORCE biased.

    >>> Baseline(mean=torch.tensor([0.5, 2.0]), deviation=torch.tensor([0.1, 1.0])).mean.tolist()
    [0.5, 2.0]
    """

    mean: Float[Tensor, " m"]
    deviation: Float[Tensor, " m"]


def advantage_parts(
    rewards: Float[Tensor, "p g m"],
    weights: Float[Tensor, " m"],
    estimator: Estimator,
    aggregation: Aggregation,
    baseline: Baseline | None = None,
) -> Float[Tensor, "p g m"]:
    """What each objective adds to the advantages of g completions per prompt: A = combine(parts, weights, aggregation).

    With s = sum_k w_k r_k and mean, std (n - 1 in the denominator) over a prompt's group,

        centred    grpo, dr_grpo: r_k - mean(r_k)           rloo: r_k - mean(r_k of the others) = g/(g-1) (r_k - mean)
                   reinforce: r_k - baseline.mean_k         (None: less the mean of all other sequences of the batch)
        sum_then_normalize    grpo: centred / std(s)        the others: centred
        normalize_then_sum    reinforce: (r_k - mean_k) / deviation_k of the baseline (None: of the batch)
                              the others: centred / std(r_k)

    GRPO: Shao et al. 2024 (arXiv 2402.03300, Sec. 4.1.2). RLOO: Kool et al. 2019, Ahmadian et al. 2024 (2402.14740).
    REINFORCE: Williams 1992. Dr. GRPO: Liu et al. 2025 (2503.20783). Each objective first: MO-GRPO (2509.22047) and,
    with weights and whitening, GDPO (2601.05242). What is unbiased, and how far the rest is off: the head of this file.

    Rewards are in the objectives' own units; weights may be negative; the baseline is read by reinforce alone.
    Edge cases: no variance in a group (range up to 1e-9 of the largest magnitude, of the terms for s) gives 0, and is
    never divided by an epsilon. NaN or infinite: not finite for that group (reinforce: that sequence), whatever the
    weight; the others are as if it were absent. Without a baseline, one sequence alone is compared with 0, or gives 0
    under normalize_then_sum. A weight of 0 leaves the part as it is. ValueError: a group of one, but for reinforce.

    >>> two = torch.tensor([[[1.0, 0.0], [0.0, 4.0]]])
    >>> advantage_parts(two, torch.tensor([0.5, 0.5]), "rloo", "sum_then_normalize").tolist()
    [[[1.0, -4.0], [-1.0, 4.0]]]
    """
    rewards, weights = rewards.double(), weights.double()
    if estimator == "reinforce":
        return _beside_the_batch(rewards, aggregation) if baseline is None else _past(rewards, aggregation, baseline)
    g = rewards.shape[1]
    if g < 2:
        raise ValueError(
            f"{estimator} compares the completions of a prompt, and a group has {g}; expected 2 or more completions "
            "per prompt, or the estimator reinforce"
        )
    centred = rewards - rewards.mean(1, keepdim=True)
    if estimator == "rloo":
        centred = centred * (g / (g - 1))
    if aggregation == "normalize_then_sum":
        return centred / _deviation(rewards, rewards.abs())
    if estimator == "grpo":
        # The terms of s, and not s itself, say how large its rounding error is: they may cancel.
        return centred / _deviation((rewards @ weights)[..., None], (rewards.abs() @ weights.abs())[..., None])
    return centred


def combine(
    parts: Float[Tensor, "p g m"], weights: Float[Tensor, " m"], aggregation: Aggregation
) -> Float[Tensor, "p g"]:
    """The advantages of p prompts with g completions each, from the parts that `advantage_parts` gives.

        sum_then_normalize    A = sum_k w_k C_k
        normalize_then_sum    A = (a - mean(a)) / std(a) over all p g sequences, a = sum_k w_k C_k

    The second is GDPO (arXiv 2601.05242), over sequences as in TRL. Without a unit. A factor meant to act on the update
    (Dynamic Reward Weighting's r_pareto) must multiply this result: multiplying the rewards, as its authors' code does,
    changes nothing under grpo or normalize_then_sum.

    Edge cases: a batch without variance in a gives 0; sequences that are not finite stay so, and are left out of mean
    and std.

    >>> parts = torch.tensor([[[1.0, -4.0], [-1.0, 4.0]]])
    >>> combine(parts, torch.tensor([0.5, 0.5]), "sum_then_normalize").tolist()
    [[-1.5, 1.5]]
    """
    values = parts.double() @ weights.double()
    if aggregation == "sum_then_normalize":
        return values
    return (values - values[values.isfinite()].mean()) / whitening(parts, weights)


def whitening(parts: Float[Tensor, "p g m"], weights: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """The standard deviation over all sequences that `combine` divides by under normalize_then_sum.

        std(sum_k w_k C_k)    (n - 1 in the denominator; GDPO, arXiv 2601.05242)

    With G_k the gradient under the advantages C_k - mean(C_k), that of the combined advantages is sum_k w_k G_k over
    this number. The mean is 0 but for reinforce.

    Edge cases: infinity for a batch without variance or of one sequence, so that what is divided becomes 0; sequences
    that are not finite are left out.

    >>> whitening(torch.tensor([[[1.0], [3.0]], [[5.0], [3.0]]]), torch.tensor([3.0])).item()  # std(3, 9, 15, 9)
    4.898979485566356
    """
    parts, weights = parts.double(), weights.double()
    values, size = parts @ weights, parts.abs() @ weights.abs()
    known = values.isfinite()
    return _deviation(values[known][None, :, None], size[known][None, :, None])[0, 0, 0]


def _past(rewards: Float[Tensor, "p g m"], aggregation: Aggregation, baseline: Baseline) -> Float[Tensor, "p g m"]:
    """REINFORCE against moments of past batches."""
    centred = rewards - baseline.mean.double()
    if aggregation == "sum_then_normalize":
        return centred
    deviation = baseline.deviation.double()
    return centred / deviation.masked_fill(deviation <= _STALE * baseline.mean.double().abs(), torch.inf)


def _beside_the_batch(rewards: Float[Tensor, "p g m"], aggregation: Aggregation) -> Float[Tensor, "p g m"]:
    """REINFORCE of a first batch: only the batch itself is there to compare with."""
    known = rewards.isfinite().all(-1)  # a sequence that lacks one score is out for all, as it is in the update
    kept = rewards.where(known[..., None], 0.0)
    total, count = kept.sum((0, 1)), known.sum()
    if aggregation == "sum_then_normalize":
        return rewards - (total - kept) / (count - 1).clamp(min=1)
    batch = rewards[known][None]
    return (rewards - total / count.clamp(min=1)) / _deviation(batch, batch.abs())


def _deviation(values: Float[Tensor, "p g c"], size: Float[Tensor, "p g c"]) -> Float[Tensor, "p 1 c"]:
    """Sample standard deviation over dimension 1; infinity where the range is rounding error of terms of this size."""
    p, g, c = values.shape
    if g < 2 or p == 0:
        return values.new_full((p, 1, c), torch.inf)
    spread, largest = values.amax(1, True) - values.amin(1, True), size.amax(1, True)
    # An infinite reward makes both infinite; that is no lack of variance.
    return values.std(1, keepdim=True).masked_fill((spread <= _FLAT * largest) & largest.isfinite(), torch.inf)
