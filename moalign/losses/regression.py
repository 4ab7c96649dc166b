"""Regression with labels that are partly missing: how a reward model of several heads is fitted."""

import torch
from jaxtyping import Float
from torch import Tensor


def masked_squared_errors(predicted: Float[Tensor, "b m"], labels: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Squared errors of m heads, 0 where a row has no label for the head (Wang et al. 2024, DPA, arXiv 2402.18571).

        L = E || r~(x, y) - r(x, y) ||^2  over the labels that there are,   e_ij = M_ij (r~_ij - r_ij)^2

    A missing label is NaN in `labels` (M_ij = 0): it adds nothing to the loss, and the gradient at its prediction is
    exactly 0. In units of the labels squared; nothing is summed or averaged, so that whoever does says over what.
    A prediction that is NaN stays NaN where there is a label. No rows, or no label at all: zeros.

    >>> missing = float("nan")
    >>> masked_squared_errors(torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, missing]]))
    tensor([[4., 0.]])
    """
    # The label is replaced before the difference is taken: 0 * NaN would still be NaN in the gradient.
    known = ~labels.isnan()
    return torch.where(known, predicted - labels.nan_to_num(), 0.0).square()
