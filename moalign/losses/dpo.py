"""Direct preference optimisation: the loss that MODPO generalises."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def preference_loss(logit: Float[Tensor, "*n"], probability: Float[Tensor, "*n"] | None = None) -> Float[Tensor, "*n"]:
    """Negative log-likelihood of Bradley-Terry choices: - p log sigma(d) - (1 - p) log sigma(-d).

    `logit` is the reward of the chosen response less that of the rejected one; `probability` is how likely the
    chosen one wins (None: it won, p = 1). With p = sigma(r_c - r_r), the minimiser is exactly d = r_c - r_r: the
    expectation over labels drawn from known rewards, without their noise.

    >>> import torch
    >>> preference_loss(torch.tensor([0.0])).item()
    0.6931471824645996
    """
    if probability is None:
        return -logsigmoid(logit)
    return -(probability * logsigmoid(logit) + (1 - probability) * logsigmoid(-logit))


def dpo_loss(
    chosen: Float[Tensor, "*n"],
    rejected: Float[Tensor, "*n"],
    reference_chosen: Float[Tensor, "*n"],
    reference_rejected: Float[Tensor, "*n"],
    *,
    beta: float,
    probability: Float[Tensor, "*n"] | None = None,
) -> Float[Tensor, "*n"]:
    """DPO (Rafailov et al. 2023, arXiv 2305.18290, Eq. 7), one value per pair.

        L = - log sigma( beta [log pi(y_c|x)/pi_ref(y_c|x)] - beta [log pi(y_r|x)/pi_ref(y_r|x)] )

    The four log-probabilities are sums over the response's tokens, EOS included, in nats.
    """
    logit = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return preference_loss(logit, probability)
