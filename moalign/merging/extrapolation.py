"""Extrapolation: beyond the soup, on the line that leads to it from the base or from a start."""

import math
from collections.abc import Sequence

from moalign.adapters import Adapter
from moalign.errors import ConfigError
from moalign.merging.soup import soup


def extrapolate(
    adapters: Sequence[Adapter], weights: Sequence[float], strength: float = 1.0, start: Adapter | None = None
) -> Adapter:
    """k times the soup, and 1 - k times where training began: theta = k sum_j w_j theta_j + (1 - k) theta_0.

    [ExPO: Zheng et al. 2024, arXiv 2404.16792, whose alpha is k - 1; Bone soups, arXiv 2502.10762, whose k
    is 1 / (1 - a): the soup is then the mixture of a parts of the start and 1 - a of what is sought.] Without a `start`
    training began at the base, whose delta is 0: k times the soup's delta. With one, say an SFT adapter that the others
    were trained from and whose delta theirs contain, D = k sum_j w_j D_j + (1 - k) D_0.

    `strength` is k: 1 is the soup, above it beyond, between 0 and 1 on the way, 0 the start. It is worth a search on a
    few prompts. Raises what `soup` raises, and ConfigError for a strength that is not finite.

    >>> import torch
    >>> from moalign.adapters import LowRank
    >>> one, two = (Adapter({"q": LowRank(torch.ones(1, 1), torch.ones(1, 1), s)}, ("q",)) for s in (3.0, 1.0))
    >>> extrapolate([one], [1.0], strength=2.0).layers["q"].delta().item()
    6.0
    >>> extrapolate([one], [1.0], strength=2.0, start=two).layers["q"].delta().item()  # 2 * 3 - 1
    5.0
    """
    if not math.isfinite(strength):
        raise ConfigError(f"strength is {strength}; expected a finite number")
    beyond = [strength * weight for weight in weights]
    if start is None:
        return soup(adapters, beyond)
    return soup([*adapters, start], [*beyond, 1 - strength])
