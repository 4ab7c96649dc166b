"""TIES entry by entry: worked by hand, written out in loops, and where it must agree with something else."""

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from deltas import dense, drawn, of_rows
from torch import Tensor

from moalign.adapters import Adapter
from moalign.errors import AdapterError, ConfigError
from moalign.merging import distance, soup, ties
from moalign.merging.ties import elected, trimmed


def in_loops(deltas: list[Tensor], weights: list[float], density: float) -> Tensor:
    """Algorithm 1 of the paper for one layer, one number after the other."""
    size = deltas[0].numel()
    kept = []
    for delta in deltas:
        order = sorted(range(size), key=lambda place, delta=delta: -abs(delta.flatten()[place].item()))
        largest = set(order[: round(density * size)])
        kept.append([delta.flatten()[place].item() if place in largest else 0.0 for place in range(size)])
    result = []
    for place in range(size):
        values = [weight * row[place] for weight, row in zip(weights, kept, strict=True)]
        positive = sum(values) > 0
        agreeing = [k for k, value in enumerate(values) if value and (value > 0) == positive]
        share = sum(weights[k] for k in agreeing)
        result.append(sum(values[k] for k in agreeing) / share if agreeing else 0.0)
    return torch.tensor(result, dtype=torch.float64).reshape(deltas[0].shape)


def test_by_hand() -> None:
    """Density 1/2 keeps [4, ., -3, .] and [-6, 3, ., .]; signs -, +, -, none; equal weights: [-6, 3, -3, 0].

    With weights (.7, .3) the first entry is 2.8 - 1.8 > 0, and the second adapter is outvoted: [4, 3, -3, 0].
    """
    both = [of_rows([[4.0, 1.0, -3.0, 2.0]]), of_rows([[-6.0, 3.0, 1.0, 2.0]])]
    for weights, expected in (([0.5, 0.5], [-6.0, 3.0, -3.0, 0.0]), ([0.7, 0.3], [4.0, 3.0, -3.0, 0.0])):
        found = dense(ties(both, weights, density=0.5))
        assert torch.allclose(found, torch.tensor([expected], dtype=torch.float64), atol=1e-5)


def test_all_agree_in_a_mean_by_hand() -> None:
    """[4, 1] and [2, -3] undimmed: + takes (4 + 2) / 2 = 3, - takes -3 alone; lambda 2 doubles."""
    both = [of_rows([[4.0, 1.0]]), of_rows([[2.0, -3.0]])]
    for strength in (1.0, 2.0):
        found = dense(ties(both, [0.5, 0.5], density=1.0, strength=strength))
        assert torch.allclose(found, strength * torch.tensor([[3.0, -3.0]], dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("weights", [[1 / 3, 1 / 3, 1 / 3], [0.6, 0.1, 0.3]])
def test_it_is_the_papers_algorithm(density: float, weights: list[float]) -> None:
    adapters = [drawn(seed, 3) for seed in (1, 2, 3)]
    found = ties(adapters, weights, density=density)
    for layer in ("q", "v"):
        expected = in_loops([dense(adapter, layer) for adapter in adapters], weights, density)
        assert torch.allclose(dense(found, layer), expected, atol=1e-5)


def test_only_proportions_of_weights_count() -> None:
    adapters = [drawn(1), drawn(2)]
    assert distance(ties(adapters, [6.0, 2.0]), ties(adapters, [0.75, 0.25])) < 1e-6


def test_copies_undimmed_are_the_adapter_and_one_alone_its_bits() -> None:
    one, other = drawn(1), drawn(2)
    found = ties([one] * 3, [0.2, 0.3, 0.5], density=1.0)
    assert distance(found, one) < 1e-6
    assert found.layers["q"].rank == 2  # and its rank, not that of the layer
    assert ties([one, other], [1.0, 0.0], density=1.0) is one
    assert distance(ties([one, other], [0.0, -0.5], density=1.0), soup([other], [-1.0])) < 1e-6
    trimmed_alone = ties([one, other], [1.0, 0.0], density=0.2)
    assert torch.allclose(dense(trimmed_alone), trimmed(dense(one)[None], 0.2)[0], atol=1e-5)


def test_with_equal_signs_everywhere_it_is_the_mean() -> None:
    """No conflict and no trimming: sum w D / sum w, the soup."""
    positive = [of_rows([[1.0, 2.0], [3.0, 4.0]]), of_rows([[4.0, 1.0], [1.0, 1.0]])]
    assert distance(ties(positive, [0.3, 0.7], density=1.0), soup(positive, [0.3, 0.7])) < 1e-6


def test_a_negative_weight_turns_a_delta_round() -> None:
    one, two = drawn(1), drawn(2)
    turned = soup([two], [-1.0])
    assert distance(ties([one, two], [0.6, -0.4]), ties([one, turned], [0.6, 0.4])) < 1e-6


def test_the_order_does_not_matter() -> None:
    """Not even where signs cancel but for rounding: .1 + .2 - .3 is 5e-17 or 0, by the order of its terms."""
    rows = [of_rows([[1.0, 2.0, -5.0]]), of_rows([[1.0, -4.0, 1.0]]), of_rows([[-1.0, 1.0, 1.0]])]
    weights = [0.1, 0.2, 0.3]
    expected = ties(rows, weights, density=1.0)
    assert dense(expected)[0, 0] == 0
    for order in permutations(range(3)):
        assert distance(ties([rows[k] for k in order], [weights[k] for k in order], density=1.0), expected) < 1e-6


def test_entries_as_large_as_the_last_one_stay() -> None:
    found = trimmed(torch.tensor([[[2.0, -2.0, 2.0, 1.0]], [[0.0, 0.0, 0.0, 0.0]], [[1.0, 2.0, 3.0, 4.0]]]), 0.25)
    assert found[:, 0].tolist() == [[2.0, -2.0, 2.0, 0.0], [0.0] * 4, [0.0, 0.0, 0.0, 4.0]]


def test_one_entry_at_least_is_kept() -> None:
    assert trimmed(torch.tensor([[[1.0, 3.0]]]), 1e-9).tolist() == [[[0.0, 3.0]]]


def test_where_nobody_wins_nothing_changes() -> None:
    assert elected(torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]]), torch.ones(2)).tolist() == [[0.0, 0.0]]
    assert not dense(ties([drawn(1), drawn(2)], [0.0, 0.0])).any()


def test_a_layer_that_one_lacks_is_the_others() -> None:
    one, lacking = drawn(1), Adapter({"q": drawn(2).layers["q"]}, ("q",))
    found = ties([one, lacking], [0.5, 0.5], density=1.0)
    assert torch.allclose(dense(found, "v"), dense(one, "v"), atol=1e-5)


def test_a_rank_is_the_best_cut_of_the_result() -> None:
    adapters = [drawn(seed, 3) for seed in (1, 2, 3)]
    whole, cut = (ties(adapters, [0.5, 0.3, 0.2], density=0.5, rank=rank) for rank in (None, 2))
    assert (whole.layers["q"].rank, cut.layers["q"].rank) == (5, 2)
    left = torch.linalg.svdvals(dense(whole))[2:].norm().item()
    assert (dense(cut) - dense(whole)).norm().item() == pytest.approx(left, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"density": 0.0}, "density is 0, the share of entries to keep; expected above 0 and at most 1"),
        ({"density": 1.5}, "density is 1.5"),
        ({"density": math.nan}, "density is nan"),
        ({"strength": math.inf}, "strength is inf; expected a finite number"),
        ({"rank": 0}, "rank is 0; expected at least 1"),
    ],
)
def test_an_impossible_setting_is_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        ties([drawn(1), drawn(2)], [0.5, 0.5], **options)


def test_other_bases_are_refused() -> None:
    with pytest.raises(AdapterError, match="different bases: layer 'q'"):
        ties([drawn(1), drawn(2, into=6)], [0.5, 0.5])
