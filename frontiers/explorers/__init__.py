"""Which preference to train next, by ask and tell: preferences go out, and what they attained comes back.

base            Explorer (the Protocol), and the book of what was asked and told
grid            Grid: even weights, whatever was attained
crowding        Crowding: halfway between the neighbours whose values lie furthest apart
linear_support  LinearSupport: where the front could still gain most, until it cannot
hypervolume     Hypervolume: where a Gaussian process expects the most volume (botorch)

`EXPLORERS` names them.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from moalign.errors import ConfigError, unknown
from moalign.frontiers.explorers.base import Explorer
from moalign.frontiers.explorers.crowding import Crowding
from moalign.frontiers.explorers.grid import Grid
from moalign.frontiers.explorers.hypervolume import Hypervolume
from moalign.frontiers.explorers.linear_support import LinearSupport

EXPLORERS: dict[str, Callable[[int, int, Float[np.ndarray, " m"], int], Explorer]] = {
    "grid": lambda m, points, reference_point, seed: Grid(m, points, seed),
    "crowding": lambda m, points, reference_point, seed: Crowding(m, points),
    "hypervolume": Hypervolume,
    "linear_support": lambda m, points, reference_point, seed: LinearSupport(m, points),
}


def build_explorer(kind: str, m: int, points: int, reference_point: Float[np.ndarray, " m"], seed: int) -> Explorer:
    """The explorer of that name in EXPLORERS, for m objectives and a sweep that may train `points` adapters.

    The reference point, in the objectives' units, and the seed are for those that use them. Raises ConfigError for an
    unknown kind (near name suggested), below one objective or point, and for a reference point that is not one finite
    number per objective where the explorer needs one.

    >>> build_explorer("crowding", 2, 11, np.zeros(2), seed=0).ask(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> build_explorer("gird", 2, 11, np.zeros(2), seed=0)
    Traceback (most recent call last):
    moalign.errors.ConfigError: unknown explorer 'gird'; did you mean 'grid'? ...
    """
    if kind not in EXPLORERS:
        raise ConfigError(unknown("explorer", kind, EXPLORERS))
    return EXPLORERS[kind](m, points, reference_point, seed)


__all__ = ["EXPLORERS", "Crowding", "Explorer", "Grid", "Hypervolume", "LinearSupport", "build_explorer"]
