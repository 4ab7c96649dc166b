"""Advantages of groups of completions under several objectives (lead's draft; helper A's version replaces it)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Estimator = Literal["grpo", "rloo", "reinforce", "dr_grpo"]
Aggregation = Literal["sum_then_normalize", "normalize_then_sum"]


@dataclass(frozen=True)
class Baseline:
    """Moments of past batches."""

    mean: Float[Tensor, " m"]
    deviation: Float[Tensor, " m"]


def advantage_parts(
    rewards: Float[Tensor, "p g m"],
    weights: Float[Tensor, " m"],
    estimator: Estimator,
    aggregation: Aggregation,
    baseline: Baseline | None = None,
) -> Float[Tensor, "p g m"]:
    """Parts in which the advantage is linear."""
    rewards, weights = rewards.double(), weights.double()
    p, g, _ = rewards.shape
    if estimator == "reinforce":
        n = p * g
        if baseline is None:
            total = rewards.sum((0, 1))
            centred = rewards - (total - rewards) / max(n - 1, 1)
            deviation = rewards.flatten(0, 1).std(0)
        else:
            centred, deviation = rewards - baseline.mean, baseline.deviation
        if aggregation == "normalize_then_sum":
            centred = torch.where(deviation > 0, centred / deviation, torch.zeros_like(centred))
        return centred
    if g < 2:
        raise ValueError("a group of one completion has no advantage")
    centred = rewards - rewards.mean(1, keepdim=True)
    if estimator == "rloo":
        centred = centred * (g / (g - 1))
    if aggregation == "normalize_then_sum":
        return _divided(centred, rewards)
    if estimator == "grpo":
        s = rewards @ weights
        return _divided(centred, s[..., None])
    return centred


def _divided(values: Tensor, by: Tensor) -> Tensor:
    spread = by.amax(1, keepdim=True) - by.amin(1, keepdim=True)
    flat = spread <= 1e-9 * by.abs().amax(1, keepdim=True)
    std = by.std(1, keepdim=True)
    return torch.where(flat, torch.zeros_like(values), values / std)


def combine(
    parts: Float[Tensor, "p g m"], weights: Float[Tensor, " m"], aggregation: Aggregation
) -> Float[Tensor, "p g"]:
    """The advantage."""
    total = parts @ weights.double()
    if aggregation == "sum_then_normalize":
        return total
    spread = whitening(parts, weights)
    return torch.where(spread > 0, (total - total.mean()) / spread, torch.zeros_like(total))


def whitening(parts: Float[Tensor, "p g m"], weights: Float[Tensor, " m"]) -> Tensor:
    """What combine divides by."""
    return (parts @ weights.double()).std()
