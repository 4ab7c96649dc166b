"""Adapters of a smaller rank, at the least possible error, and adapters of one rank."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError, ConfigError
from moalign.merging.geometry import cores
from moalign.merging.inputs import finite


@dataclass(frozen=True)
class Compressed:
    """An adapter of smaller rank, and the part of the delta that is lost: over all layers, and by layer."""

    adapter: Adapter
    error: float
    layers: dict[str, float]


def compress(adapter: Adapter, rank: int) -> Compressed:
    """Each layer's best approximation of the rank (Eckart-Young): QR of both factors and an SVD of the small core.

        error = sqrt(sum_{i > rank} s_i^2) / ||D||_F,    s the singular values, overall: of all layers together

    Never a dense delta: for o x i layers of rank R it takes O((o + i) R^2), where an SVD of the delta takes
    O(o i min(o, i)). Computed in double precision; the error is exact but for the rounding of the factors to the
    adapter's own type. A layer's new rank is min(rank, r, o, i): nothing is padded (`uniform` does), and a layer whose
    rank is no larger comes back as it was, bit for bit, with error 0. The scales stay, but for their sign. A zero delta
    has error 0. Raises ConfigError for a rank below 1, AdapterError for a factor that is not finite.

    >>> A, B = torch.eye(2, 6), torch.eye(5, 2) * torch.tensor([4.0, 3.0])
    >>> found = compress(Adapter({"q": LowRank(A, B, 1.0)}, ("q",)), 1)
    >>> found.adapter.layers["q"].rank, round(found.error, 6)  # 3 / sqrt(4^2 + 3^2)
    (1, 0.6)
    """
    at_least_one(rank)
    layers: dict[str, LowRank] = {}
    lost: dict[str, float] = {}
    whole: dict[str, float] = {}
    for name, layer in adapter.layers.items():
        finite(name, layer)
        if layer.rank <= rank:
            layers[name], lost[name] = layer, 0.0
            whole[name] = cores([layer])[0].square().sum().item()
        else:
            layers[name], squares = _cut(layer.A, layer.B, layer.scale, rank, abs(layer.scale) or 1.0)
            lost[name], whole[name] = squares[rank:].sum().item(), squares.sum().item()
    return Compressed(
        Adapter(layers, adapter.target_modules, adapter.fan_in_fan_out),
        _share(sum(lost.values()), sum(whole.values())),
        {name: _share(lost[name], whole[name]) for name in layers},
    )


def truncate(A: Float[Tensor, "r i"], B: Float[Tensor, "o r"], rank: int, scale: float) -> LowRank:
    """The best approximation of B A of the rank, its singular values shared evenly by factors of the given scale.

    >>> truncate(torch.ones(3, 4), torch.ones(5, 3), 2, 0.5).delta().mean().round(decimals=4)
    tensor(3.)
    """
    return _cut(A, B, 1.0, rank, scale)[0]


def factorised(delta: Float[Tensor, "o i"], rank: int | None, dtype: torch.dtype) -> LowRank:
    """A dense delta as factors of scale 1, by its SVD; slow where layers are large, O(o i min(o, i)).

    Without a rank, all singular values above rounding (s_1 times the eps of the factors' type) are kept; with one, no
    more than so many. The rank is 1 at least: a zero delta is one row of zeros.
    """
    U, S, Vh = torch.linalg.svd(delta.double(), full_matrices=False)
    above = max(1, int((torch.finfo(dtype).eps * S[0] < S).sum()))
    kept = above if rank is None else min(rank, above)
    root = S[:kept].sqrt()
    return LowRank((root[:, None] * Vh[:kept]).to(dtype), (U[:, :kept] * root).to(dtype), 1.0)


def uniform(adapter: Adapter, rank: int) -> Adapter:
    """The same deltas with exactly this rank and one scale in all layers, for servers that read no rank_pattern.

    Factors are padded with zeros. Where the scales differ they are folded into B, and the scale is 1; equal ones stay,
    and so do the factors' bits. Raises AdapterError for a layer of larger rank: `compress` it first.

    >>> padded = uniform(Adapter({"q": LowRank(torch.ones(1, 2), torch.ones(3, 1), 2.0)}, ("q",)), 4)
    >>> padded.layers["q"].rank, padded.layers["q"].delta()[0].tolist()
    (4, [2.0, 2.0])
    """
    scales = {layer.scale for layer in adapter.layers.values()}
    scale = scales.pop() if len(scales) == 1 else 1.0
    layers = {}
    for name, layer in adapter.layers.items():
        if layer.rank > rank:
            raise AdapterError(f"layer {name!r} has rank {layer.rank}, more than {rank}; compress the adapter first")
        B = layer.B if layer.scale == scale else layer.B * (layer.scale / scale)
        missing = rank - layer.rank
        A, B = torch.nn.functional.pad(layer.A, (0, 0, 0, missing)), torch.nn.functional.pad(B, (0, missing))
        layers[name] = LowRank(A, B, scale)
    return Adapter(layers, adapter.target_modules, adapter.fan_in_fan_out)


def at_least_one(rank: int) -> None:
    """Raise ConfigError for a rank that no factors can have."""
    if rank < 1:
        raise ConfigError(f"rank is {rank}; expected at least 1")


def _cut(
    A: Float[Tensor, "r i"], B: Float[Tensor, "o r"], factor: float, rank: int, scale: float
) -> tuple[LowRank, Float[Tensor, " s"]]:
    """The best approximation of factor * B A, and the squares of all its singular values."""
    left, upper = torch.linalg.qr(B.detach().double())
    right, lower = torch.linalg.qr(A.detach().double().T)
    U, S, Vh = torch.linalg.svd(factor * (upper @ lower.T), full_matrices=False)
    root = (S[:rank] / scale).sqrt()
    dtype = torch.promote_types(A.dtype, B.dtype)
    first, second = root[:, None] * (Vh[:rank] @ right.T), (left @ U[:, :rank]) * root
    return LowRank(first.to(dtype), second.to(dtype), scale), S.square()


def _share(lost: float, whole: float) -> float:
    return math.sqrt(lost / whole) if whole else 0.0
