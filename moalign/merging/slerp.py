"""Spherical interpolation of two adapters: along the arc between their deltas, not along the chord."""

import math
from collections.abc import Sequence

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError
from moalign.merging.geometry import angle
from moalign.merging.inputs import checked, layer_names, merged
from moalign.merging.soup import side_by_side, soup

_STRAIGHT = 1e-3  # radians; so near to 0, arc and chord differ by less than float32 can show


def slerp(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """The point at the share t = w_2 of the arc from one delta to the other, layer by layer.

        D = sin((1 - t) Omega) / sin(Omega) D_1 + sin(t Omega) / sin(Omega) D_2,    cos Omega = <D_1, D_2> / |D_1||D_2|

    [Shoemake 1985, "Animating rotation with quaternion curves"]; each layer has its own angle, as in mergekit, for one
    of the whole model would be that of its largest layers. So it is a soup with other coefficients in each layer: exact
    in low rank, with the sum of the ranks, and no dense delta. Two deltas of equal length keep that length on the way,
    which a soup of them does not: at 90 degrees it is shorter by sqrt(1/2) in the middle.

    A layer takes the soup's coefficients 1 - t and t where no arc is defined: one of its deltas is zero or missing, or
    they point the same or opposite ways (within 0.001 radians; opposite ways have every arc, and the soup nears zero).
    A one-hot weight gives back that very adapter.

    Raises AdapterError unless there are two adapters of one base, and weights >= 0 that sum to 1.

    >>> import torch
    >>> east, north = (Adapter({"q": LowRank(torch.eye(2)[[k]], torch.ones(1, 1), 1.0)}, ("q",)) for k in (0, 1))
    >>> slerp([east, north], [0.5, 0.5]).layers["q"].delta()
    tensor([[0.7071, 0.7071]])
    """
    if len(adapters) != 2:
        raise AdapterError(
            f"slerp takes two adapters and {len(adapters)} came; the soup, ties and dare take any number"
        )
    checked(adapters, weights)
    if min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise AdapterError(f"weights {list(weights)} are no place between two adapters; expected shares that sum to 1")
    if 0 in weights:
        return soup(adapters, weights)
    layers = {}
    for name in layer_names(adapters):
        found = [adapter.layers.get(name) for adapter in adapters]
        shares = coefficients(found[0], found[1], weights[1])
        layers[name] = side_by_side([(layer, share) for layer, share in zip(found, shares, strict=True) if layer])
    return merged(layers, adapters)


def coefficients(one: LowRank | None, other: LowRank | None, t: float) -> tuple[float, float]:
    """How much of either delta the point at the share t of the arc takes; None is a layer that is missing."""
    between = angle(one, other) if one is not None and other is not None else None
    if between is None or not _STRAIGHT < between < math.pi - _STRAIGHT:
        return 1 - t, t
    return math.sin((1 - t) * between) / math.sin(between), math.sin(t * between) / math.sin(between)
