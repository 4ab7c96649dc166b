"""The clipped policy gradient and divergences from a reference, per token of sequences laid end to end."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moalign.losses.advantages import Estimator

# How each estimator's paper makes one number of a sequence's tokens; "constant" is the longest length allowed, which
# the caller knows and passes as a number. Only "sum" is the gradient of the sequence's own log-probability.
LENGTH: dict[Estimator, Literal["mean", "sum", "constant"]] = {
    "grpo": "mean",
    "rloo": "sum",
    "reinforce": "sum",
    "dr_grpo": "constant",
}


def clipped_objective(
    logprobs: Float[Tensor, " n"],
    old: Float[Tensor, " n"],
    advantages: Float[Tensor, " s"],
    owner: Int[Tensor, " n"],
    clip: tuple[float, float],
) -> Float[Tensor, " n"]:
    """The clipped surrogate of PPO (Schulman et al. 2017, arXiv 1707.06347, Eq. 7) as a loss, one value per token.

        L = -min(rho A, clamp(rho, 1 - low, 1 + high) A),    rho = exp(logprobs - old)

    At old = logprobs.detach() its gradient is -A grad log pi, whatever the clip. It is 0 where the policy has already
    gone the way that the advantage asks for, past the clip; the way back is never clipped.

    Args:
        logprobs: of each token under the policy, in nats; old: under the policy that drew it, a constant.
        advantages: one per sequence; `owner` is the sequence of each token.
        clip: (low, high), both at least 0; low >= 1 does not clip from below.

    Edge cases: an advantage of 0 has no gradient. NaN in an advantage reaches the tokens of that sequence alone.
    No tokens: no values.

    Raises: ValueError for a clip below 0, which would forbid the policy to stay where it is.

    >>> moved = torch.tensor([1.5, 0.5]).log()
    >>> clipped_objective(moved, torch.zeros(2), torch.ones(1), torch.tensor([0, 0]), (0.2, 0.25)).tolist()
    [-1.25, -0.5]
    """
    low, high = clip
    if not min(low, high) >= 0:
        raise ValueError(f"clip is ({low:g}, {high:g}); expected two numbers of at least 0, such as (0.2, 0.2)")
    ratio, advantage = (logprobs - old).exp(), advantages[owner]
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def kl_per_token(
    logprobs: Float[Tensor, " n"], reference: Float[Tensor, " n"], kind: Literal["k2", "k3"]
) -> Float[Tensor, " n"]:
    """Estimates of KL(pi || ref) from the policy's own samples, as a loss, one value per token in nats.

        k2 = l^2 / 2        k3 = exp(-l) - 1 + l        l = logprobs - reference    (Schulman, "Approximating KL
                                                                                     divergence", 2020)

    Values: E[k3] is the divergence, and k3 >= 0; E[k2] is so to second order only. Gradients, with the samples held
    fixed, go the other way: that of k2 is E[l grad log pi] = grad KL(pi || ref), exact for answers of one token; that
    of k3 is grad KL(ref || pi), the FORWARD divergence, which pulls hard where the policy has lost what the reference
    does. For longer answers both are the divergence of each next token given the tokens before it, summed along the
    policy's answers: that an early token chooses which later divergences there are is left out. (k2: its gradient lacks
    E[sum_t grad log pi_t sum_{u>t} l_u].) `kl_advantages` has that term. The gradient of k1 = l itself is 0 in
    expectation; therefore k1 is no loss.

    Edge cases: equal policies give 0 and no gradient; -inf under the reference gives infinity (k2), NaN gives NaN.

    >>> gap = torch.tensor([0.0, 2.0])
    >>> kl_per_token(gap, torch.zeros(2), "k2").tolist()
    [0.0, 2.0]
    """
    gap = logprobs - reference
    return gap**2 / 2 if kind == "k2" else torch.expm1(-gap) + gap


def kl_advantages(log_ratio: Float[Tensor, "p g"]) -> Float[Tensor, "p g"]:
    """k1 as a reward: the advantages whose policy gradient is exactly -grad KL(pi || ref) of whole sequences.

        A = -(c - mean(c of the others in the group)),    c = log pi(y|x) / ref(y|x), summed over tokens

    The gradient of E_pi[c] is E[c grad log pi], since E[grad log pi] = 0 (Ahmadian et al. 2024, arXiv 2402.14740, put
    the divergence into the reward too). Exact under the length rule "sum" and at the policy that drew the samples.
    Multiply by the KL strength and add to the other advantages AFTER they are normalised.

    Edge cases: a group of one has nobody to be compared with: -c. NaN gives NaN for that group. No gradient flows
    through the result.

    >>> kl_advantages(torch.tensor([[1.0, 3.0], [0.5, 0.5]])).tolist()
    [[2.0, -2.0], [0.0, 0.0]]
    """
    c = log_ratio.detach()
    g = c.shape[1]
    return -c if g == 1 else (c.mean(1, keepdim=True) - c) * (g / (g - 1))


def per_sequence(
    values: Float[Tensor, " n"], owner: Int[Tensor, " n"], sequences: int, length: Literal["mean", "sum"] | float
) -> Float[Tensor, " s"]:
    """One number per sequence from the values of its tokens: their mean, their sum, or their sum over a constant.

        mean: (1/|y|) sum_t v_t (GRPO)      sum: sum_t v_t (RLOO, REINFORCE)      c: sum_t v_t / c (Dr. GRPO)

    `owner` is the sequence of each token, in any order. Only the sum, and its multiples, keep the policy gradient's
    direction where lengths differ. LENGTH says which rule belongs to which estimator.

    Edge cases: a sequence without tokens gives 0. NaN reaches its own sequence alone.

    Raises: ValueError for a constant that is not positive.

    >>> per_sequence(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 1, 1]), 3, "mean").tolist()
    [1.0, 4.0, 0.0]
    """
    total = values.new_zeros(sequences).index_add(0, owner, values)
    if length == "sum":
        return total
    if length == "mean":
        return total / torch.bincount(owner, minlength=sequences).clamp(min=1)
    if not length > 0:
        raise ValueError(f"sums of tokens are divided by {length:g}; expected the longest length, above 0")
    return total / length
