"""Factors laid out side by side: where they lie, which are kept, and what rows multiply them by."""

import numpy as np
import pytest
import torch

from moalign.adapters import LowRank
from moalign.bank_layer import BankLayer, side_by_side
from moalign.bank_layout import Layout, Layouts


@pytest.fixture
def pair():
    """Two layers that read one input of five numbers: three adapters of rank 2, and of ranks 1, 3 and none."""
    generator = torch.Generator().manual_seed(0)

    def layer(out, ranks, scales):
        deltas = [
            LowRank(torch.randn(r, 5, generator=generator), torch.randn(out, r, generator=generator), scale)
            if r
            else None
            for r, scale in zip(ranks, scales, strict=True)
        ]
        return BankLayer(deltas, out, 5, torch.device("cpu")).requires_grad_(False)

    return layer(4, (2, 2, 2), (1.0, 3.0, 0.5)), layer(7, (1, 3, 0), (2.0, 2.0, 0.0))


def test_frozen_factors_move_into_the_stack(pair):
    """Columns are the factors' rows, layer by layer and adapter by adapter; nothing is held twice, or changes."""
    before = [layer.A.detach().clone() for layer in pair]
    stack = side_by_side(pair)
    assert torch.equal(stack, torch.cat([A.flatten(0, 1) for A in before]).T)
    assert stack.is_contiguous()
    for layer, A in zip(pair, before, strict=True):
        assert torch.equal(layer.A, A)
        assert layer.A.untyped_storage().data_ptr() == stack.untyped_storage().data_ptr()
    assert side_by_side(pair) is stack
    with torch.no_grad():
        pair[1].A[1, 0] = 9
    assert (stack[:, 9] == 9).all()  # 3 adapters of 2 columns, then the first adapter's 3


def test_factors_that_moved_away_are_stacked_anew(pair):
    """`double` gives each parameter memory of its own."""
    side_by_side(pair)
    for layer in pair:
        layer.double()
    stack = side_by_side(pair)
    assert stack.dtype == torch.float64
    assert torch.equal(stack, torch.cat([layer.A.flatten(0, 1) for layer in pair]).T)


def test_factors_in_training_stay_where_they_are(pair):
    """Gradients and optimizers have their layout; the stack is a copy, without gradients."""
    for layer in pair:
        layer.requires_grad_(True)
    stack = side_by_side(pair)
    assert not stack.requires_grad
    assert all(layer.A.is_contiguous() for layer in pair)
    with torch.no_grad():
        pair[0].A.zero_()
    assert stack[:, :6].any()


def test_factors_of_rows(pair):
    """Each number that a layer's first factors make is multiplied by its adapter's weight and scale.

    Rows (2, 0, 0.5) and (0, 0, 1) over adapters 0 and 2 with scales 1 and .5, rank 2: (2, 2, .25, .25) and
    (0, 0, .5, .5).
    """
    rows = np.array([[2, 0, 0.5], [0, 0, 1]], np.float32)
    found = Layout((0, 2)).factor(pair[0], rows)
    assert found.tolist() == [[2, 2, 0.25, 0.25], [0, 0, 0.5, 0.5]]
    assert found.dtype == torch.float32


def test_a_joint_is_the_layers_products(pair):
    """x times `down`, times factors, times each layer's `up`, is sum_k row[k] scale_k B_k A_k x for both layers."""
    x, row = torch.randn(1, 5, generator=torch.Generator().manual_seed(1)), np.array([[0.5, 0.0, -2.0]], np.float32)
    for active in ((0, 2), (0, 1, 2)):
        layout = Layout(active)
        joint = layout.joint(pair)
        space = layout.space(joint, 1)
        torch.mm(x, joint.down, out=space.hidden)
        for layer in pair:
            place, up = joint.places[layer]
            found = (space.parts[place] * layout.factor(layer, row)) @ up
            deltas = [layer.scales[k] * layer.B[k].T @ layer.A[k] for k in range(3)]
            torch.testing.assert_close(found, x @ sum(row[0, k].item() * deltas[k] for k in range(3)).T)
        assert layout.led_by(pair[0], pair) is layout.led_by(pair[0], pair)
        assert layout.space(joint, 1) is space
        assert layout.space(joint, 2).hidden.shape == (2, joint.down.shape[1])
        assert layout.space(joint, 4096) is not layout.space(joint, 4096), "long passes leave nothing behind"


def test_which_layouts_are_kept(pair):
    """Of eight adapters six or more are laid out as all eight; of smaller choices the last two are kept."""
    layouts = Layouts([parameter for layer in pair for parameter in layer.parameters()], 8, trainable=False)
    everyone = layouts(tuple(range(6)))
    assert everyone.active == tuple(range(8))
    first, second = layouts((0,)), layouts((1,))
    assert (first.active, layouts((0,)), layouts((1,))) == ((0,), first, second)
    third = layouts((0, 1, 2, 3, 4))
    assert third.active == (0, 1, 2, 3, 4)
    assert layouts((1,)) is second
    assert layouts((0,)) is not first, "of three small ones the one that was used longest ago has gone"
    assert layouts(tuple(range(8))) is everyone


def test_changed_weights_are_laid_out_anew(pair):
    """In place, by another precision, and with a NaN, which makes the layout unsound; in training nothing is kept."""
    parameters = [parameter for layer in pair for parameter in layer.parameters()]
    layouts = Layouts(parameters, 3, trainable=False)
    before = layouts((0,))
    side_by_side(pair)
    assert layouts((0,)) is before, "moving the first factors together changes nothing"
    with torch.no_grad():
        pair[0].B.mul_(2)
    changed = layouts((0,))
    assert changed is not before
    for layer in pair:
        layer.double()
    assert layouts((0,)) is not changed
    assert layouts((0,)).sound
    with torch.no_grad():
        pair[1].A[0, 0, 0] = torch.nan
    assert not layouts((0,)).sound
    training = Layouts(parameters, 3, trainable=True)
    assert training((0,)) is not training((0,))
