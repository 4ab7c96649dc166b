"""Policy losses (lead's draft; helper A's version replaces it)."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

LENGTH = {"grpo": "mean", "rloo": "sum", "reinforce": "sum", "dr_grpo": "constant"}


def clipped_objective(
    logprobs: Float[Tensor, " n"],
    old: Float[Tensor, " n"],
    advantages: Float[Tensor, " s"],
    owner: Int[Tensor, " n"],
    clip: tuple[float, float],
) -> Float[Tensor, " n"]:
    """PPO."""
    ratio, advantage = (logprobs - old).exp(), advantages[owner]
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip[0], 1 + clip[1]) * advantage)


def kl_per_token(
    logprobs: Float[Tensor, " n"], reference: Float[Tensor, " n"], kind: Literal["k2", "k3"]
) -> Float[Tensor, " n"]:
    """k2, k3."""
    gap = logprobs - reference
    return gap**2 / 2 if kind == "k2" else torch.expm1(-gap) + gap


def kl_advantages(log_ratio: Float[Tensor, "p g"]) -> Float[Tensor, "p g"]:
    """k1."""
    g = log_ratio.shape[1]
    if g == 1:
        return -log_ratio
    return -(log_ratio - log_ratio.mean(1, keepdim=True)) * (g / (g - 1))


def per_sequence(
    values: Float[Tensor, " n"], owner: Int[Tensor, " n"], sequences: int, length: Literal["mean", "sum"] | float
) -> Float[Tensor, " s"]:
    """Per sequence."""
    total = values.new_zeros(sequences).index_add(0, owner, values)
    if length == "sum":
        return total
    if length == "mean":
        return total / torch.bincount(owner, minlength=sequences).clamp_min(1)
    return total / length
