"""Small random adapters, and their deltas made dense: what merges in low rank are derived a second time from."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.adapters import Adapter, LowRank


def drawn(
    seed: int,
    rank: int = 2,
    scale: float = 2.0,
    *,
    layers: Sequence[str] = ("q", "v"),
    into: int = 7,
    out: int = 5,
    dtype: torch.dtype = torch.float32,
) -> Adapter:
    """An adapter of random factors, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    found = {
        name: LowRank(
            torch.randn(rank, into, generator=generator).to(dtype),
            torch.randn(out, rank, generator=generator).to(dtype),
            scale,
        )
        for name in layers
    }
    return Adapter(found, tuple(layers))


def of_rows(rows: Sequence[Sequence[float]], scale: float = 1.0) -> Adapter:
    """One layer "q" whose delta is scale times these rows."""
    return Adapter({"q": LowRank(torch.tensor(rows), torch.eye(len(rows)), scale)}, ("q",))


def dense(adapter: Adapter, layer: str = "q") -> Float[Tensor, "o i"]:
    """One layer's delta in double precision."""
    found = adapter.layers[layer]
    return found.scale * (found.B.double() @ found.A.double())


def flat(adapter: Adapter, layers: Sequence[str] = ("q", "v")) -> Float[Tensor, " n"]:
    """All entries of the deltas, one layer after the other."""
    return torch.cat([dense(adapter, layer).flatten() for layer in layers])


def summed(adapters: Sequence[Adapter], weights: Sequence[float], layer: str = "q") -> Float[Tensor, "o i"]:
    """sum_k w_k D_k over the adapters that have the layer."""
    terms = [w * dense(a, layer) for a, w in zip(adapters, weights, strict=True) if layer in a.layers]
    return torch.stack(terms).sum(0)


def same_bits(one: Adapter, other: Adapter) -> bool:
    """Whether all factors and scales are equal, to the last bit."""
    return one.layers.keys() == other.layers.keys() and all(
        torch.equal(layer.A, other.layers[name].A)
        and torch.equal(layer.B, other.layers[name].B)
        and layer.scale == other.layers[name].scale
        for name, layer in one.layers.items()
    )
