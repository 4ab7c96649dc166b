"""The exact soup of adapters, as one adapter."""

from collections.abc import Sequence

import torch

from moalign.adapters import Adapter, LowRank


def soup(adapters: Sequence[Adapter], weights: Sequence[float], rank: int | None = None, scale: float = 1.0) -> Adapter:
    """sum_k w_k dW_k, layer by layer, as one adapter; not an average of factors, which would add cross terms.

    The factors side by side are exact and have the sum of the ranks. With `rank`, each layer is then cut to its best
    approximation of that rank: QR of both factors and an SVD of the small core (r x r), never of the dense delta.
    The factors carry the given `scale` (alpha / rank of the adapter to come), which leaves the delta as it is and
    decides how far a step of training moves it. Weights may have any sign and sum. A layer that an adapter lacks counts
    as 0.

    >>> one = Adapter({"q": LowRank(torch.ones(1, 2), torch.ones(3, 1), 2.0)}, ("q",))
    >>> soup([one, one], [0.5, 0.25]).layers["q"].delta()[0]
    tensor([1.5000, 1.5000])
    """
    names = dict.fromkeys(name for adapter in adapters for name in adapter.layers)
    layers = {}
    for name in names:
        parts = [(a.layers[name], w) for a, w in zip(adapters, weights, strict=True) if name in a.layers]
        A = torch.cat([layer.A for layer, _ in parts])
        B = torch.cat([layer.B * (weight * layer.scale) for layer, weight in parts], dim=1)
        layers[name] = LowRank(A, B / scale, scale) if rank is None else _truncate(A, B, rank, scale)
    targets = adapters[0].target_modules
    if any(adapter.target_modules != targets for adapter in adapters):
        targets = tuple(layers)
    return Adapter(layers, targets, adapters[0].fan_in_fan_out)


def _truncate(A: torch.Tensor, B: torch.Tensor, rank: int, scale: float) -> LowRank:
    """The best rank-r approximation of B A (Eckart-Young), its singular values shared evenly by both factors."""
    left, upper = torch.linalg.qr(B)
    right, lower = torch.linalg.qr(A.T)
    U, S, Vh = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    root = (S[:rank] / scale).sqrt()
    return LowRank(root[:, None] * (Vh[:rank] @ right.T), (left @ U[:, :rank]) * root, scale)
