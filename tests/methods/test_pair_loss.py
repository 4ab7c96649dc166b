"""The loss of pairs for rows of a bank, and MODPO steered by weighters: mixtures are what their merge is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import largest_difference, paired
from torch import Tensor
from weighters import Scaled

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.merging import soup
from moalign.methods.modpo import train
from moalign.methods.modpo_settings import ModpoSettings
from moalign.methods.pair_loss import Learner, PairLoss
from moalign.preference import Preference
from moalign.training import batch_order
from moalign.weighting import Constrained
from moalign.workplace import Job, Workplace

SETTINGS = ModpoSettings(beta=0.3, batch_size=4, learning_rate=0.01, warmup=0.2)
STEPS = 5


@pytest.fixture(scope="module")
def workplace(llama: Any) -> Workplace:
    return paired(llama)


@pytest.fixture(scope="module")
def two(llama: Any, random_adapter: Callable[..., Adapter]) -> dict[str, Adapter]:
    return {"a": random_adapter(llama, 1, rank=2, alpha=4), "b": random_adapter(llama, 2, rank=3)}


def job(start: Adapter, a: float, **changes: Any) -> Job:
    preference = Preference.of({"a": a, "b": 1 - a})
    return Job(preference.key, preference, "a" if a >= 0.5 else "b", start, STEPS, **changes)


# Rows


def losses(workplace: Workplace, adapters: dict[str, Adapter], row: dict[str, float]) -> Tensor:
    with AdapterBank(workplace.scorer.model, adapters) as bank, torch.no_grad():
        learner = Learner("it", bank.mixture(row), torch.tensor([0.3, 0.7]), "b")
        loss = PairLoss(bank, workplace, SETTINGS, [learner])
        return loss(loss.entries(0))


@pytest.mark.parametrize("shares_prompt", [True, False])
def test_a_learner_with_a_mixture_row_has_the_loss_of_the_merged_adapter(
    workplace: Workplace, two: dict[str, Adapter], shares_prompt: bool
) -> None:
    """sum_k w_k dW_k as a row, and as one adapter by rank concatenation; either half alone has another loss."""
    place = replace(workplace, scorer=replace(workplace.scorer, shares_prompt=shares_prompt))
    mixed = losses(place, two, {"a": 0.3, "b": 0.7})
    merged = losses(place, {"it": soup(list(two.values()), [0.3, 0.7])}, {"it": 1.0})
    torch.testing.assert_close(mixed, merged, rtol=1e-4, atol=1e-4)
    for name in two:
        assert (losses(place, two, {name: 1.0}) - mixed).abs().max() > 0.05


def test_learners_read_the_batch_of_the_step_or_their_own(workplace: Workplace, two: dict[str, Adapter]) -> None:
    with AdapterBank(workplace.scorer.model, two) as bank:
        row, weights = bank.mixture({"a": 1.0}), torch.tensor([1.0, 0.0])
        learners = [Learner(str(batch), row, weights, "a", batch) for batch in (None, 0, 1)]
        entries = PairLoss(bank, workplace, SETTINGS, learners).entries(1)
    lengths = workplace.data["a"].tokens.lengths
    zeroth, first = (batch_order(lengths, 4, workplace.seed, batch) for batch in (0, 1))
    read = [[pair for number, pair in entries if number == learner] for learner in range(3)]
    assert read == [first, zeroth, first]
    assert zeroth != first


# Weighters


def test_a_constant_weighter_trains_as_its_weights_do(workplace: Workplace, two: dict[str, Adapter]) -> None:
    """Asked for (.7, .3) but weighed (.2, .8): bit for bit the adapter of (.2, .8), whose pairs are those of b.

    It never asks for a validation, which nobody here could give. Its neighbour without a weighter keeps to its wish.
    """
    steered = job(two["a"], 0.7, weighter=Scaled(np.array([0.2, 0.8])))
    neighbour = job(two["a"], 0.4)
    found = train([steered, neighbour], workplace, SETTINGS)
    plain = train([job(two["a"], 0.2), neighbour], workplace, SETTINGS)
    assert largest_difference({"": found["a70-b30"]}, {"": plain["a20-b80"]}) == 0.0
    assert largest_difference({"": found["a40-b60"]}, {"": plain["a40-b60"]}) == 0.0
    wished = train([job(two["a"], 0.7)], workplace, SETTINGS)
    assert largest_difference(found, wished) > 1e-3


class Judge:
    """Says what adapters attain: the sizes of the factors of a layer, which training moves; remembers who was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, bank: AdapterBank, keys: Sequence[str]) -> np.ndarray:
        self.asked.append(tuple(keys))
        layers = [next(iter(bank.adapter(key).layers.values())) for key in keys]
        return np.array([[layer.A.std().item(), layer.B.std().item()] for layer in layers])


def constrained(every: int) -> Constrained:
    """Climbs a, and wants more of b than there is, so that its multiplier grows at every look."""
    thresholds = [None, 0.5]
    return Constrained(np.array([0.5, 0.5]), objective=0, thresholds=thresholds, kind="lagrangian", every=every)


def steered(start: Adapter) -> list[Job]:
    return [
        job(start, 0.9, weighter=constrained(2)),
        job(start, 0.8, weighter=constrained(3)),
        job(start, 0.7, weighter=Scaled(np.array([0.7, 0.3]))),
        job(start, 0.6),
    ]


def test_only_those_whose_validation_is_due_are_validated(workplace: Workplace, two: dict[str, Adapter]) -> None:
    """Every second and every third of five steps, beginning with the first; never the others."""
    judge = Judge()
    train(steered(two["a"]), replace(workplace, validate=judge), SETTINGS)
    assert judge.asked == [("a90-b10", "a80-b20"), ("a90-b10",), ("a80-b20",), ("a90-b10",)]


def test_weighters_go_on_where_they_were_stopped(workplace: Workplace, two: dict[str, Adapter], tmp_path: Path) -> None:
    """Stopped in the second and the fourth step; multipliers are carried over, so that all ends bit for bit."""
    place = replace(workplace, validate=Judge())
    whole = train(steered(two["a"]), place, SETTINGS)
    assert largest_difference(whole, train([job(two["a"], a) for a in (0.9, 0.8, 0.7, 0.6)], place, SETTINGS)) > 1e-3
    kept = replace(place, checkpoint=tmp_path / "group.safetensors")
    for stop in (2, 4):

        def interrupt(step: int, *_: Any, stop: int = stop) -> None:
            if step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(steered(two["a"]), replace(kept, on_step=interrupt), SETTINGS)
    assert largest_difference(train(steered(two["a"]), kept, SETTINGS), whole) == 0.0
