"""The average of adapters' factors, as one adapter: rewarded soups as their authors released them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError


def factor_average(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """A = sum_k w_k A_k and B = sum_k w_k B_k, layer by layer: not the soup of the deltas, but for special cases.

        B A = sum_ij w_i w_j B_i A_j = sum_k w_k B_k A_k - (1/2) sum_ij w_i w_j (B_i - B_j)(A_i - A_j)    (sum w = 1)

    Rewarded soups (Rame et al. 2023, arXiv 2306.04488) average parameters, and their code those of LoRA: every entry of
    the state dict times its weight. So the delta is the exact `soup` less a covariance of the factors, which vanishes
    for one-hot weights and for adapters that share A (or B), and is small while they have hardly left their common
    start. Kept to compare with; merge with `soup`.

    Weights may have any sign and sum; the identity above is for a sum of 1. The rank and the scale stay those of the
    adapters. Raises AdapterError where a factor has no counterpart to be averaged with: other layers, shapes or ranks,
    or another scale, which would have to be split between A and B arbitrarily; and for no adapters at all.

    >>> one = Adapter({"q": LowRank(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 1.0)}, ("q",))
    >>> two = Adapter({"q": LowRank(torch.tensor([[3.0]]), torch.tensor([[4.0]]), 1.0)}, ("q",))
    >>> factor_average([one, two], [0.5, 0.5]).layers["q"].delta().item()  # the soup is (2 + 12) / 2 = 7
    6.0
    """
    if not adapters:
        raise AdapterError("nothing to average: expected at least one adapter")
    first = adapters[0]
    for number, adapter in enumerate(adapters[1:], start=1):
        _comparable(first, adapter, number)
    layers = {
        name: LowRank(
            _weighted([adapter.layers[name].A for adapter in adapters], weights),
            _weighted([adapter.layers[name].B for adapter in adapters], weights),
            layer.scale,
        )
        for name, layer in first.layers.items()
    }
    targets = first.target_modules
    if any(adapter.target_modules != targets for adapter in adapters):
        targets = tuple(layers)
    return Adapter(layers, targets, first.fan_in_fan_out)


def _weighted(factors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    terms = [weight * factor for factor, weight in zip(factors, weights, strict=True)]
    return torch.stack(terms).sum(0)


def _comparable(first: Adapter, other: Adapter, number: int) -> None:
    """Raise where the factors of two adapters are no entries of the same state dict."""
    fix = "merge their deltas (moalign.merging.soup)"
    lone = sorted(set(first.layers) ^ set(other.layers))
    if lone:
        raise AdapterError(f"adapters 0 and {number} cannot be averaged: only one of them has {lone[0]!r}; {fix}")
    for name, layer in first.layers.items():
        mine, theirs = ((*each.A.shape, len(each.B), each.scale) for each in (layer, other.layers[name]))
        for what, came, expected in zip(("rank", "input", "output", "scale"), theirs, mine, strict=True):
            if came != expected:
                raise AdapterError(
                    f"adapters 0 and {number} cannot be averaged: in {name!r} their {what} is {expected:g} and "
                    f"{came:g}; {fix}"
                )
