"""Fine-tuning in a bank: every seed as if it were alone, and as anyone would train it with PEFT."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from moalign.adapters import Adapter, fresh_adapter, write_adapter
from moalign.errors import UserError
from moalign.logprobs import Scorer
from moalign.methods.sft import Demonstrations, SftSettings, heldout_losses, train
from moalign.models import select_layers
from moalign.training import batch_order
from moalign.workplace import Workplace

SETTINGS = SftSettings(steps=6, batch_size=4, learning_rate=2e-3, warmup=0.2, weight_decay=0.01)


def answers(count: int, seed: int = 0) -> Demonstrations:
    rng = np.random.default_rng(seed)

    def texts(low: int, high: int) -> list[list[int]]:
        return [rng.integers(3, 96, rng.integers(low, high)).tolist() for _ in range(count)]

    return Demonstrations(texts(2, 8), [[*text, 2] for text in texts(1, 9)])


DATA = answers(14)


@pytest.fixture(scope="module")
def workplace(llama: Any) -> Workplace:
    return Workplace(scorer=Scorer.of(llama), pad_id=0, objectives=(), data={}, seed=0)


@pytest.fixture(scope="module")
def starts(llama: Any) -> dict[int, Adapter]:
    shapes, targets, _ = select_layers(llama, "all-linear")
    return {
        seed: fresh_adapter(shapes, targets, rank=2, alpha=4.0, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    }


@pytest.fixture(scope="module")
def together(starts: dict[int, Adapter], workplace: Workplace) -> dict[int, Adapter]:
    return train(starts, DATA, workplace, SETTINGS)


def gap(one: Adapter, other: Adapter) -> float:
    """The largest difference of a factor's element."""
    return max(
        (first - second).abs().max().item()
        for name in one.layers
        for first, second in (
            (one.layers[name].A, other.layers[name].A),
            (one.layers[name].B, other.layers[name].B),
        )
    )


def test_every_seed_has_its_own_start_and_its_own_order(
    starts: dict[int, Adapter], workplace: Workplace, together: dict[int, Adapter]
) -> None:
    """Not only another start: from the same start, the order of the data alone gives another adapter."""
    assert gap(starts[0], together[0]) > 1e-3
    assert gap(together[0], together[1]) > 1e-3
    same = train({0: starts[0], 1: starts[0]}, DATA, workplace, SETTINGS)
    assert gap(same[0], together[0]) < 1e-6
    assert gap(same[0], same[1]) > 1e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_does_not_notice_the_others(
    starts: dict[int, Adapter], workplace: Workplace, together: dict[int, Adapter], seed: int
) -> None:
    alone = train({seed: starts[seed]}, DATA, workplace, SETTINGS)
    assert gap(alone[seed], together[seed]) < 1e-6


def test_the_order_of_the_seeds_and_the_number_of_passes_do_not_matter(
    starts: dict[int, Adapter], workplace: Workplace, together: dict[int, Adapter]
) -> None:
    found = train({1: starts[1], 0: starts[0]}, DATA, replace(workplace, passes=3), SETTINGS)
    assert all(gap(found[seed], together[seed]) < 1e-6 for seed in starts)


def plain(model: PeftModel, seed: int) -> list[float]:
    """Fine-tuning as anyone would write it with PEFT: one adapter, one response at a time, torch's optimiser."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(parameters, weight_decay=SETTINGS.weight_decay)
    steps = SETTINGS.steps or 0
    warm, losses = int(np.ceil(SETTINGS.warmup * steps)), []
    for step in range(steps):
        each = []
        for i in batch_order(DATA.lengths, SETTINGS.batch_size, seed, step):
            ids = torch.tensor([DATA.prompt[i] + DATA.response[i]])
            logits = model(input_ids=ids).logits[0, len(DATA.prompt[i]) - 1 : -1]
            each.append(cross_entropy(logits, torch.tensor(DATA.response[i])))
        loss = torch.stack(each).mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, SETTINGS.max_gradient_norm)
        cosine = 0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, steps - warm)))
        adam.param_groups[0]["lr"] = SETTINGS.learning_rate * ((step + 1) / (warm + 1) if step < warm else cosine)
        adam.step()
        losses.append(loss.item())
    return losses


def test_it_is_plain_fine_tuning_step_by_step(
    llama: Any,
    starts: dict[int, Adapter],
    workplace: Workplace,
    together: dict[int, Adapter],
    tmp_path: Path,
    load_with_peft: Callable[..., PeftModel],
) -> None:
    """The same mean loss in every step, and in the end the same weights."""
    said: list[float] = []
    train(starts, DATA, replace(workplace, on_step=lambda *a: said.append(a[2]["loss"])), SETTINGS)
    losses = []
    for seed, start in starts.items():
        write_adapter(start, tmp_path / str(seed), "base")
        model = load_with_peft(llama, tmp_path / str(seed), is_trainable=True)
        losses.append(plain(model, seed))
        weights = model.state_dict()
        for name, layer in together[seed].layers.items():
            for factor in "AB":
                theirs = weights[f"base_model.model.{name}.lora_{factor}.default.weight"]
                torch.testing.assert_close(getattr(layer, factor), theirs, rtol=0, atol=1e-5)
    assert said == pytest.approx(np.mean(losses, axis=0), abs=1e-5)


def test_the_loss_on_held_out_answers(
    llama: Any,
    starts: dict[int, Adapter],
    workplace: Workplace,
    together: dict[int, Adapter],
    tmp_path: Path,
    load_with_peft: Callable[..., PeftModel],
) -> None:
    """Before is the base, which every fresh adapter is; after is what PEFT finds with the adapter."""

    def by_hand(model: Any) -> float:
        parts = []
        for prompt, response in zip(held.prompt, held.response, strict=True):
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            parts.append(cross_entropy(logits, torch.tensor(response)).item())
        return float(np.mean(parts))

    held = answers(5, seed=1)
    before = by_hand(llama)
    assert heldout_losses(starts, held, workplace)[1] == pytest.approx({"before": before, "after": before})
    found = heldout_losses(together, held, workplace)
    for seed, adapter in together.items():
        write_adapter(adapter, tmp_path / str(seed), "base")
        after = by_hand(load_with_peft(llama, tmp_path / str(seed)))
        assert found[seed] == pytest.approx({"before": before, "after": after}, abs=1e-5)
    assert heldout_losses(together, held.select([]), workplace) == {0: None, 1: None}


def test_what_is_learnt_becomes_likelier(
    starts: dict[int, Adapter], workplace: Workplace, together: dict[int, Adapter]
) -> None:
    for loss in heldout_losses(together, DATA, workplace).values():
        assert loss is not None
        assert loss["after"] < loss["before"] - 0.02


def test_a_stopped_training_goes_on_to_the_same_adapters(
    starts: dict[int, Adapter], workplace: Workplace, together: dict[int, Adapter], tmp_path: Path
) -> None:
    taken: list[int] = []

    def stop(step: int, *_: object) -> None:
        taken.append(step)
        if len(taken) == 4:
            raise KeyboardInterrupt

    kept = replace(workplace, checkpoint=tmp_path / "two.safetensors", checkpoint_seconds=0.0, on_step=stop)
    with pytest.raises(KeyboardInterrupt):
        train(starts, DATA, kept, SETTINGS)
    found = train(starts, DATA, kept, SETTINGS)
    assert taken == [1, 2, 3, 4, 4, 5, 6]  # the step in which it was stopped is taken again
    assert all(gap(found[seed], together[seed]) == 0 for seed in starts)


def broken(adapter: Adapter) -> Adapter:
    layers = {name: replace(layer, B=torch.full_like(layer.B, torch.nan)) for name, layer in adapter.layers.items()}
    return replace(adapter, layers=layers)


def test_a_loss_that_is_not_finite_stops_with_the_seed(starts: Mapping[int, Adapter], workplace: Workplace) -> None:
    adapters = {0: starts[0], 1: broken(starts[1])}
    with pytest.raises(UserError, match=r"^the loss of seed 1 is no longer finite; a lower learning_rate helps$"):
        train(adapters, DATA, workplace, SETTINGS)
    with pytest.raises(UserError, match=r"^the held-out loss of seed 1 is not finite; a lower learning_rate helps$"):
        heldout_losses(adapters, DATA, workplace)


@pytest.mark.parametrize(
    ("settings", "steps"), [({}, 6), ({"epochs": 2.5}, 15), ({"epochs": 0.01}, 1), ({"steps": 4}, 4)]
)
def test_an_epoch_is_every_response_once(settings: dict[str, Any], steps: int) -> None:
    """100 responses are 6 batches of 16; the defaults are one epoch of these."""
    assert SftSettings(**settings).steps_for(100) == steps
