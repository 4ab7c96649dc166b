"""Adapters that train in lockstep train as if each were alone, and go on where they were stopped."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.errors import MemoryLimitError
from moalign.logprobs import Scorer
from moalign.training import Entry, GroupTrainer, Optimisation, batch_order
from moalign.workplace import Workplace

STEPS = Optimisation(steps=5, learning_rate=0.05, weight_decay=0.01, warmup=0.2, max_gradient_norm=1.0)
MakeAdapter = Callable[..., Adapter]


@pytest.fixture
def workplace(llama: Any) -> Workplace:
    return Workplace(scorer=Scorer(llama, None, False), pad_id=0, objectives=("a",), data={}, seed=0)


class Pull:
    """A loss without a model: entry (k, i) pulls adapter k towards the number i, with k + 1 times the force."""

    def __init__(self, bank: AdapterBank, fails: int = 0, fits: float = float("inf")):
        self.bank, self.fails, self.fits, self.calls = bank, fails, fits, 0

    def __call__(self, entries: Sequence[Entry]) -> Tensor:
        self.calls += 1
        if self.calls <= self.fails or len(entries) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return torch.stack(
            [(k + 1) * sum((p[k] - i).square().mean() for p in self.bank.parameters()) for k, i in entries]
        )


def steps(jobs: int, pairs: Sequence[int] = (0, 1, 2, 3)) -> Callable[[int], list[Entry]]:
    return lambda step: [(job, (pair + step) % 4) for job in range(jobs) for pair in pairs]


def trained(
    llama: Any, adapters: dict[str, Adapter], workplace: Workplace, optimisation: Optimisation = STEPS, **pull: Any
) -> list[Tensor]:
    """The stacked parameters after training all of `adapters` side by side."""
    with AdapterBank(llama, adapters, trainable=True) as bank:
        GroupTrainer(bank, optimisation, workplace).run(steps(len(adapters)), Pull(bank, **pull))
        return [parameter.detach().clone() for parameter in bank.parameters()]


@pytest.fixture
def two(llama: Any, random_adapter: MakeAdapter) -> dict[str, Adapter]:
    return {"a": random_adapter(llama, 1, only="q_proj"), "b": random_adapter(llama, 2, only="q_proj")}


def test_the_rate_rises_over_the_warm_up_and_falls_along_a_cosine() -> None:
    """10 steps, 30 % of them warm: 1/4, 2/4, 3/4 of the rate, then (1 + cos(pi i/7)) / 2 for i = 0 ... 6."""
    optimisation = Optimisation(10, 1.0, 0.0, warmup=0.3, max_gradient_norm=1.0)
    found = torch.tensor([optimisation.rate(step) for step in range(10)])
    cosine = (1 + torch.cos(torch.pi * torch.arange(7) / 7)) / 2
    assert torch.allclose(found, torch.cat([torch.tensor([0.25, 0.5, 0.75]), cosine]))


def test_a_single_step_is_taken_at_the_full_rate() -> None:
    assert Optimisation(1, 0.5, 0.0, warmup=0.0, max_gradient_norm=1.0).rate(0) == 0.5


@pytest.mark.parametrize(("pairs", "size"), [(12, 4), (40, 1), (331, 16)])
def test_an_epoch_draws_every_pair_once(pairs: int, size: int) -> None:
    """331 pairs are 20 batches of 16; the 11 pairs that are left over are others in every epoch."""
    lengths = [(7 * i) % 30 for i in range(pairs)]
    batches = pairs // size
    for epoch in range(2):
        drawn = Counter(
            pair for step in range(batches) for pair in batch_order(lengths, size, 3, epoch * batches + step)
        )
        assert set(drawn.values()) == {1}
        assert len(drawn) == batches * size


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    lengths = list(range(64))
    assert batch_order(lengths, 8, 0, 5) == batch_order(lengths, 8, 0, 5)
    assert batch_order(lengths, 8, 0, 5) != batch_order(lengths, 8, 1, 5)
    assert batch_order(lengths, 8, 0, 5) != batch_order(lengths, 8, 0, 5 + 8)


def test_a_batch_holds_pairs_of_like_length() -> None:
    """Of 64 pairs of length 0 to 63, sorted within 16 batches of 4, each batch spans 4 neighbouring lengths."""
    lengths = list(range(64))
    for step in range(16):
        batch = batch_order(lengths, 4, 0, step)
        assert max(batch) - min(batch) == 3


def test_fewer_pairs_than_a_batch_are_one_batch() -> None:
    assert sorted(batch_order([3, 1, 2], 16, 0, 7)) == [0, 1, 2]


def test_adapters_train_as_if_alone(llama: Any, two: dict[str, Adapter], workplace: Workplace) -> None:
    """Gradients, clipping and optimiser state are each adapter's own: b is pulled twice as hard, a does not notice."""
    together = trained(llama, two, workplace)
    for k, (name, adapter) in enumerate(two.items()):
        with AdapterBank(llama, {name: adapter}, trainable=True) as bank:
            pull = Pull(bank)
            GroupTrainer(bank, STEPS, workplace).run(
                steps(1), lambda entries, k=k, pull=pull: (k + 1) * pull([(0, i) for _, i in entries])
            )
            for one, both in zip(bank.parameters(), together, strict=True):
                assert torch.allclose(one[0], both[k], atol=1e-6)


def test_jobs_with_fewer_pairs_than_others_are_not_weighed_down(
    llama: Any, two: dict[str, Adapter], workplace: Workplace
) -> None:
    """The gradient of each adapter is the mean over its own pairs: b has one pair here, a has three."""
    with AdapterBank(llama, two, trainable=True) as bank:
        GroupTrainer(bank, replace(STEPS, steps=1, max_gradient_norm=1e9), workplace).run(
            lambda _: [(0, 0), (0, 1), (0, 2), (1, 3)], pull := Pull(bank)
        )
        found = [parameter.grad.clone() for parameter in bank.parameters() if parameter.grad is not None]
    with AdapterBank(llama, two, trainable=True) as bank:
        pull.bank = bank
        (pull([(0, 0), (0, 1), (0, 2)]).mean() + pull([(1, 3)]).mean()).backward()
        for gradient, parameter in zip(found, bank.parameters(), strict=True):
            assert torch.allclose(gradient, parameter.grad, atol=1e-6)


def test_each_adapter_is_clipped_by_its_own_norm(llama: Any, two: dict[str, Adapter], workplace: Workplace) -> None:
    """torch's own clipping of one adapter's gradient is what clipping in the bank must be equal to."""
    with AdapterBank(llama, two, trainable=True) as bank:
        trainer = GroupTrainer(bank, STEPS, workplace)
        trainer.gradients([(0, 3), (1, 3)], Pull(bank))
        expected = []
        for k in range(2):
            alone = [torch.nn.Parameter(parameter[k].detach().clone()) for parameter in bank.parameters()]
            for one, parameter in zip(alone, bank.parameters(), strict=True):
                one.grad = parameter.grad[k].clone()  # type: ignore[index]
            norm = torch.nn.utils.clip_grad_norm_(alone, STEPS.max_gradient_norm)
            expected.append((norm, alone))
        norms = trainer.clip()
        for k, (norm, alone) in enumerate(expected):
            assert norms[k] == pytest.approx(norm.item(), rel=1e-5)
            for one, parameter in zip(alone, bank.parameters(), strict=True):
                assert torch.allclose(one.grad, parameter.grad[k], atol=1e-6)  # type: ignore[index,arg-type]


@pytest.mark.parametrize("fails", [1, 3])
def test_a_pass_that_does_not_fit_is_halved_and_nothing_else_changes(
    llama: Any, two: dict[str, Adapter], workplace: Workplace, fails: int
) -> None:
    """8 pairs in one pass, then 4, 2, 1; the sum of the passes' gradients is the gradient of the step."""
    said: list[str] = []
    found = trained(llama, two, replace(workplace, notice=said.append), fails=fails)
    sizes = [8, 4, 2, 1]
    assert said == [
        f"out of memory with {sizes[i]} pairs in one pass; going on with {sizes[i + 1]}" for i in range(fails)
    ]
    for one, other in zip(found, trained(llama, two, workplace), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_single_pair_that_does_not_fit_is_the_users_to_mend(
    llama: Any, two: dict[str, Adapter], workplace: Workplace
) -> None:
    with pytest.raises(MemoryLimitError, match="out of memory with a single pair; a smaller max_length or rank"):
        trained(llama, two, workplace, fits=0)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    llama: Any, two: dict[str, Adapter], workplace: Workplace
) -> None:
    def broken(_: Sequence[Entry]) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with AdapterBank(llama, two, trainable=True) as bank, pytest.raises(RuntimeError, match="mat1 and mat2"):
        GroupTrainer(bank, STEPS, workplace).run(steps(2), broken)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_stopped_training_goes_on_to_the_same_adapters(
    llama: Any, two: dict[str, Adapter], workplace: Workplace, tmp_path: Path, stop: int
) -> None:
    """Killed in step `stop`, with the checkpoint of the step before it; at 5, only the storing of adapters is left."""
    kept = replace(workplace, checkpoint=tmp_path / "group.safetensors", checkpoint_seconds=0.0)
    taken: list[int] = []

    def count(step: int, *_: object) -> None:
        taken.append(step)
        if len(taken) == stop:
            raise KeyboardInterrupt

    if stop < STEPS.steps:
        with pytest.raises(KeyboardInterrupt):
            trained(llama, two, replace(kept, on_step=count))
    else:
        trained(llama, two, replace(kept, on_step=lambda step, *_: taken.append(step)))
    found = trained(llama, two, replace(kept, on_step=lambda step, *_: taken.append(step)))
    for one, other in zip(found, trained(llama, two, workplace), strict=True):
        assert torch.equal(one, other)
    redone = 1 if stop < STEPS.steps else 0  # the step in which it was killed
    assert len(taken) == STEPS.steps + redone
