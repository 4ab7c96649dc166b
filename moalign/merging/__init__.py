"""Merges: pure functions of adapters' deltas and weights that give one adapter; one per file.

- `soup`: the exact weighted sum, by rank concatenation, cut to a rank where one is given; with weights of any sign it
  is task arithmetic
- `slerp`: two adapters, along the arc between their deltas, each layer with its own angle
- `ties`: the largest entries of each delta, a sign elected for each, the mean of those that agree
- `dare`: entries dropped at random and the others rescaled: the soup in expectation
- `bone`: the soup of adapters trained on mixed rewards that stands for a preference, by a linear solve
- `extrapolate`: beyond the soup, on the line that leads to it from the base or from a start
- `factor_average`: the average of the factors, as rewarded soups were released; to compare with, for it is another
  delta, and `factor_error` says how far

All but `ties` and `dare`, which look at single entries, stay in low rank and are exact. What comes of them:

- `compress`: each layer's best approximation of a rank, and the part of the delta that is lost
- `uniform`: the same deltas with one rank and one scale, for servers that read no other
- `distance`: how far one adapter's delta is from another's

`MERGES` names the merges. All options have defaults, so that each can be called with adapters and weights alone: `ties`
keeps 0.2 of the entries and `dare` 0.5; `bone` (beta 1) and `extrapolate` (strength 1) are then the soup.
"""

from collections.abc import Callable

from moalign.adapters import Adapter
from moalign.merging.bone import bone, bone_coefficients, bone_matrix
from moalign.merging.compression import Compressed, compress, uniform
from moalign.merging.dare import dare
from moalign.merging.extrapolation import extrapolate
from moalign.merging.factors import factor_average, factor_error
from moalign.merging.geometry import distance
from moalign.merging.options import options_of
from moalign.merging.slerp import slerp
from moalign.merging.soup import soup
from moalign.merging.ties import ties

Merge = Callable[..., Adapter]
"""merge(adapters: Sequence[Adapter], weights: Sequence[float], **own options) -> Adapter"""

MERGES: dict[str, Merge] = {
    "soup": soup,
    "slerp": slerp,
    "ties": ties,
    "dare": dare,
    "bone": bone,
    "extrapolate": extrapolate,
    "factors": factor_average,
}

__all__ = [
    "MERGES",
    "Compressed",
    "Merge",
    "bone",
    "bone_coefficients",
    "bone_matrix",
    "compress",
    "dare",
    "distance",
    "extrapolate",
    "factor_average",
    "factor_error",
    "options_of",
    "slerp",
    "soup",
    "ties",
    "uniform",
]
