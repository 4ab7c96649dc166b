"""DARE: drop entries of each delta at random, rescale the others, and add up."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.adapters import Adapter
from moalign.merging.entries import by_entries, share_of_entries
from moalign.merging.inputs import checked
from moalign.merging.soup import soup


def dare(
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    density: float = 0.5,
    seed: int = 0,
    rank: int | None = None,
) -> Adapter:
    """sum_k w_k M_k * D_k / density, M_k ~ Bernoulli(density) for every entry: the soup in expectation.

    [DARE: Yu et al. 2024, arXiv 2311.03099; its drop rate is p = 1 - density, and task arithmetic follows.]
    The variance of an entry is (1 / density - 1) sum_k (w_k D_k)^2: at 1/2, the noise of one adapter is as large as its
    delta. (The paper drops 0.9 of large models' deltas, and keeps their abilities.) With density 1 nothing is dropped:
    it is the soup, in low rank.

    Below 1 it works on entries: each layer is made dense, and the result, of full rank as a rule, is factored by an SVD
    (a minute for a layer of 4096 x 4096): to `rank`, or without one to as many singular values as are above rounding.
    The same seed and order of adapters give the same result; another order is another draw. An adapter of weight 0
    draws nothing.

    Raises what `soup` raises, and ConfigError for a density outside (0, 1].

    >>> from moalign.adapters import LowRank
    >>> one = Adapter({"q": LowRank(torch.ones(1, 6), torch.ones(1, 1), 1.0)}, ("q",))
    >>> drawn = dare([one], [1.0], density=0.5).layers["q"].delta()
    >>> sorted(set(drawn.round(decimals=4).flatten().tolist()))
    [0.0, 2.0]
    """
    share_of_entries(density)
    if density == 1:
        return soup(adapters, weights, rank)
    generator = torch.Generator().manual_seed(seed)

    def thinned(deltas: Float[Tensor, "k o i"], own: Float[Tensor, " k"]) -> Float[Tensor, "o i"]:
        kept = torch.rand(deltas.shape, generator=generator) < density
        return (own[:, None, None] * deltas * kept.to(deltas.device)).sum(0) / density

    return by_entries(checked(adapters, weights), thinned, rank)
