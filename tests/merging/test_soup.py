"""The soup of adapters is the weighted sum of their deltas, and a cut soup is the best of its rank."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from moalign.adapters import Adapter, LowRank
from moalign.bank import AdapterBank
from moalign.merging import soup


def drawn(seed: int, rank: int, scale: float, *, layers: tuple[str, ...] = ("q", "v")) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    return Adapter(
        {
            name: LowRank(torch.randn(rank, 7, generator=generator), torch.randn(5, rank, generator=generator), scale)
            for name in layers
        },
        layers,
    )


def summed(adapters: list[Adapter], weights: list[float], layer: str) -> Tensor:
    return sum(
        (w * a.layers[layer].delta() for a, w in zip(adapters, weights, strict=True) if layer in a.layers),
        torch.zeros(5, 7),
    )


@pytest.mark.parametrize("weights", [[0.5, 0.5], [1.0, 0.0], [-0.5, 2.0]])
def test_the_deltas_add_up_whatever_rank_scale_and_sign(weights: list[float]) -> None:
    """Not so an average of factors: at (1/2, 1/2) that is a quarter of each delta, and cross terms."""
    adapters = [drawn(1, 2, 2.0), drawn(2, 3, 0.5)]
    found = soup(adapters, weights)
    for layer in ("q", "v"):
        assert torch.allclose(found.layers[layer].delta(), summed(adapters, weights, layer), atol=1e-5)
        assert found.layers[layer].rank == 5


def test_a_layer_that_one_of_them_lacks_counts_as_zero() -> None:
    adapters = [drawn(1, 2, 2.0), drawn(2, 3, 0.5, layers=("q",))]
    found = soup(adapters, [0.25, 0.75])
    assert torch.allclose(found.layers["v"].delta(), 0.25 * adapters[0].layers["v"].delta(), atol=1e-6)


def test_a_cut_soup_is_the_best_approximation_of_its_rank() -> None:
    """Eckart-Young: what is left over are the singular values beyond the rank, sqrt(sum_{i > r} s_i^2)."""
    adapters, weights = [drawn(1, 2, 2.0), drawn(2, 2, 1.0)], [0.6, 0.4]
    found = soup(adapters, weights, rank=2).layers["q"]
    exact = summed(adapters, weights, "q")
    left = torch.linalg.svdvals(exact)[2:].square().sum().sqrt()
    assert found.rank == 2
    assert torch.linalg.norm(found.delta() - exact) == pytest.approx(left.item(), rel=1e-4)


def test_one_adapter_cut_to_its_own_rank_is_itself() -> None:
    adapter = drawn(3, 2, 2.0)
    found = soup([adapter], [1.0], rank=2)
    assert torch.allclose(found.layers["q"].delta(), adapter.layers["q"].delta(), atol=1e-5)


@pytest.mark.parametrize("rank", [None, 2])
def test_the_scale_is_carried_and_the_delta_stays(rank: int | None) -> None:
    """An adapter that goes on training from a soup has the scale of one that starts anew: alpha / rank."""
    adapters = [drawn(1, 2, 2.0), drawn(2, 2, 1.0)]
    plain, scaled = (soup(adapters, [0.6, 0.4], rank, scale).layers["q"] for scale in (1.0, 4.0))
    assert (plain.scale, scaled.scale) == (1.0, 4.0)
    assert torch.allclose(scaled.delta(), plain.delta(), atol=1e-6)


def test_the_soup_is_what_the_bank_mixes(llama: Any, random_adapter: Callable[..., Adapter], ids: Tensor) -> None:
    """A merged adapter and a row over its parts are two ways of writing one policy."""
    adapters = {name: random_adapter(llama, seed, rank=seed) for name, seed in (("a", 1), ("b", 2))}
    merged = soup(list(adapters.values()), [0.3, 0.7])
    with AdapterBank(llama, {**adapters, "soup": merged}) as bank, torch.no_grad():
        with bank.rows([[0.3, 0.7, 0.0]]):
            mixed = llama(input_ids=ids).logits
        with bank.rows([[0.0, 0.0, 1.0]]):
            assert torch.allclose(llama(input_ids=ids).logits, mixed, atol=1e-4)
