"""Extrapolation against the formulas of ExPO and of Bone soups, on dense deltas."""

import math

import pytest
import torch
from deltas import dense, drawn, summed

from moalign.errors import AdapterError, ConfigError
from moalign.merging import extrapolate, soup


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.5])
def test_from_the_base_it_is_so_many_times_the_soup(strength: float) -> None:
    """theta = k (base + D) + (1 - k) base = base + k D."""
    adapters, weights = [drawn(1), drawn(2, 3)], [0.3, 0.7]
    found = dense(extrapolate(adapters, weights, strength=strength))
    assert torch.allclose(found, strength * summed(adapters, weights), atol=1e-5)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_it_is_expo_for_one_adapter_and_its_start(alpha: float) -> None:
    """theta_1 + alpha (theta_1 - theta_0), alpha = k - 1."""
    one, start = drawn(1), drawn(2, 3)
    found = dense(extrapolate([one], [1.0], strength=1 + alpha, start=start))
    assert torch.allclose(found, dense(one) + alpha * (dense(one) - dense(start)), atol=1e-5)


@pytest.mark.parametrize("a", [0.1, 0.5])
def test_with_k_of_bone_soups_the_soup_lies_between(a: float) -> None:
    """k = 1 / (1 - a): a parts of the start and 1 - a of the result are the soup again."""
    adapters, weights, start = [drawn(1), drawn(2)], [0.4, 0.6], drawn(3)
    found = extrapolate(adapters, weights, strength=1 / (1 - a), start=start)
    assert torch.allclose(a * dense(start) + (1 - a) * dense(found), summed(adapters, weights), atol=1e-5)


def test_one_is_the_soup_and_zero_the_start() -> None:
    adapters, start = [drawn(1), drawn(2)], drawn(3)
    assert torch.equal(dense(extrapolate(adapters, [0.4, 0.6], start=start)), dense(soup(adapters, [0.4, 0.6])))
    assert extrapolate(adapters, [0.0, 1.0]) is adapters[1]
    assert extrapolate(adapters, [0.4, 0.6], strength=0.0, start=start) is start


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="strength is nan; expected a finite number"):
        extrapolate([drawn(1)], [1.0], strength=math.nan)
    with pytest.raises(AdapterError, match="2 weights for 1 adapters; expected one weight for each"):
        extrapolate([drawn(1)], [0.5, 0.5], strength=2.0)
    with pytest.raises(AdapterError, match="different bases: layer 'q'"):
        extrapolate([drawn(1)], [1.0], strength=2.0, start=drawn(2, into=6))
