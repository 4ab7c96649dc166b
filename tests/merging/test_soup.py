"""The soup of adapters is the weighted sum of their deltas, and a cut soup is the best of its rank."""

import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from deltas import dense, drawn, flat, summed
from torch import Tensor

from moalign.adapters import Adapter, write_adapter
from moalign.bank import AdapterBank
from moalign.errors import AdapterError, ConfigError
from moalign.merging import soup


@pytest.mark.parametrize("weights", [[0.5, 0.5], [3.0, 0.25], [-0.5, 2.0]])
def test_the_deltas_add_up_whatever_rank_scale_and_sign(weights: list[float]) -> None:
    """Not so an average of factors: at (1/2, 1/2) that is a quarter of each delta, and cross terms."""
    adapters = [drawn(1, 2, 2.0), drawn(2, 3, 0.5)]
    found = soup(adapters, weights)
    for layer in ("q", "v"):
        assert torch.allclose(dense(found, layer), summed(adapters, weights, layer), atol=1e-5)
        assert found.layers[layer].rank == 5


def test_one_that_counts_nothing_adds_no_rank_and_no_layer() -> None:
    adapters = [drawn(1, 2), drawn(2, 3, layers=("k",)), drawn(3, 4)]
    found = soup(adapters, [0.5, 0.0, 0.5])
    assert {name: layer.rank for name, layer in found.layers.items()} == {"q": 6, "v": 6}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_lone_weight_of_one_is_that_adapter(place: int) -> None:
    """Bit for bit, with its own scale; asked for a rank or a scale, it is written anew."""
    adapters = [drawn(seed, rank, 2.0) for seed, rank in ((1, 2), (2, 3), (3, 4))]
    weights = [float(number == place) for number in range(3)]
    assert soup(adapters, weights) is adapters[place]
    scaled = soup(adapters, weights, scale=1.0)
    assert scaled.layers["q"].scale == 1.0
    assert torch.allclose(dense(scaled), dense(adapters[place]), atol=1e-5)


def test_a_negative_weight_unlearns() -> None:
    """Task arithmetic: what was added is taken away again, (D_1 + D_2) - D_2 = D_1."""
    one, two = drawn(1), drawn(2)
    assert torch.allclose(dense(soup([soup([one, two], [1.0, 1.0]), two], [1.0, -1.0])), dense(one), atol=1e-5)


@pytest.mark.parametrize("rank", [None, 2])
def test_the_order_of_adapters_does_not_matter(rank: int | None) -> None:
    adapters, weights = [drawn(1, 2), drawn(2, 3, 0.5), drawn(3, 1, layers=("v",))], [0.5, -0.2, 0.7]
    expected = soup(adapters, weights, rank)
    for order in permutations(range(3)):
        found = soup([adapters[k] for k in order], [weights[k] for k in order], rank)
        assert torch.allclose(flat(found), flat(expected), atol=1e-5)


def test_all_weights_zero_are_no_change() -> None:
    found = soup([drawn(1), drawn(2)], [0.0, 0.0])
    assert list(found.layers) == ["q", "v"]
    assert not flat(found).any()


def test_the_soup_is_pefts_cat_and_cut_its_svd(
    llama: Any, random_adapter: Callable[..., Adapter], load_with_peft: Callable[..., Any], tmp_path: Path
) -> None:
    """PEFT's two exact kinds, its own code: concatenation, and the SVD of the dense delta."""
    adapters = {name: random_adapter(llama, seed) for name, seed in (("a", 1), ("b", 2))}
    for name, adapter in adapters.items():
        write_adapter(adapter, tmp_path / name, "base")
    model = load_with_peft(llama, tmp_path / "a", adapter_name="a")
    model.load_adapter(tmp_path / "b", "b")
    for kind, options in {"cat": {}, "svd": {"svd_rank": 3}}.items():
        model.add_weighted_adapter(["a", "b"], [0.3, 0.7], kind, combination_type=kind, **options)
        found = soup(list(adapters.values()), [0.3, 0.7], options.get("svd_rank"))
        for name, layer in found.layers.items():
            theirs = model.base_model.model.get_submodule(name).get_delta_weight(kind)
            assert torch.allclose(layer.delta(), theirs, atol=1e-5), (kind, name)


def test_a_layer_that_one_of_them_lacks_counts_as_zero() -> None:
    adapters = [drawn(1, 2, 2.0), drawn(2, 3, 0.5, layers=("q",))]
    found = soup(adapters, [0.25, 0.75])
    assert torch.allclose(dense(found, "v"), 0.25 * dense(adapters[0], "v"), atol=1e-6)


def test_a_cut_soup_is_the_best_approximation_of_its_rank() -> None:
    """Eckart-Young: what is left over are the singular values beyond the rank, sqrt(sum_{i > r} s_i^2)."""
    adapters, weights = [drawn(1, 2, 2.0), drawn(2, 2, 1.0)], [0.6, 0.4]
    found = soup(adapters, weights, rank=2).layers["q"]
    exact = summed(adapters, weights)
    left = torch.linalg.svdvals(exact)[2:].square().sum().sqrt()
    assert found.rank == 2
    assert (found.delta() - exact).norm() == pytest.approx(left.item(), rel=1e-4)


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


@pytest.mark.parametrize(
    ("adapters", "weights", "line"),
    [
        ([], [], "nothing to merge: expected at least one adapter"),
        ([drawn(1)], [0.5, 0.5], "2 weights for 1 adapters; expected one weight for each"),
        ([drawn(1), drawn(2)], [0.5, math.nan], "the weight of adapter 1 is nan; expected a finite number"),
        ([drawn(1), drawn(2)], [-math.inf, 1.0], "the weight of adapter 0 is -inf; expected a finite number"),
        (
            [drawn(1, layers=("k",)), drawn(2), drawn(3, into=6)],
            [1.0, 1.0, 1.0],
            "adapters 1 and 2 belong to different bases: layer 'q' has the shape 5 x 7 in one and 5 x 6 in the other",
        ),
        ([drawn(1), drawn(2, out=4)], [1.0, 0.0], "adapters 0 and 1 belong to different bases: layer 'q'"),
        (
            [drawn(1), Adapter(drawn(2).layers, ("q", "v"), fan_in_fan_out=True)],
            [0.5, 0.5],
            "adapters 0 and 1 belong to different bases: .*fan_in_fan_out",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(adapters: list[Adapter], weights: list[float], line: str) -> None:
    with pytest.raises(AdapterError, match=line):
        soup(adapters, weights)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rank": 0}, "rank is 0; expected at least 1"),
        ({"scale": 0.0}, "scale is 0; expected a number above 0"),
        ({"scale": math.nan}, "scale is nan; expected a number above 0"),
    ],
)
def test_an_impossible_setting_is_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        soup([drawn(1)], [1.0], **options)
