"""Masked regression: what is not labelled neither costs nor moves anything."""

import math

import torch

from moalign.losses.regression import masked_squared_errors

MISSING = math.nan


def test_known_numbers() -> None:
    """(1 - 3)^2 = 4 and (2 + 1)^2 = 9; the two missing labels cost 0, so the mean over labels is 13 / 2."""
    predicted = torch.tensor([[1.0, 5.0], [7.0, 2.0]])
    labels = torch.tensor([[3.0, MISSING], [MISSING, -1.0]])
    errors = masked_squared_errors(predicted, labels)
    assert errors.tolist() == [[4.0, 0.0], [0.0, 9.0]]
    assert (errors.sum() / (~labels.isnan()).sum()).item() == 6.5


def test_the_gradient_is_that_of_differences() -> None:
    """Central differences of the mean over the labels that there are; at a missing label exactly 0, and never NaN."""
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    labels[torch.rand(7, 3, generator=generator) < 0.4] = MISSING
    count = (~labels.isnan()).sum()
    assert 0 < count < labels.numel()

    def loss(at: torch.Tensor) -> torch.Tensor:
        return masked_squared_errors(at, labels).sum() / count

    (found,) = torch.autograd.grad(loss(predicted), predicted)
    for i, j in torch.cartesian_prod(torch.arange(7), torch.arange(3)).tolist():
        step = torch.zeros_like(predicted)
        step[i, j] = 1e-6
        expected = (loss(predicted + step) - loss(predicted - step)).item() / 2e-6
        assert abs(found[i, j].item() - expected) < 1e-8
    assert found[labels.isnan()].abs().max().item() == 0.0


def test_nothing_labelled_is_nothing() -> None:
    """No label at all gives zeros with a gradient of zero; no rows give no errors."""
    predicted = torch.ones(2, 2, requires_grad=True)
    errors = masked_squared_errors(predicted, torch.full((2, 2), MISSING))
    errors.sum().backward()
    assert errors.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert predicted.grad is not None
    assert predicted.grad.abs().max().item() == 0.0
    assert masked_squared_errors(torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0, 2)


def test_a_prediction_that_is_not_finite_shows() -> None:
    """Where there is a label it is NaN; where there is none it must not spoil the rest."""
    predicted = torch.tensor([[MISSING, MISSING]])
    found = masked_squared_errors(predicted, torch.tensor([[1.0, MISSING]]))
    assert found[0, 0].isnan()
    assert found[0, 1].item() == 0.0
