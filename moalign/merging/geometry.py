"""Lengths, angles and distances of adapters' deltas, from their factors: never a dense delta.

    D_k = s_k B_k A_k,   [B_1 .. B_k] = Q R,   [A_1; .. A_k]^T = P T   gives   D_k = Q (s_k R_k T_k^T) P^T

Q and P have orthonormal columns, so the small matrices in brackets, the cores, have all the inner products of the
deltas. Differences are taken of cores: sqrt(|D|^2 + |E|^2 - 2<D, E>) would lose half of the digits where D is near E.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.adapters import Adapter, LowRank
from moalign.merging.inputs import checked, layer_names


def cores(layers: Sequence[LowRank]) -> list[Float[Tensor, "p q"]]:
    """The deltas of one layer in common orthonormal bases, in double precision; p and q are at most the sum of ranks.

    >>> one, two = cores([LowRank(torch.eye(1, 9), torch.eye(9, 1), scale) for scale in (3.0, 2.0)])
    >>> round((one * two).sum().item(), 6)  # <D_1, D_2>
    6.0
    """
    left = torch.linalg.qr(torch.cat([layer.B.detach().double() for layer in layers], dim=1), mode="r").R
    right = torch.linalg.qr(torch.cat([layer.A.detach().double() for layer in layers]).T, mode="r").R
    ranks = [layer.rank for layer in layers]
    pieces = zip(layers, left.split(ranks, dim=1), right.split(ranks, dim=1), strict=True)
    return [layer.scale * (upper @ lower.T) for layer, upper, lower in pieces]


def angle(one: LowRank, other: LowRank) -> float | None:
    """The angle between two deltas in radians, 0 to pi; None where one of them is zero and there is none.

    2 atan2(|u - v|, |u + v|) of the unit vectors u and v (Kahan): right to rounding for parallel deltas too, where
    the arc cosine has half of the digits.

    >>> east, north = (LowRank(torch.eye(2)[[side]], torch.ones(3, 1), 1.0) for side in (0, 1))
    >>> round(angle(east, north), 6)
    1.570796
    """
    first, second = cores([one, other])
    if not first.any() or not second.any():
        return None
    u, v = first / first.norm(), second / second.norm()
    return 2 * math.atan2((u - v).norm().item(), (u + v).norm().item())


def distance(one: Adapter, other: Adapter) -> float:
    """||D_one - D_other||_F / ||D_other||_F over all layers: how far one adapter is from another, in parts of that.

    A layer that one of them lacks counts as zero. Two zero deltas are 0 apart; anything else is infinitely far from a
    zero delta. Raises AdapterError for adapters of different bases.

    >>> two, three = (Adapter({"q": LowRank(torch.ones(1, 4), torch.ones(5, 1), s)}, ("q",)) for s in (2.0, 3.0))
    >>> round(distance(three, two), 6)
    0.5
    """
    checked([one, other], [1.0, 1.0])
    apart = whole = 0.0
    for name in layer_names([one, other]):
        found = [adapter.layers[name] for adapter in (one, other) if name in adapter.layers]
        small = cores(found)
        gap = small[0] - small[1] if len(small) == 2 else small[0]
        apart += gap.square().sum().item()
        whole += small[-1].square().sum().item() if name in other.layers else 0.0
    return math.sqrt(apart / whole) if whole else (math.inf if apart else 0.0)
