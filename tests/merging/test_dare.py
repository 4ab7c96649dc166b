"""DARE is the soup in expectation: by its masks, by many draws, and the soup itself at density 1."""

import math
from itertools import product

import pytest
import torch
from deltas import dense, drawn, of_rows, same_bits

from moalign.adapters import Adapter
from moalign.errors import AdapterError, ConfigError
from moalign.merging import dare, distance, soup

DRAWS = 400


def test_the_mean_over_draws_is_the_soup_and_the_spread_is_the_formulas() -> None:
    """Entry by entry: mean sum w D within 5 standard errors, variance (1/p - 1) sum (w D)^2 within a third."""
    adapters, weights, density = [drawn(1, layers="q"), drawn(2, 3, 0.5, layers="q")], [0.6, -0.4], 0.3
    draws = torch.stack([dense(dare(adapters, weights, density=density, seed=seed)) for seed in range(DRAWS)])
    variance = (1 / density - 1) * sum((w * dense(a)) ** 2 for a, w in zip(adapters, weights, strict=True))
    error = draws.mean(0) - dense(soup(adapters, weights))
    assert (error.abs() < 5 * (variance / DRAWS).sqrt()).all()
    assert (error.abs() > 0.01 * (variance / DRAWS).sqrt()).any()  # it was drawn at all
    assert ((draws.var(0) / variance - 1).abs() < 1 / 3).all()


def test_every_draw_is_one_of_the_masks_and_all_are_drawn() -> None:
    """Two adapters of two entries have 16 masks at density 1/2: each entry is dropped or doubled."""
    one, two = [1.0, -2.0], [4.0, 3.0]
    possible = {
        (round(0.75 * m * one[0] + 0.25 * a * two[0], 3), round(0.75 * n * one[1] + 0.25 * b * two[1], 3))
        for m, n, a, b in product([0.0, 2.0], repeat=4)
    }
    draws = [dense(dare([of_rows([one]), of_rows([two])], [0.75, 0.25], seed=seed))[0] for seed in range(150)]
    assert len(possible) == 16
    assert {tuple(round(value, 3) for value in draw.tolist()) for draw in draws} == possible


def test_nothing_dropped_is_the_soup_in_low_rank() -> None:
    adapters = [drawn(1), drawn(2, 3, 0.5)]
    found = dare(adapters, [0.5, 0.5], density=1.0)
    assert found.layers["q"].rank == 5
    assert same_bits(found, soup(adapters, [0.5, 0.5]))
    assert dare(adapters, [0.0, 1.0], density=1.0) is adapters[1]


def test_the_seed_decides() -> None:
    adapters = [drawn(1), drawn(2)]
    first, again, other = (dare(adapters, [0.5, 0.5], seed=seed) for seed in (1, 1, 2))
    assert same_bits(first, again)
    assert distance(first, other) > 0.1


def test_the_order_of_layers_within_an_adapter_does_not_matter() -> None:
    one = drawn(1)
    turned = Adapter(dict(reversed(one.layers.items())), one.target_modules)
    assert same_bits(dare([turned], [1.0]), dare([one], [1.0]))


def test_it_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    dare([drawn(1)], [1.0])
    assert torch.equal(torch.get_rng_state(), before)


def test_one_that_counts_nothing_draws_nothing() -> None:
    one, two = drawn(1), drawn(2)
    assert same_bits(dare([two, one], [0.0, 0.5]), dare([one], [0.5]))


def test_a_rank_is_the_best_cut_of_the_result() -> None:
    adapters = [drawn(1), drawn(2)]
    whole, cut = (dare(adapters, [0.5, 0.5], rank=rank) for rank in (None, 2))
    left = torch.linalg.svdvals(dense(whole))[2:].norm().item()
    assert (cut.layers["q"].rank, (dense(cut) - dense(whole)).norm().item()) == (2, pytest.approx(left, rel=1e-4))


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01, math.nan])
def test_an_impossible_density_is_refused(density: float) -> None:
    with pytest.raises(ConfigError, match="the share of entries to keep; expected above 0 and at most 1"):
        dare([drawn(1)], [1.0], density=density)


def test_other_bases_are_refused() -> None:
    with pytest.raises(AdapterError, match="different bases: layer 'q'"):
        dare([drawn(1), drawn(2, into=6)], [0.5, 0.5])
