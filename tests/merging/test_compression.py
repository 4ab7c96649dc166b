"""A compressed adapter is the best of its rank, and its error is what is lost."""

import math

import pytest
import torch
from deltas import dense, drawn, flat, of_rows, same_bits

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError, ConfigError
from moalign.merging import compress, distance, soup, uniform
from moalign.merging.compression import factorised


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", [2.0, -0.5])
def test_it_is_the_dense_svd_cut(rank: int, scale: float) -> None:
    """Eckart-Young, derived again from dense deltas: U_r S_r V_r^T, and sqrt(sum_{i>r} s_i^2) / sqrt(sum s_i^2)."""
    adapter = drawn(1, 5, scale)
    found = compress(adapter, rank)
    lost = whole = 0.0
    for name in adapter.layers:
        U, S, Vh = torch.linalg.svd(dense(adapter, name), full_matrices=False)
        assert torch.allclose(dense(found.adapter, name), U[:, :rank] * S[:rank] @ Vh[:rank], atol=1e-5)
        assert found.layers[name] == pytest.approx((S[rank:].norm() / S.norm()).item(), rel=1e-6)
        assert (found.adapter.layers[name].rank, found.adapter.layers[name].scale) == (rank, abs(scale))
        lost, whole = lost + S[rank:].square().sum().item(), whole + S.square().sum().item()
    assert found.error == pytest.approx(math.sqrt(lost / whole), rel=1e-6)
    assert found.error == pytest.approx(distance(found.adapter, adapter), rel=1e-5)


def test_what_has_the_rank_already_comes_back_bit_for_bit() -> None:
    adapter = drawn(1, 2)
    for rank in (2, 3, 100):
        found = compress(adapter, rank)
        assert same_bits(found.adapter, adapter)
        assert (found.error, found.layers) == (0.0, {"q": 0.0, "v": 0.0})


def test_a_layer_that_is_not_cut_still_counts_in_the_whole() -> None:
    """[3, 0; 0, 4] cut to rank 1 loses 3 of 5; beside an uncut layer of length 12 it is 3 of 13."""
    mixed = Adapter(
        {"q": of_rows([[3.0, 0.0], [0.0, 4.0]]).layers["q"], "v": of_rows([[12.0, 0.0]]).layers["q"]}, ("q", "v")
    )
    found = compress(mixed, 1)
    assert found.layers == pytest.approx({"q": 3 / 5, "v": 0.0})
    assert found.error == pytest.approx(3 / 13)


def test_no_rank_is_larger_than_the_layer() -> None:
    """Rank 20 factors of a 5 x 7 layer: at rank 10, five are exact."""
    adapter = drawn(1, 20)
    found = compress(adapter, 10)
    assert found.adapter.layers["q"].rank == 5
    assert found.error == 0
    assert distance(found.adapter, adapter) < 1e-6


def test_nothing_lost_is_reported_as_nothing() -> None:
    """An adapter with itself has twice the rank and the same delta: in float32 the leftovers would be 1e-7."""
    adapter = drawn(1, 2)
    found = compress(soup([adapter, adapter], [0.5, 0.5]), 2)
    assert found.error < 1e-12
    assert distance(found.adapter, adapter) < 1e-6


def test_a_zero_delta_loses_nothing() -> None:
    zero = Adapter({"q": LowRank(torch.randn(3, 7), torch.zeros(5, 3), 2.0)}, ("q",))
    found = compress(zero, 1)
    assert (found.error, found.layers) == (0.0, {"q": 0.0})
    assert not dense(found.adapter).any()
    silent = Adapter({"q": LowRank(torch.randn(3, 7), torch.randn(5, 3), 0.0)}, ("q",))
    assert not dense(compress(silent, 1).adapter).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_type_stays(dtype: torch.dtype) -> None:
    """Computed in double whatever the type, so that halves lose only what storing them does."""
    adapter = drawn(1, 5, dtype=dtype)
    found = compress(adapter, 3)
    assert {layer.A.dtype for layer in found.adapter.layers.values()} == {dtype}
    assert {layer.B.dtype for layer in found.adapter.layers.values()} == {dtype}
    assert distance(found.adapter, adapter) == pytest.approx(found.error, rel=10 * torch.finfo(dtype).eps)


def test_factors_may_be_views_that_train() -> None:
    A, B = torch.randn(14, 5, requires_grad=True)[::2].T, torch.randn(5, 5, requires_grad=True).T
    found = compress(Adapter({"q": LowRank(A, B, 1.0)}, ("q",)), 2).adapter.layers["q"]
    assert not found.A.requires_grad
    assert found.A.is_contiguous()
    U, S, Vh = torch.linalg.svd((B @ A).detach())
    assert torch.allclose(found.delta(), (U[:, :2] * S[:2]) @ Vh[:2], atol=1e-5)


def test_a_diverged_adapter_is_refused() -> None:
    one = drawn(1, 5)
    one.layers["v"].B[0, 0] = math.nan
    with pytest.raises(AdapterError, match="layer 'v' holds a number that is NaN or infinite"):
        compress(one, 2)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank is 0; expected at least 1"):
        compress(drawn(1), 0)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
def test_a_dense_delta_is_factored_to_rounding_or_to_a_rank(shape: tuple[int, int]) -> None:
    delta = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, cut = factorised(delta, None, torch.float32), factorised(delta, 2, torch.float32)
    assert (whole.rank, cut.rank, whole.A.dtype) == (5, 2, torch.float32)
    assert torch.allclose(whole.delta().double(), delta, atol=1e-6)
    assert (cut.delta() - delta).norm().item() == pytest.approx(torch.linalg.svdvals(delta)[2:].norm().item(), rel=1e-5)
    rank_two = delta[:, :2] @ delta[:2, :]
    assert factorised(rank_two, None, torch.float32).rank == 2
    assert factorised(0 * delta, None, torch.float32).rank == 1


def test_uniform_has_one_rank_one_scale_and_the_same_deltas() -> None:
    one, two = drawn(1, 2, 2.0), drawn(2, 3, 0.75)
    mixed = Adapter({"q": one.layers["q"], "v": two.layers["v"]}, ("q", "v"))
    found = uniform(mixed, 4)
    assert {(layer.rank, layer.scale) for layer in found.layers.values()} == {(4, 1.0)}
    assert torch.allclose(flat(found), flat(mixed), atol=1e-6)


def test_uniform_leaves_the_bits_of_equal_scales() -> None:
    adapter = drawn(1, 2, 1.7)
    found = uniform(adapter, 3)
    assert torch.equal(found.layers["q"].A[:2], adapter.layers["q"].A)
    assert torch.equal(found.layers["q"].B[:, :2], adapter.layers["q"].B)
    assert not found.layers["q"].A[2:].any()
    assert same_bits(uniform(adapter, 2), adapter)


def test_uniform_cuts_nothing() -> None:
    with pytest.raises(AdapterError, match="layer 'q' has rank 3, more than 2; compress the adapter first"):
        uniform(drawn(1, 3), 2)
