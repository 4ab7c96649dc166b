"""Merges that look at single entries of the deltas: dense, one layer at a time, and factored again."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.adapters import Adapter
from moalign.errors import ConfigError
from moalign.merging.compression import at_least_one, factorised
from moalign.merging.inputs import layer_names, merged

Combine = Callable[[Float[Tensor, "k o i"], Float[Tensor, " k"]], Float[Tensor, "o i"]]


def by_entries(counted: Sequence[tuple[Adapter, float]], combine: Combine, rank: int | None) -> Adapter:
    """Layer by layer: the deltas of the adapters that have it, combined with their weights, as factors.

    All in double precision. Layers come in the order of their names, so that what is drawn for them does not depend on
    the order within an adapter. Only one layer is dense at a time: a few times 8 k o i bytes.
    """
    if rank is not None:
        at_least_one(rank)
    parents = [adapter for adapter, _ in counted]
    layers = {}
    for name in sorted(layer_names(parents)):
        parts = [(adapter.layers[name], weight) for adapter, weight in counted if name in adapter.layers]
        deltas = torch.stack([layer.scale * (layer.B.double() @ layer.A.double()) for layer, _ in parts])
        weights = torch.tensor([weight for _, weight in parts], dtype=deltas.dtype, device=deltas.device)
        dtype = reduce(torch.promote_types, [layer.B.dtype for layer, _ in parts])
        layers[name] = factorised(combine(deltas, weights), rank, dtype)
    return merged(layers, parents)


def share_of_entries(density: float) -> None:
    """Raise ConfigError for a density that is no share of a delta's entries."""
    if not 0 < density <= 1:
        raise ConfigError(f"density is {density:g}, the share of entries to keep; expected above 0 and at most 1")
