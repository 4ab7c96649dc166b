"""MODPO trains each preference as if it were alone, and at a corner it is plain DPO."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from places import paired
from torch import Tensor
from torch.nn.functional import logsigmoid

from moalign.adapters import Adapter, write_adapter
from moalign.bank import AdapterBank
from moalign.batches import TokenPairs
from moalign.errors import MemoryLimitError, UserError
from moalign.logprobs import Scorer
from moalign.methods.modpo import ModpoSettings, train
from moalign.preference import Preference
from moalign.training import batch_order
from moalign.workplace import Job, Workplace

SETTINGS = ModpoSettings(beta=0.3, batch_size=4, learning_rate=0.01, warmup=0.2, weight_decay=0.01)
STEPS = 6


@pytest.fixture(scope="module")
def workplace(llama: Any) -> Workplace:
    return paired(llama)


def job(start: Adapter, a: float, steps: int = STEPS) -> Job:
    preference = Preference.of({"a": a, "b": 1 - a})
    return Job(preference.key, preference, "a" if a >= 0.5 else "b", start, steps)


@pytest.fixture(scope="module")
def jobs(llama: Any, random_adapter: Callable[..., Adapter]) -> list[Job]:
    start = random_adapter(llama, 1, rank=2, alpha=4)
    return [job(start, a) for a in (1.0, 0.7, 0.3, 0.0)]


def logits(llama: Any, adapters: Mapping[str, Adapter], ids: Tensor) -> dict[str, Tensor]:
    with AdapterBank(llama, adapters) as bank, torch.no_grad():
        found = {}
        for name in adapters:
            with bank.rows(bank.one_hot([name])):
                found[name] = llama(input_ids=ids).logits
        return found


def differ(llama: Any, one: Mapping[str, Adapter], other: Mapping[str, Adapter], ids: Tensor) -> float:
    first, second = logits(llama, one, ids), logits(llama, other, ids)
    return max((first[key] - second[key]).abs().max().item() for key in first)


@pytest.fixture(scope="module")
def together(jobs: list[Job], workplace: Workplace) -> dict[str, Adapter]:
    return train(jobs, workplace, SETTINGS)


def test_training_changes_every_adapter_and_each_otherwise(
    llama: Any, jobs: list[Job], together: dict[str, Adapter], ids: Tensor
) -> None:
    start = {each.key: each.start for each in jobs}
    found, before = logits(llama, together, ids), logits(llama, start, ids)
    assert all((found[key] - before[key]).abs().max() > 0.05 for key in found)
    assert all((found["a100"] - found[key]).abs().max() > 0.05 for key in found if key != "a100")


@pytest.mark.parametrize("order", [[[0], [1], [2], [3]], [[3, 1], [0, 2]], [[3, 2, 1, 0]]], ids=str)
def test_the_result_does_not_depend_on_the_grouping(
    llama: Any,
    jobs: list[Job],
    workplace: Workplace,
    together: dict[str, Adapter],
    ids: Tensor,
    order: list[list[int]],
) -> None:
    """Alone, two by two across primaries, or in another order: the same logits to 1e-4."""
    found: dict[str, Adapter] = {}
    for group in order:
        found |= train([jobs[i] for i in group], workplace, SETTINGS)
    assert differ(llama, found, together, ids) < 1e-4


@pytest.mark.parametrize("passes", [2, 5, 16])
def test_the_result_does_not_depend_on_the_number_of_passes(
    llama: Any, jobs: list[Job], workplace: Workplace, together: dict[str, Adapter], ids: Tensor, passes: int
) -> None:
    """16 (job, pair) entries per step, in passes of 8, of 4 (cut across jobs), or of 1."""
    found = train(jobs, replace(workplace, passes=passes), SETTINGS)
    assert differ(llama, found, together, ids) < 1e-4


def plain_dpo(model: PeftModel, tokens: TokenPairs, reference: np.ndarray, seed: int) -> list[float]:
    """DPO as anyone would write it with PEFT: one adapter, one forward pass per response, torch's optimiser."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(parameters, weight_decay=SETTINGS.weight_decay)
    warm, losses = int(np.ceil(SETTINGS.warmup * STEPS)), []

    def logprob(prompt: list[int], response: list[int]) -> Tensor:
        out = model(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        return sum(out[len(prompt) - 1 + i, token] for i, token in enumerate(response))  # type: ignore[return-value]

    for step in range(STEPS):
        batch = batch_order(tokens.lengths, SETTINGS.batch_size, seed, step)
        ratios = [
            logprob(tokens.prompt[i], tokens.chosen[i]) - logprob(tokens.prompt[i], tokens.rejected[i]) - reference[i]
            for i in batch
        ]
        loss = -logsigmoid(SETTINGS.beta * torch.stack(ratios)).mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, SETTINGS.max_gradient_norm)
        cosine = 0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, STEPS - warm)))
        adam.param_groups[0]["lr"] = SETTINGS.learning_rate * ((step + 1) / (warm + 1) if step < warm else cosine)
        adam.step()
        losses.append(loss.item())
    return losses


def test_a_corner_is_plain_dpo_step_by_step(
    llama: Any,
    jobs: list[Job],
    workplace: Workplace,
    together: dict[str, Adapter],
    tmp_path: Path,
    load_with_peft: Callable[..., PeftModel],
) -> None:
    """At w = (1, 0) the margin has weight 0: the same loss in every step, and in the end the same weights."""
    said: list[float] = []
    train(jobs[:1], replace(workplace, on_step=lambda *a: said.append(a[2]["loss"])), SETTINGS)
    data = workplace.data["a"]
    write_adapter(jobs[0].start, tmp_path, "base")
    model = load_with_peft(llama, tmp_path, is_trainable=True)
    losses = plain_dpo(model, data.tokens, data.reference, workplace.seed)
    assert said == pytest.approx(losses, abs=1e-5)
    weights = model.state_dict()
    for name, layer in together["a100"].layers.items():
        assert torch.allclose(layer.A, weights[f"base_model.model.{name}.lora_A.default.weight"], atol=1e-4)
        assert torch.allclose(layer.B, weights[f"base_model.model.{name}.lora_B.default.weight"], atol=1e-4)


def test_a_step_is_one_forward_and_one_backward_pass(
    llama: Any, jobs: list[Job], workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four preferences and two data sets in one pass; reference and margins are constants of the data."""
    forwards, backwards, backward = [], [], Tensor.backward

    def count(self: Tensor, *args: Any, **kwargs: Any) -> None:
        backwards.append(1)
        backward(self, *args, **kwargs)

    monkeypatch.setattr(Tensor, "backward", count)
    hook = llama.get_decoder().register_forward_hook(lambda *_: forwards.append(1))
    try:
        train(jobs, workplace, SETTINGS)
    finally:
        hook.remove()
    assert (len(forwards), len(backwards)) == (STEPS, STEPS)


def first_step(jobs: Sequence[Job], workplace: Workplace, settings: ModpoSettings) -> dict[str, float]:
    numbers: list[dict[str, float]] = []
    once = [replace(job, steps=1) for job in jobs]
    train(once, replace(workplace, on_step=lambda *a: numbers.append(a[2])), settings)
    return numbers[0]


def test_grad_renorm_takes_one_over_w_out_of_the_gradient(jobs: list[Job], workplace: Workplace) -> None:
    """Loss and gradient are multiplied by w_k = 0.7; the optimum is where it was."""
    plain = first_step([jobs[1]], workplace, SETTINGS)
    renormed = first_step([jobs[1]], workplace, SETTINGS.model_copy(update={"grad_renorm": True}))
    assert renormed["loss"] == pytest.approx(0.7 * plain["loss"], rel=1e-5)
    assert renormed["gradient_norm"] == pytest.approx(0.7 * plain["gradient_norm"], rel=1e-5)


def test_standardised_margins_have_no_unit(llama: Any, jobs: list[Job], workplace: Workplace, ids: Tensor) -> None:
    """A margin in cents trains the adapter that a margin in euros trains; without it, it does not."""
    data = workplace.data["a"]
    cents = replace(workplace, data={"a": replace(data, margins=100 * data.margins)})
    standard = SETTINGS.model_copy(update={"standardise_margins": True})
    found = [train([jobs[1]], place, standard) for place in (workplace, cents)]
    assert differ(llama, *found, ids) < 1e-4
    assert first_step([jobs[1]], cents, SETTINGS)["loss"] != first_step([jobs[1]], workplace, SETTINGS)["loss"]
    margins = data.margins / data.margins[:, 1].std()  # column 0, the pairs' own objective, is NaN
    by_hand = replace(workplace, data={"a": replace(data, margins=margins)})
    assert first_step([jobs[1]], by_hand, SETTINGS) == pytest.approx(first_step([jobs[1]], workplace, standard))


def test_flat_margins_are_left_alone(jobs: list[Job], workplace: Workplace) -> None:
    """A deviation of 0 would divide by nothing; a margin of 0 has the same loss with and without."""
    data = workplace.data["a"]
    flat = replace(workplace, data={"a": replace(data, margins=np.where(np.isnan(data.margins), np.nan, 0.0))})
    standard = SETTINGS.model_copy(update={"standardise_margins": True})
    assert first_step([jobs[1]], flat, standard) == first_step([jobs[1]], flat, SETTINGS)


def test_a_loss_that_is_not_finite_stops_with_the_adapters_name(jobs: list[Job], workplace: Workplace) -> None:
    data = workplace.data["a"]
    broken = replace(workplace, data={"a": replace(data, reference=np.full(len(data), np.nan))})
    with pytest.raises(UserError, match="the loss of a70-b30 is no longer finite; a lower learning_rate helps"):
        train([jobs[1]], broken, SETTINGS)


def test_out_of_memory_halves_the_pass_and_changes_nothing(
    llama: Any,
    jobs: list[Job],
    workplace: Workplace,
    together: dict[str, Adapter],
    ids: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first two attempts run out in the middle of the model, once in the backward pass."""
    said: list[str] = []
    attempts, logprobs, backward = [], Scorer.logprobs, Tensor.backward

    def fail_forward(self: Scorer, *args: Any) -> Tensor:
        attempts.append("forward")
        if len(attempts) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return logprobs(self, *args)

    def fail_backward(self: Tensor, *args: Any, **kwargs: Any) -> None:
        attempts.append("backward")
        if attempts.count("backward") == 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        backward(self, *args, **kwargs)

    monkeypatch.setattr(Scorer, "logprobs", fail_forward)
    monkeypatch.setattr(Tensor, "backward", fail_backward)
    found = train(jobs, replace(workplace, notice=said.append), SETTINGS)
    assert [line.partition(";")[0] for line in said] == [
        "out of memory with 16 pairs in one pass",
        "out of memory with 8 pairs in one pass",
    ]
    for key, adapter in found.items():
        for name, layer in adapter.layers.items():
            assert torch.allclose(layer.A, together[key].layers[name].A, atol=1e-5)
            assert torch.allclose(layer.B, together[key].layers[name].B, atol=1e-5)
    assert differ(llama, found, together, ids) < 1e-4


def test_a_single_pair_that_does_not_fit_is_told(
    jobs: list[Job], workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Scorer, "logprobs", full)
    with pytest.raises(MemoryLimitError, match="out of memory with a single pair"):
        train(jobs, workplace, SETTINGS)


def test_bradley_terry_labels_pull_towards_the_score_difference(jobs: list[Job], workplace: Workplace) -> None:
    """A pair that wins with probability one half, without a margin, has its least loss log 2 where nothing moved."""
    data = replace(workplace.data["a"], probability=np.full(12, 0.5), margins=np.zeros((12, 2)))
    zero = {name: replace(layer, B=torch.zeros_like(layer.B)) for name, layer in jobs[0].start.layers.items()}
    start = replace(jobs[0], start=replace(jobs[0].start, layers=zero))
    numbers = first_step([start], replace(workplace, data={"a": data}), SETTINGS)
    assert numbers["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert numbers["gradient_norm"] == pytest.approx(0, abs=1e-4)


def test_steps_are_epochs_of_whole_batches() -> None:
    """33 pairs are 2 batches of 16 per epoch; fewer pairs than a batch are one."""
    assert ModpoSettings(epochs=3, batch_size=16).steps_for(33) == 6
    assert ModpoSettings(epochs=3, batch_size=16).steps_for(5) == 3
    assert ModpoSettings(epochs=0.1, batch_size=16).steps_for(33) == 1
    assert ModpoSettings(steps=7).steps_for(33) == 7
