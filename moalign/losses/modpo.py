"""Multi-objective direct preference optimisation: DPO with the other objectives as a margin."""

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.losses.dpo import preference_loss


def modpo_loss(
    log_ratio: Float[Tensor, "*n"],
    margins: Float[Tensor, "*n m"],
    weights: Float[Tensor, "*n m"],
    primary: int,
    *,
    beta: float,
    probability: Float[Tensor, "*n"] | None = None,
) -> Float[Tensor, "*n"]:
    """MODPO (Zhou et al. 2024, arXiv 2310.03708, Eq. 6-7), one value per pair.

        L = - log sigma( (1/w_k) [ beta D log pi/pi_ref  -  sum_{j != k} w_j D r_j ] )

    where D is the chosen response's value less the rejected one's and k, the `primary` objective, is the one whose
    pairs these are. Its minimiser is pi_ref exp(w.r/beta)/Z: every other objective is subtracted because the pair
    that it favours already needs less movement of the policy.

    Args:
        log_ratio: D log pi/pi_ref, from sums over response tokens with EOS, in nats.
        margins: D r_j in the objectives' own units; column `primary` is not read.
        weights: the preference, for each pair; weights[..., primary] must be positive.
        probability: how likely the chosen response wins under the primary objective; None for 1.

    Edge cases: one objective, or weight 1 on the primary, is DPO; all other margins 0 is DPO at beta / w_k; a
    primary weight of 0 has no loss (the constraint is infinitely hard), and raises ValueError.

    >>> one = torch.tensor(3.0)  # papers: beta .1, D log-ratio 3, margin 4, w_k .5: logit 2 (.3 - 2) = -3.4
    >>> loss = modpo_loss(one, torch.tensor([9.0, 4.0]), torch.tensor([0.5, 0.5]), 0, beta=0.1)
    >>> round(torch.sigmoid(-torch.log(torch.expm1(loss))).logit().item(), 4)
    -3.4
    """
    own = weights[..., primary]
    if not bool((own > 0).all()):
        raise ValueError(f"the primary objective's weight is {own.min().item():g}; MODPO needs it positive")
    others = weights.clone()
    others[..., primary] = 0
    # margins of the primary may be NaN, since nobody needs to know them; 0 * NaN would spread.
    known = torch.where(others != 0, margins, torch.zeros_like(margins))
    logit = (beta * log_ratio - (others * known).sum(-1)) / own
    return preference_loss(logit, probability)
