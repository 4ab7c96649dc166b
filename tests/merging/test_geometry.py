"""Lengths, angles and distances in low rank are those of the dense deltas, and right where deltas are near."""

import math

import pytest
import torch
from deltas import dense, drawn, flat, of_rows

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError
from moalign.merging import distance, soup
from moalign.merging.geometry import angle, cores


@pytest.mark.parametrize("ranks", [(2, 3), (1, 1), (4, 6)])
def test_cores_have_the_inner_products_of_the_deltas(ranks: tuple[int, int]) -> None:
    """<D_1, D_2> = sum of products of entries = s_1 s_2 sum((B_1^T B_2) * (A_1 A_2^T)); ranks above a side too."""
    one, two = (
        drawn(seed, rank, scale).layers["q"] for seed, rank, scale in zip((1, 2), ranks, (2.0, -0.5), strict=True)
    )
    first, second = cores([one, two])
    left, right = one.B.double().T @ two.B.double(), one.A.double() @ two.A.double().T
    assert (first * second).sum().item() == pytest.approx(one.scale * two.scale * (left * right).sum().item())
    for layer, core in ((one, first), (two, second)):
        assert core.norm().item() == pytest.approx(layer.delta().norm().item(), rel=1e-5)


def test_the_angle_is_the_arc_cosine_of_dense_deltas() -> None:
    one, two = drawn(1, 2, 2.0), drawn(2, 3, -0.5)
    cosine = (dense(one) * dense(two)).sum() / (dense(one).norm() * dense(two).norm())
    assert angle(one.layers["q"], two.layers["q"]) == pytest.approx(math.acos(cosine), abs=1e-9)


@pytest.mark.parametrize("turned", [1e-3, 1e-7, 1e-12])
def test_a_small_angle_keeps_its_digits(turned: float) -> None:
    """[1, 0] and [1, tan e] are e apart; arccos(1 - e^2/2) is 0 below e = 1e-8. In double precision factors."""
    one, two = (LowRank(torch.tensor([[1.0, y]], dtype=torch.float64), torch.ones(1, 1), 3.0) for y in (0.0, turned))
    assert angle(one, two) == pytest.approx(math.atan(turned), rel=1e-3, abs=1e-15)


def test_opposite_and_zero_deltas() -> None:
    east = of_rows([[1.0, 0.0]]).layers["q"]
    assert angle(east, LowRank(east.A, -east.B, 5.0)) == pytest.approx(math.pi)
    assert angle(east, east) == 0
    assert angle(east, of_rows([[0.0, 0.0]]).layers["q"]) is None


def test_the_distance_is_that_of_all_dense_entries() -> None:
    one, two = drawn(1, 2, 2.0), drawn(2, 3, 0.5)
    expected = (flat(one) - flat(two)).norm() / flat(two).norm()
    assert distance(one, two) == pytest.approx(expected.item(), rel=1e-9)


def test_a_tiny_distance_keeps_its_digits() -> None:
    """1 + 1e-9 of an adapter is 1e-9 away; from squared lengths that would be 0 or 1e-8."""
    one = drawn(1)
    near = Adapter({name: LowRank(layer.A, layer.B, 2.0 * (1 + 1e-9)) for name, layer in one.layers.items()}, ("q",))
    assert distance(near, one) == pytest.approx(1e-9, rel=1e-4)
    assert distance(one, one) < 1e-14
    assert distance(soup([one, one], [0.25, 0.75]), one) < 1e-6  # other factors, the same delta


def test_a_layer_that_one_lacks_counts_as_zero() -> None:
    both, lacking = drawn(1), Adapter({"q": drawn(1).layers["q"]}, ("q",))
    assert distance(lacking, both) == pytest.approx((dense(both, "v").norm() / flat(both).norm()).item())
    assert distance(both, lacking) == pytest.approx((dense(both, "v").norm() / dense(both).norm()).item())


def test_zero_is_at_zero_and_far_from_everything_else() -> None:
    zero, one = of_rows([[0.0, 0.0]]), of_rows([[1.0, 0.0]])
    assert (distance(zero, zero), distance(zero, one), distance(one, zero)) == (0.0, 1.0, math.inf)


def test_other_bases_have_no_distance() -> None:
    with pytest.raises(AdapterError, match="different bases: layer 'q'"):
        distance(drawn(1), drawn(2, into=6))
