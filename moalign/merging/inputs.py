"""What all merges ask of their adapters and weights, and the adapter that they hand back."""

import math
from collections.abc import Mapping, Sequence

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError


def checked(adapters: Sequence[Adapter], weights: Sequence[float]) -> list[tuple[Adapter, float]]:
    """The adapters that count, each with its weight; those of weight 0 are left out.

    All weights 0: the first adapter alone, with 0, so that the zero delta still has layers. Raises AdapterError for no
    adapters, another number of weights than of adapters, a weight or a factor that counts and is NaN or infinite, and
    adapters of different bases: a layer that is not equally large in all of them.

    >>> one = Adapter({}, ())
    >>> [weight for _, weight in checked([one, one, one], [0.7, 0.0, 0.3])]
    [0.7, 0.3]
    """
    if not adapters:
        raise AdapterError("nothing to merge: expected at least one adapter")
    if len(weights) != len(adapters):
        raise AdapterError(f"{len(weights)} weights for {len(adapters)} adapters; expected one weight for each")
    for number, weight in enumerate(weights):
        if not math.isfinite(weight):
            raise AdapterError(f"the weight of adapter {number} is {weight}; expected a finite number")
    _one_base(adapters)
    counted = [(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True) if weight]
    for adapter, _ in counted:
        for name, layer in adapter.layers.items():
            finite(name, layer)
    return counted or [(adapters[0], 0.0)]


def finite(name: str, layer: LowRank) -> None:
    """Raise AdapterError for factors that are not numbers: an SVD would fail on them, a sum would pass them on."""
    if not (layer.A.isfinite().all() and layer.B.isfinite().all()):
        raise AdapterError(f"layer {name!r} holds a number that is NaN or infinite; its training diverged")


def _one_base(adapters: Sequence[Adapter]) -> None:
    seen: dict[str, tuple[int, tuple[int, int]]] = {}
    for number, adapter in enumerate(adapters):
        for name, layer in adapter.layers.items():
            shape = (layer.B.shape[0], layer.A.shape[1])
            first, expected = seen.setdefault(name, (number, shape))
            if shape != expected:
                raise AdapterError(
                    f"adapters {first} and {number} belong to different bases: layer {name!r} has the shape "
                    f"{expected[0]} x {expected[1]} in one and {shape[0]} x {shape[1]} in the other; merge adapters "
                    "of one base"
                )
        if adapter.fan_in_fan_out != adapters[0].fan_in_fan_out:
            raise AdapterError(
                f"adapters 0 and {number} belong to different bases: one was trained on layers that store their "
                "weight transposed (fan_in_fan_out), the other was not; merge adapters of one base"
            )


def layer_names(adapters: Sequence[Adapter]) -> list[str]:
    """The layers that any of the adapters changes, in the order in which they are met first."""
    return list(dict.fromkeys(name for adapter in adapters for name in adapter.layers))


def merged(layers: Mapping[str, LowRank], parents: Sequence[Adapter]) -> Adapter:
    """The layers as one adapter; where the parents' target modules differ, the layers' own names stand for them."""
    targets = parents[0].target_modules
    if any(parent.target_modules != targets for parent in parents):
        targets = tuple(layers)
    return Adapter(layers, targets, parents[0].fan_in_fan_out)
