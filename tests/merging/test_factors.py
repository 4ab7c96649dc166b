"""The average of factors is the soup only where it must be, and elsewhere less the covariance of the factors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deltas import drawn, flat
from torch import Tensor

from moalign.adapters import Adapter, LowRank, write_adapter
from moalign.errors import AdapterError
from moalign.merging import factor_average, factor_error, soup


def same(found: Adapter, expected: Adapter) -> bool:
    return all(
        torch.allclose(found.layers[name].delta(), expected.layers[name].delta(), atol=1e-5) for name in expected.layers
    )


def with_factor(adapter: Adapter, factor: str, of: Adapter) -> Adapter:
    """The adapter, one factor of each layer replaced by another's."""
    layers = {
        name: LowRank(of.layers[name].A, layer.B, layer.scale)
        if factor == "A"
        else LowRank(layer.A, of.layers[name].B, layer.scale)
        for name, layer in adapter.layers.items()
    }
    return Adapter(layers, adapter.target_modules)


def test_a_layer_of_one_number_by_hand() -> None:
    """A = 1, 3 and B = 2, 4 at .5: soup (2 + 12) / 2 = 7, factors 2 * 3 = 6, less than it by 1/4 (4 - 2)(3 - 1) = 1."""
    one, two = (
        Adapter({"q": LowRank(torch.full((1, 1), a), torch.full((1, 1), b), 1.0)}, ("q",))
        for a, b in ((1.0, 2.0), (3.0, 4.0))
    )
    assert soup([one, two], [0.5, 0.5]).layers["q"].delta().item() == 7.0
    assert factor_average([one, two], [0.5, 0.5]).layers["q"].delta().item() == 6.0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_one_hot_average_is_that_adapter(place: int) -> None:
    adapters = [drawn(seed) for seed in (1, 2, 3)]
    found = factor_average(adapters, [float(number == place) for number in range(3)])
    for name, layer in adapters[place].layers.items():
        assert torch.equal(found.layers[name].A, layer.A)
        assert torch.equal(found.layers[name].B, layer.B)
        assert found.layers[name].scale == 2.0


@pytest.mark.parametrize("factor", ["A", "B"])
def test_with_one_factor_in_common_it_is_the_soup(factor: str) -> None:
    """For sum w = 1 alone: a common A is then averaged to itself. With another sum it is multiplied by it."""
    first = drawn(1)
    adapters = [first, *(with_factor(drawn(seed), factor, first) for seed in (2, 3))]
    weights = [0.5, 0.7, -0.2]
    assert same(factor_average(adapters, weights), soup(adapters, weights))
    double = [2 * weight for weight in weights]
    assert same(factor_average(adapters, double), soup(adapters, [2 * weight for weight in double]))


def test_elsewhere_it_is_the_soup_less_the_covariance_of_the_factors() -> None:
    """(sum w_i B_i)(sum w_j A_j) term by term, and the identity of the docstring, against factor_average."""
    adapters, weights = [drawn(seed) for seed in (1, 2, 3)], [0.5, 0.3, 0.2]
    found, exact = (merge(adapters, weights).layers["q"].delta() for merge in (factor_average, soup))
    A, B = ([getattr(adapter.layers["q"], factor) for adapter in adapters] for factor in "AB")
    pairs = [(i, j) for i in range(3) for j in range(3)]
    crossed = 2.0 * sum((weights[i] * weights[j] * B[i] @ A[j] for i, j in pairs), torch.zeros(5, 7))
    spread = sum((weights[i] * weights[j] * (B[i] - B[j]) @ (A[i] - A[j]) for i, j in pairs), torch.zeros(5, 7))
    assert torch.allclose(found, crossed, atol=1e-5)
    assert torch.allclose(found, exact - 2.0 * spread / 2, atol=1e-5)
    assert (found - exact).norm() > 0.5 * exact.norm()


def test_near_a_common_start_it_is_near_the_soup() -> None:
    """The error is of second order: a tenth of the way from the start, a hundredth of it."""
    start = drawn(1)

    def error(step: float) -> float:
        adapters = [
            Adapter(
                {
                    name: LowRank(layer.A + step * away.layers[name].A, layer.B + step * away.layers[name].B, 2.0)
                    for name, layer in start.layers.items()
                },
                start.target_modules,
            )
            for away in (drawn(2), drawn(3))
        ]
        found, exact = (merge(adapters, [0.4, 0.6]).layers["q"].delta() for merge in (factor_average, soup))
        return (found - exact).norm().item()

    assert error(0.1) / error(1.0) == pytest.approx(0.01, rel=1e-3)


def test_soup_factors_and_pefts_linear_are_three_things(
    llama: Any, random_adapter: Callable[..., Adapter], load_with_peft: Callable[..., Any], tmp_path: Path
) -> None:
    """PEFT's factors are weighted with sqrt(w s): sum_ij sqrt(w_i w_j) s B_i A_j, twice the average's at .5 and .5."""
    adapters = {name: random_adapter(llama, seed) for name, seed in (("a", 1), ("b", 2))}
    for name, adapter in adapters.items():
        write_adapter(adapter, tmp_path / name, "base")
    model = load_with_peft(llama, tmp_path / "a", adapter_name="a")
    model.load_adapter(tmp_path / "b", "b")
    model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "linear", combination_type="linear")
    layer = "model.layers.0.mlp.up_proj"
    linear = model.base_model.model.get_submodule(layer).get_delta_weight("linear")
    merged = list(adapters.values()), [0.5, 0.5]
    exact, average = (merge(*merged).layers[layer].delta() for merge in (soup, factor_average))
    assert torch.allclose(linear, 2 * average, atol=1e-5)

    def apart(one: Tensor, other: Tensor) -> float:
        return ((one - other).norm() / exact.norm()).item()

    assert min(apart(exact, average), apart(exact, linear), apart(average, linear)) > 0.4


def test_layer_names_stand_in_where_targets_differ() -> None:
    one, two = drawn(1), drawn(2)
    assert factor_average([one, two], [0.5, 0.5]).target_modules == ("q", "v")
    assert factor_average([one, Adapter(two.layers, "q|v")], [0.5, 0.5]).target_modules == ("q", "v")
    assert factor_average([Adapter(two.layers, "q|v")] * 2, [0.5, 0.5]).target_modules == "q|v"


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (drawn(2, rank=3), "in 'q' their rank is 2 and 3; merge their deltas"),
        (drawn(2, scale=0.5), "in 'q' their scale is 2 and 0.5; merge their deltas"),
        (drawn(2, layers=("q",)), "only one of them has 'v'; merge their deltas"),
    ],
)
def test_what_has_no_counterpart_is_refused(other: Adapter, line: str) -> None:
    with pytest.raises(AdapterError, match=f"adapters 0 and 2 cannot be averaged: {line}"):
        factor_average([drawn(1), drawn(3), other], [0.5, 0.25, 0.25])


def test_what_counts_nothing_need_not_compare() -> None:
    """Weight 0 leaves an adapter out, and the others keep their places in messages."""
    other, kept = drawn(2, rank=3), drawn(3)
    assert same(factor_average([drawn(1), other, kept], [0.5, 0.0, 0.5]), factor_average([drawn(1), kept], [0.5, 0.5]))
    with pytest.raises(AdapterError, match="adapters 1 and 2 cannot be averaged"):
        factor_average([drawn(1), other, kept], [0.0, 0.5, 0.5])


def test_the_error_is_the_distance_from_the_soup() -> None:
    """||average - soup||_F / ||soup||_F from dense deltas of all layers."""
    adapters, weights = [drawn(seed) for seed in (1, 2, 3)], [0.5, 0.3, 0.2]
    found, exact = (flat(merge(adapters, weights)) for merge in (factor_average, soup))
    assert factor_error(adapters, weights) == pytest.approx(((found - exact).norm() / exact.norm()).item(), rel=1e-6)
    assert factor_error(adapters, [0.0, 1.0, 0.0]) == pytest.approx(0.0, abs=1e-7)


def test_nothing_cannot_be_averaged() -> None:
    with pytest.raises(AdapterError, match="nothing to merge: expected at least one adapter"):
        factor_average([], [])
