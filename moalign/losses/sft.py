"""Supervised fine-tuning: the likelihood of the answers that are to be imitated."""

from jaxtyping import Float, Int
from torch import Tensor


def sft_loss(logprob: Float[Tensor, "*n"], length: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Negative log-likelihood per token (Ouyang et al. 2022, arXiv 2203.02155, section 3.5), one value per response.

        L = - (1/|y|) log pi(y|x)  =  - (1/|y|) sum_t log pi(y_t | x, y_<t)

    `logprob` is the sum over the response's tokens, EOS included, in nats, and `length` is |y|, their number. Each
    response counts the same, however long: TRL instead takes the mean over all tokens of a batch, in which long
    responses weigh more and a response's weight depends on its neighbours.

    A response without tokens has no mean: ValueError.

    >>> import torch
    >>> sft_loss(torch.tensor([-6.0, -1.0]), torch.tensor([3, 1]))  # 2 nats per token, and 1
    tensor([2., 1.])
    """
    if not bool((length > 0).all()):
        raise ValueError(f"a response has {length.min().item()} tokens; the mean over its tokens needs at least one")
    return -logprob / length
