"""TIES: trim each delta to its largest entries, elect a sign for every entry, and average those that agree."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.adapters import Adapter
from moalign.errors import ConfigError
from moalign.merging.entries import by_entries, share_of_entries
from moalign.merging.inputs import checked
from moalign.merging.soup import soup

_TIE = 1e-12  # of the summed magnitudes: a sum below it has the sign of its rounding, which the order decides


def ties(
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    density: float = 0.2,
    strength: float = 1.0,
    rank: int | None = None,
) -> Adapter:
    """Trim, elect sign and merge, layer by layer [TIES: Yadav et al. 2023, arXiv 2306.01708, algorithm 1].

        T_k = D_k where |D_k| is among its largest `density`, else 0           (trim)
        sigma = sign(sum_k w_k T_k)                                            (elect)
        D = strength sum_{k in K} w_k T_k / sum_{k in K} |w_k|,   K = {k: sign(w_k T_k) = sigma}   (mean of those)

    Equal weights give the paper's mean; others weigh the election and the mean, so that only their proportions count
    and `strength` (the paper's lambda) sets the size. A negative weight turns its delta around. The paper trims a whole
    model's vector, to 0.2 of it; here, as in PEFT and mergekit, each layer keeps its own share, so that only one layer
    is ever dense. Entries as large as the last one kept stay too. Where no sign wins, and where all weights are 0, the
    result is 0. With equal adapters, or one-hot weights, and density 1, it is that adapter.

    It is not linear and works on entries: each layer is made dense, and the result, of full rank as a rule, is factored
    by an SVD (a minute for a layer of 4096 x 4096): to `rank`, at an error that `distance` tells, or without one to as
    many singular values as are above rounding.

    By hand, at density 0.5 with weights (.5, .5): D_1 = [4, 1, -3, 2] and D_2 = [-6, 3, 1, 2] are trimmed to [4, 0, -3,
    0] and [-6, 3, 0, 0]; the signs are [-, +, -, none]; the result is [-6, 3, -3, 0].

    Raises what `soup` raises, and ConfigError for a density outside (0, 1] or a strength that is not finite.

    >>> from moalign.adapters import LowRank
    >>> rows = torch.tensor([[4.0, 1, -3, 2], [-6, 3, 1, 2]])
    >>> both = [Adapter({"q": LowRank(row[None], torch.ones(1, 1), 1.0)}, ("q",)) for row in rows]
    >>> (ties(both, [0.5, 0.5], density=0.5).layers["q"].delta().round(decimals=4) + 0.0).tolist()
    [[-6.0, 3.0, -3.0, 0.0]]
    """
    share_of_entries(density)
    if not math.isfinite(strength):
        raise ConfigError(f"strength is {strength}; expected a finite number")
    counted = checked(adapters, weights)
    if len(counted) == 1 and density == 1:  # nothing is trimmed and nobody outvoted: no need to make it dense
        ((adapter, weight),) = counted
        return soup([adapter], [strength * ((weight > 0) - (weight < 0))], rank)
    return by_entries(counted, lambda deltas, own: strength * elected(trimmed(deltas, density), own), rank)


def trimmed(deltas: Float[Tensor, "k o i"], density: float) -> Float[Tensor, "k o i"]:
    """Each delta's largest entries by magnitude, the others 0; round(density n) of n, one at least.

    >>> trimmed(torch.tensor([[[4.0, 1, -3, 2]]]), 0.5)
    tensor([[[ 4.,  0., -3.,  0.]]])
    """
    entries = deltas[0].numel()
    smallest = entries - max(1, round(density * entries)) + 1
    sizes = deltas.abs()
    floor = sizes.flatten(1).kthvalue(smallest, dim=1).values
    return torch.where(sizes >= floor[:, None, None], deltas, 0.0)


def elected(deltas: Float[Tensor, "k o i"], weights: Float[Tensor, " k"]) -> Float[Tensor, "o i"]:
    """The weighted mean, entry by entry, of those deltas that have the sign of the weighted sum.

    >>> elected(torch.tensor([[[4.0]], [[2.0]], [[-3.0]]]), torch.ones(3))
    tensor([[3.]])
    """
    own = weights[:, None, None]
    scaled = own * deltas
    total = scaled.sum(0)
    sign = torch.where(total.abs() > _TIE * scaled.abs().sum(0), total.sign(), 0.0)
    agree = (scaled.sign() == sign) & (sign != 0)
    count = (own.abs() * agree).sum(0)
    return (scaled * agree).sum(0) / torch.where(count > 0, count, 1.0)
