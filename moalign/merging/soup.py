"""The exact soup of adapters, as one adapter."""

import math
from collections.abc import Sequence

import torch

from moalign.adapters import Adapter, LowRank
from moalign.errors import ConfigError
from moalign.merging.compression import at_least_one, truncate
from moalign.merging.inputs import checked, layer_names, merged


def soup(
    adapters: Sequence[Adapter], weights: Sequence[float], rank: int | None = None, scale: float | None = None
) -> Adapter:
    """sum_k w_k dW_k, layer by layer, as one adapter; not an average of factors, which would add cross terms.

    The factors side by side are exact and have the sum of the ranks. With `rank`, each layer is then cut to its best
    approximation of that rank (`compress` says at what error). The factors carry the given `scale` (alpha / rank of the
    adapter to come; 1 without one), which leaves the delta as it is and decides how far a step of training moves it.

    Weights may have any sign and sum: with negative ones this is task arithmetic, which subtracts what an adapter
    learnt (Ilharco et al. 2023, arXiv 2212.04089). An adapter of weight 0 is left out, and adds no rank. A
    lone weight of 1 gives back that very adapter, bit for bit, unless a rank or a scale is asked for. All weights 0
    give a zero delta on the layers of the first adapter. A layer that an adapter lacks counts as 0. The order of
    adapters changes rounding alone.

    Raises AdapterError for no adapters, another number of weights, weights or factors that are not finite, or adapters
    of different bases; ConfigError for a rank below 1 or a scale that is not above 0.

    >>> one = Adapter({"q": LowRank(torch.ones(1, 2), torch.ones(3, 1), 2.0)}, ("q",))
    >>> soup([one, one], [0.5, 0.25]).layers["q"].delta()[0]
    tensor([1.5000, 1.5000])
    >>> soup([one, one], [0.0, 1.0]) is one
    True
    """
    if rank is not None:
        at_least_one(rank)
    if scale is not None and not (scale > 0 and math.isfinite(scale)):
        raise ConfigError(f"scale is {scale:g}; expected a number above 0")
    counted = checked(adapters, weights)
    if len(counted) == 1 and counted[0][1] == 1 and rank is None and scale is None:
        return counted[0][0]
    layers = {}
    for name in layer_names([adapter for adapter, _ in counted]):
        parts = [(adapter.layers[name], weight) for adapter, weight in counted if name in adapter.layers]
        layers[name] = side_by_side(parts, rank, 1.0 if scale is None else scale)
    return merged(layers, [adapter for adapter, _ in counted])


def side_by_side(parts: Sequence[tuple[LowRank, float]], rank: int | None = None, scale: float = 1.0) -> LowRank:
    """One layer's sum_k w_k dW_k: A = [A_1; A_2; ..], B = [w_1 s_1 B_1, w_2 s_2 B_2, ..] / scale, cut to a rank or not.

    >>> side_by_side([(LowRank(torch.ones(2, 3), torch.ones(4, 2), 0.5), 3.0)] * 2).delta()[0, 0].item()
    6.0
    """
    A = torch.cat([layer.A for layer, _ in parts])
    B = torch.cat([layer.B * (weight * layer.scale) for layer, weight in parts], dim=1)
    return LowRank(A, B / scale, scale) if rank is None else truncate(A, B, rank, scale)
