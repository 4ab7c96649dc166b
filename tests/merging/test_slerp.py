"""Slerp follows the arc: the formula on dense deltas, equal lengths kept, and the soup where there is no arc."""

import math

import pytest
import torch
from deltas import dense, drawn, of_rows
from torch import Tensor

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError
from moalign.merging import slerp, soup


def on_the_arc(t: float, one: Tensor, two: Tensor) -> Tensor:
    """The usual formula on whole weights: the angle of the unit vectors, applied to the vectors as they are."""
    u, v = one / one.norm(), two / two.norm()
    omega = torch.arccos((u * v).sum())
    return (torch.sin((1 - t) * omega) * one + torch.sin(t * omega) * two) / torch.sin(omega)


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
def test_it_is_the_dense_formula_layer_by_layer(t: float) -> None:
    one, two = drawn(1, 2, 2.0), drawn(2, 3, -0.5)
    found = slerp([one, two], [1 - t, t])
    for layer in ("q", "v"):
        assert torch.allclose(dense(found, layer), on_the_arc(t, dense(one, layer), dense(two, layer)), atol=1e-5)
        assert found.layers[layer].rank == 5


def test_equal_lengths_stay_and_the_angle_grows_evenly() -> None:
    """A quarter circle: at the share t the point is [cos(t pi/2), sin(t pi/2)]; the soup's middle is shorter."""
    ends = [of_rows([[1.0, 0.0]]), of_rows([[0.0, 1.0]])]
    for t in (0.25, 0.5, 0.75):
        expected = torch.tensor([[math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)]], dtype=torch.float64)
        assert torch.allclose(dense(slerp(ends, [1 - t, t])), expected, atol=1e-6)
    assert dense(soup(ends, [0.5, 0.5])).norm().item() == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize("place", [0, 1])
def test_the_ends_are_the_adapters(place: int) -> None:
    ends = [drawn(1, 2), drawn(2, 3)]
    assert slerp(ends, [1.0 - place, float(place)]) is ends[place]


def test_it_does_not_matter_which_end_comes_first() -> None:
    one, two = drawn(1, 2), drawn(2, 3)
    assert torch.allclose(dense(slerp([one, two], [0.3, 0.7])), dense(slerp([two, one], [0.7, 0.3])), atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 3.0, -2.0])
def test_one_line_has_no_arc_and_is_mixed_straight(factor: float) -> None:
    """With itself it is itself; with the opposite, where every arc leads there, the soup."""
    one = drawn(1)
    other = Adapter({name: LowRank(layer.A, factor * layer.B, 2.0) for name, layer in one.layers.items()}, ("q", "v"))
    assert torch.allclose(dense(slerp([one, other], [0.3, 0.7])), (0.3 + 0.7 * factor) * dense(one), atol=1e-5)


def test_the_straight_line_meets_the_arc() -> None:
    """Either side of 0.001 radians from parallel, the coefficients are the same within 1e-6."""
    east = of_rows([[1.0, 0.0]])
    for turned in (0.9e-3, 1.1e-3):
        found = slerp([east, of_rows([[math.cos(turned), math.sin(turned)]])], [0.25, 0.75])
        expected = torch.tensor([[math.cos(0.75 * turned), math.sin(0.75 * turned)]], dtype=torch.float64)
        assert torch.allclose(dense(found), expected, atol=1e-6, rtol=0)


def test_a_zero_or_missing_layer_is_mixed_straight() -> None:
    one, lacking = drawn(1), Adapter({"q": drawn(2).layers["q"]}, ("q",))
    assert torch.allclose(dense(slerp([one, lacking], [0.25, 0.75]), "v"), 0.25 * dense(one, "v"), atol=1e-6)
    assert torch.allclose(dense(slerp([lacking, one], [0.25, 0.75]), "v"), 0.75 * dense(one, "v"), atol=1e-6)
    zero = Adapter({"q": LowRank(torch.ones(2, 7), torch.zeros(5, 2), 1.0)}, ("q",))
    assert torch.allclose(dense(slerp([lacking, zero], [0.25, 0.75])), 0.25 * dense(lacking), atol=1e-6)


@pytest.mark.parametrize(
    ("count", "weights", "line"),
    [
        (3, [0.2, 0.3, 0.5], "slerp takes two adapters and 3 came; the soup, ties and dare take any number"),
        (1, [1.0], "slerp takes two adapters and 1 came"),
        (2, [0.5, 0.6], r"weights \[0.5, 0.6\] are no place between two adapters; expected shares that sum to 1"),
        (2, [-0.5, 1.5], "no place between two adapters"),
        (2, [0.5, math.nan], "the weight of adapter 1 is nan"),
    ],
)
def test_what_is_no_place_on_an_arc_is_refused(count: int, weights: list[float], line: str) -> None:
    with pytest.raises(AdapterError, match=line):
        slerp([drawn(seed) for seed in range(count)], weights)


def test_other_bases_are_refused() -> None:
    with pytest.raises(AdapterError, match="different bases: layer 'q'"):
        slerp([drawn(1), drawn(2, into=6)], [0.5, 0.5])
