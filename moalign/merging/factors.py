"""The average of adapters' factors, as one adapter: rewarded soups as their authors released them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError
from moalign.merging.geometry import distance
from moalign.merging.inputs import checked, merged
from moalign.merging.soup import soup


def factor_average(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """A = sum_k w_k A_k and B = sum_k w_k B_k, layer by layer: not the soup of the deltas, but for special cases.

        B A = sum_ij w_i w_j B_i A_j = sum_k w_k B_k A_k - (1/2) sum_ij w_i w_j (B_i - B_j)(A_i - A_j)    (sum w = 1)

    Rewarded soups (Rame et al. 2023, arXiv 2306.04488) average parameters, and their code those of LoRA: every entry of
    the state dict times its weight. So the delta is the exact `soup` less a covariance of the factors, which vanishes
    for one-hot weights and for adapters that share A (or B), and is small while they have hardly left their common
    start. Kept to compare with; merge with `soup`.

    Weights may have any sign and sum; the identity above is for a sum of 1. An adapter of weight 0 is left out. The
    rank and the scale stay those of the adapters. Raises AdapterError where a factor has no counterpart to be averaged
    with: other layers or ranks, or another scale, which would have to be split between A and B arbitrarily; and where
    `soup` does: no adapters, other bases, weights that are not finite or not one for each.

    >>> one = Adapter({"q": LowRank(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 1.0)}, ("q",))
    >>> two = Adapter({"q": LowRank(torch.tensor([[3.0]]), torch.tensor([[4.0]]), 1.0)}, ("q",))
    >>> factor_average([one, two], [0.5, 0.5]).layers["q"].delta().item()  # the soup is (2 + 12) / 2 = 7
    6.0
    """
    counted = checked(adapters, weights)
    parents, shares = [adapter for adapter, _ in counted], [weight for _, weight in counted]
    places = [number for number, weight in enumerate(weights) if weight] or [0]
    for number, parent in zip(places[1:], parents[1:], strict=True):
        _comparable(parents[0], parent, (places[0], number))
    layers = {
        name: LowRank(
            _weighted([parent.layers[name].A for parent in parents], shares),
            _weighted([parent.layers[name].B for parent in parents], shares),
            layer.scale,
        )
        for name, layer in parents[0].layers.items()
    }
    return merged(layers, parents)


def factor_error(adapters: Sequence[Adapter], weights: Sequence[float]) -> float:
    """||average - soup||_F / ||soup||_F over all layers: the part of the exact soup that the average of factors misses.

    Raises what `factor_average` raises.

    >>> one = Adapter({"q": LowRank(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 1.0)}, ("q",))
    >>> two = Adapter({"q": LowRank(torch.tensor([[3.0]]), torch.tensor([[4.0]]), 1.0)}, ("q",))
    >>> round(factor_error([one, two], [0.5, 0.5]), 6)  # 6 and 7
    0.142857
    """
    return distance(factor_average(adapters, weights), soup(adapters, weights))


def _weighted(factors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    terms = [weight * factor for factor, weight in zip(factors, weights, strict=True)]
    return torch.stack(terms).sum(0)


def _comparable(first: Adapter, other: Adapter, places: tuple[int, int]) -> None:
    """Raise where the factors of two adapters are no entries of the same state dict."""
    who, fix = "adapters {} and {} cannot be averaged".format(*places), "merge their deltas (moalign.merging.soup)"
    lone = sorted(set(first.layers) ^ set(other.layers))
    if lone:
        raise AdapterError(f"{who}: only one of them has {lone[0]!r}; {fix}")
    for name, layer in first.layers.items():
        mine, theirs = ((each.rank, each.scale) for each in (layer, other.layers[name]))
        for what, came, expected in zip(("rank", "scale"), theirs, mine, strict=True):
            if came != expected:
                raise AdapterError(f"{who}: in {name!r} their {what} is {expected:g} and {came:g}; {fix}")
