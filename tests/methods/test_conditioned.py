"""Training through mixtures: gradients against a merged dense model, draws, restarts, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import SCORED, largest_difference, paired, scored, talkative
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.errors import UserError
from moalign.merging import soup
from moalign.methods import modpo, pair_loss
from moalign.methods.conditioned import ConditionedSettings, Mixtures, train
from moalign.preference import Preference
from moalign.rollouts import roll_out
from moalign.training import GroupTrainer, batch_order
from moalign.workplace import Job, Workplace

STEPS = 4
OFFLINE = {"beta": 0.3, "batch_size": 4, "learning_rate": 0.01, "warmup": 0.0}
# Advantages in the objectives' own units, and sums over tokens: formulas that are short to write down again.
ONLINE = {"beta": 0.2, "prompts": 3, "completions": 4, "learning_rate": 0.01, "warmup": 0.0}
ONLINE |= {"estimator": "rloo", "aggregation": "sum_then_normalize", "kl": "k3"}
MIXTURES = [[[0.3, 0.7]], [[0.3, 0.7], [0.9, 0.1]]]

Gradients = dict[str, list[Tensor]]  # of A and B stacked, by layer


def settings(by: str, **changes: Any) -> ConditionedSettings:
    inner = OFFLINE if by == "modpo" else ONLINE
    return ConditionedSettings.model_validate({"by": by, "settings": inner, "draws": 2} | changes)


@pytest.fixture(scope="module")
def places(llama: PreTrainedModel, tiny_base: Path) -> dict[str, Workplace]:
    return {"modpo": paired(llama), "online": scored(talkative(tiny_base))}


@pytest.fixture(scope="module")
def jobs(places: dict[str, Workplace], random_adapter: Callable[..., Adapter]) -> dict[str, list[Job]]:
    """A corner each; they begin apart, so that it matters which of them a weight goes to."""
    found = {}
    for by, place in places.items():
        ends = [Preference.of({name: 1.0}) for name in place.objectives]
        start = [random_adapter(place.scorer.model, seed, rank=2, alpha=4) for seed in (1, 2)]
        found[by] = [Job(e.key, e, n, s, STEPS) for e, n, s in zip(ends, place.objectives, start, strict=True)]
    return found


def draw(monkeypatch: pytest.MonkeyPatch, rows: Any) -> None:
    """Let every step draw these preferences."""
    monkeypatch.setattr(Mixtures, "drawn", lambda *_: np.array(rows, dtype=float))


# Gradients


def of_the_bank(monkeypatch: pytest.MonkeyPatch, by: str, jobs: list[Job], place: Workplace) -> Gradients:
    """The gradients of the first step, before they are clipped."""
    found: Gradients = {}
    clip = GroupTrainer.clip

    def keep(self: GroupTrainer) -> Tensor:
        for name, layer in self.bank.layers.items():
            assert layer.A.grad is not None
            assert layer.B.grad is not None
            found[name] = [layer.A.grad.clone(), layer.B.grad.clone()]
        return clip(self)

    monkeypatch.setattr(GroupTrainer, "clip", keep)
    train([replace(job, steps=1) for job in jobs], place, settings(by))
    return found


def of_dense_models(
    merged: Callable[..., PreTrainedModel],
    jobs: list[Job],
    model: PreTrainedModel,
    rows: list[list[float]],
    loss: Callable[[PreTrainedModel, int, np.ndarray], Tensor],
) -> Gradients:
    """With G = dL/dW of W + sum_k w_k s_k B_k A_k: dL/dB_k = w_k s_k G A_k^T and dL/dA_k = w_k s_k B_k^T G.

    The mean over the mixtures, each merged into a dense copy and sent through plain autograd.
    """
    adapters = {job.key: job.start for job in jobs}
    total: dict[str, list[Tensor]] = {}
    for number, row in enumerate(rows):
        weights = dict(zip(adapters, row, strict=True))
        dense = merged(model, adapters, weights)
        modules = dict(dense.named_modules())
        for name in jobs[0].start.layers:
            modules[name].weight.requires_grad_(True)
        loss(dense, number, np.array(row)).backward()
        for name in jobs[0].start.layers:
            G = modules[name].weight.grad / len(rows)
            own = [(weights[key] * each.layers[name].scale, each.layers[name]) for key, each in adapters.items()]
            A = torch.stack([scale * layer.B.T @ G for scale, layer in own])
            B = torch.stack([(scale * G @ layer.A.T).T for scale, layer in own])
            total[name] = [one + other for one, other in zip(total[name], (A, B), strict=True)] if number else [A, B]
    return total


def same(found: Gradients, expected: Gradients) -> None:
    assert found.keys() == expected.keys()
    for name, both in expected.items():
        for mine, theirs in zip(found[name], both, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    largest = max(tensor[k].abs().max() for both in expected.values() for tensor in both for k in range(2))
    assert largest > 0.01


def logprobs(model: PreTrainedModel, prompt: list[int], response: list[int]) -> Tensor:
    table = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return table.gather(1, torch.tensor(response)[:, None])[:, 0]


@pytest.mark.parametrize("rows", MIXTURES, ids=str)
def test_gradients_by_modpo_are_those_of_a_merged_model(
    places: dict[str, Workplace],
    jobs: dict[str, list[Job]],
    merged: Callable[..., PreTrainedModel],
    monkeypatch: pytest.MonkeyPatch,
    rows: list[list[float]],
) -> None:
    """-log sigma((beta D log pi/pi_ref - w_other margin) / w_k), the mean over pairs of the heavier objective."""
    place = places["modpo"]

    def loss(dense: PreTrainedModel, number: int, weights: np.ndarray) -> Tensor:
        k = int(weights.argmax())
        data = place.data[place.objectives[k]]
        total = torch.zeros(())
        batch = batch_order(data.tokens.lengths, 4, place.seed, number)  # step 0: the number-th mixture's own batch
        for i in batch:
            prompt, chosen, rejected = (
                part[i] for part in (data.tokens.prompt, data.tokens.chosen, data.tokens.rejected)
            )
            ratio = logprobs(dense, prompt, chosen).sum() - logprobs(dense, prompt, rejected).sum() - data.reference[i]
            total = total - logsigmoid((0.3 * ratio - weights[1 - k] * data.margins[i, 1 - k]) / weights[k])
        return total / len(batch)

    draw(monkeypatch, rows)
    expected = of_dense_models(merged, jobs["modpo"], place.scorer.model, rows, loss)
    same(of_the_bank(monkeypatch, "modpo", jobs["modpo"], place), expected)


@pytest.mark.parametrize("rows", MIXTURES, ids=str)
def test_gradients_by_rollouts_are_those_of_a_merged_model(
    places: dict[str, Workplace],
    jobs: dict[str, list[Job]],
    merged: Callable[..., PreTrainedModel],
    monkeypatch: pytest.MonkeyPatch,
    rows: list[list[float]],
) -> None:
    """The soup as an adapter of its own answers; A leave-one-out, -A log pi + beta (exp(-l) - 1 + l) per token."""
    place = places["online"]
    environment = place.environment
    assert environment is not None
    base = place.scorer.model
    prompts = batch_order([len(ids) for ids in environment.prompt_ids], 3, place.seed, 0)

    def loss(dense: PreTrainedModel, number: int, weights: np.ndarray) -> Tensor:
        with AdapterBank(base, {"it": soup([job.start for job in jobs["online"]], weights.tolist())}) as bank:
            found = roll_out(environment, bank, ["it"], prompts, 4, f"mixtures/{place.seed}/0")
        rewards = found.rewards[0] @ weights
        advantages = (rewards - rewards.mean(1, keepdims=True)) * 4 / 3
        total = torch.zeros(())
        for p, place_of in enumerate(prompts):
            for c, response in enumerate(found.group(0, p)):
                own = logprobs(dense, environment.prompt_ids[place_of], response)
                with torch.no_grad():
                    gap = -logprobs(base, environment.prompt_ids[place_of], response)
                gap = gap + own
                total = total - advantages[p, c] * own.sum() + 0.2 * ((-gap).exp() - 1 + gap).sum()
        return total / 12

    draw(monkeypatch, rows)
    expected = of_dense_models(merged, jobs["online"], base, rows, loss)
    same(of_the_bank(monkeypatch, "online", jobs["online"], place), expected)


def test_one_hot_draws_are_modpo_of_the_corners(
    places: dict[str, Workplace], jobs: dict[str, list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each corner drawn once a step, on the pairs that it reads alone; AdamW does not feel the mean's half."""
    place, free = places["modpo"], OFFLINE | {"max_gradient_norm": 1e9}
    alone = modpo.train(jobs["modpo"], place, modpo.ModpoSettings.model_validate(free))
    draw(monkeypatch, np.eye(2))
    order = pair_loss.batch_order
    monkeypatch.setattr(pair_loss, "batch_order", lambda *a: order(*a[:3], a[3] // 2))  # both corners' batch of a step
    found = train(jobs["modpo"], place, settings("modpo", settings=free))
    assert largest_difference(found, alone) < 1e-4
    assert largest_difference(found, {job.key: job.start for job in jobs["modpo"]}) > 0.01


# Draws


def mixtures(place: Workplace, jobs: list[Job], **changes: Any) -> Mixtures:
    with AdapterBank(place.scorer.model, {job.key: job.start for job in jobs}) as bank:
        return Mixtures(bank, jobs, place, settings("modpo", **changes))


def test_drawn_preferences_are_a_function_of_seed_and_step(
    places: dict[str, Workplace], jobs: dict[str, list[Job]]
) -> None:
    place, corners = places["modpo"], jobs["modpo"]
    one, again = mixtures(place, corners), mixtures(place, corners[::-1])
    assert one.drawn(3).tolist() == again.drawn(3).tolist()
    assert one.drawn(3).tolist() != one.drawn(4).tolist()
    assert one.drawn(3).tolist() != mixtures(replace(place, seed=6), corners).drawn(3).tolist()
    assert one.row(np.array([0.3, 0.7])).tolist() == pytest.approx([0.3, 0.7])
    assert again.row(np.array([0.3, 0.7])).tolist() == pytest.approx([0.7, 0.3])  # columns as the bank has them


@pytest.mark.parametrize("concentration", [0.5, 1.0, 8.0])
def test_draws_are_of_the_symmetric_dirichlet(
    places: dict[str, Workplace], jobs: dict[str, list[Job]], concentration: float
) -> None:
    """Mean 1/m and variance (1/m)(1 - 1/m)/(m c + 1), within four standard errors of 4000 draws."""
    drawing = mixtures(places["modpo"], jobs["modpo"], concentration=concentration, draws=8)
    drawn = np.concatenate([drawing.drawn(step) for step in range(500)])
    assert drawn.sum(1) == pytest.approx(1)
    variance = 0.25 / (2 * concentration + 1)
    assert drawn.mean(0) == pytest.approx([0.5, 0.5], abs=4 * np.sqrt(variance / 4000))
    assert drawn.var(0) == pytest.approx([variance] * 2, rel=0.1)


# Restarts and failures


@pytest.mark.parametrize("by", ["modpo", "online"])
def test_a_stopped_training_goes_on_to_the_same_adapters(
    places: dict[str, Workplace], jobs: dict[str, list[Job]], tmp_path: Path, by: str
) -> None:
    """Stopped after the first and the third step of four; bit for bit. Passes do not matter either."""
    whole = train(jobs[by], places[by], settings(by))
    kept = replace(places[by], checkpoint=tmp_path / "group.safetensors")
    for stop in (2, 4):

        def interrupt(step: int, *_: Any, stop: int = stop) -> None:
            if step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(jobs[by], replace(kept, on_step=interrupt), settings(by))
    assert largest_difference(train(jobs[by], kept, settings(by)), whole) == 0.0
    assert largest_difference(train(jobs[by], replace(places[by], passes=3), settings(by)), whole) < 1e-4
    assert largest_difference({job.key: job.start for job in jobs[by]}, whole) > 0.01


def test_every_step_is_told(places: dict[str, Workplace], jobs: dict[str, list[Job]]) -> None:
    """By rollouts the divergence first, as online alignment has it; and whoever looks at the bank may."""
    for by, names in (("modpo", ["loss", "gradient_norm"]), ("online", ["kl", "loss", "gradient_norm"])):
        said: list[tuple[int, int, list[str]]] = []
        seen: list[int] = []
        place = replace(
            places[by],
            on_step=lambda step, steps, numbers, said=said: said.append((step, steps, list(numbers))),
            on_bank=lambda step, _, seen=seen: seen.append(step),
        )
        train([replace(job, steps=2) for job in jobs[by]], place, settings(by))
        assert said == [(1, 2, names), (2, 2, names)]
        assert seen == [1, 2]


def test_a_reward_that_is_nan_names_its_objective(places: dict[str, Workplace], jobs: dict[str, list[Job]]) -> None:
    place = places["online"]
    assert place.environment is not None
    plain = place.environment.score

    def spoilt(*given: Any) -> np.ndarray:
        found = plain(*given)
        found[5, 1] = np.nan
        return found

    broken = replace(place, environment=replace(place.environment, score=spoilt))
    with pytest.raises(UserError, match=f"objective '{SCORED[1]}' gave no finite score to a completion"):
        train(jobs["online"], broken, settings("online"))
