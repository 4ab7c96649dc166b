"""Online alignment against policy gradients as anyone would write them, one policy and one sequence at a time."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from places import SCORED as NAMES
from places import largest_difference, score, scored, talkative
from torch import Tensor
from weighters import Scaled

from moalign.adapters import Adapter, write_adapter
from moalign.bank import AdapterBank
from moalign.logprobs import Scorer
from moalign.methods.online import train
from moalign.methods.online_settings import OnlineSettings
from moalign.models import BaseModel
from moalign.preference import Preference
from moalign.rollouts import Rollouts, roll_out
from moalign.training import batch_order
from moalign.workplace import Job, Workplace

SETTINGS = OnlineSettings(
    beta=0.2, steps=2, prompts=3, completions=4, learning_rate=0.01, warmup=0.0, max_gradient_norm=0.5
)
ESTIMATORS = ("grpo", "rloo", "reinforce", "dr_grpo")
AGGREGATIONS = ("sum_then_normalize", "normalize_then_sum")


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> BaseModel:
    return talkative(tiny_base)


@pytest.fixture(scope="module")
def workplace(base: BaseModel) -> Workplace:
    return scored(base)


@pytest.fixture(scope="module")
def jobs(base: BaseModel, random_adapter: Callable[..., Adapter]) -> list[Job]:
    start = random_adapter(base.model, 1, rank=2, alpha=4)
    wishes = [Preference.of({"long": share, "low": 1 - share}) for share in (1.0, 0.4, 0.0)]
    return [Job(wish.key, wish, "long", start, SETTINGS.steps) for wish in wishes]


def settings(**changes: Any) -> OnlineSettings:
    return OnlineSettings.model_validate(SETTINGS.model_dump() | changes)


# A second derivation: one policy, one sequence at a time, textbook formulas in numpy


def plain_advantages(rewards: np.ndarray, weights: np.ndarray, how: OnlineSettings, past: list[np.ndarray]):
    """(p, g, m) to (p, g): the formulas of GRPO, Dr. GRPO, RLOO, REINFORCE and GDPO."""
    p, g, _ = rewards.shape
    if how.estimator == "reinforce" and past:
        share = 0.1 * 0.9 ** np.arange(len(past))[::-1]
        mean = sum(s * each.mean((0, 1)) for s, each in zip(share, past, strict=True)) / share.sum()
        square = sum(s * (each**2).mean((0, 1)) for s, each in zip(share, past, strict=True)) / share.sum()
        centred, deviation = rewards - mean, np.sqrt(square - mean**2)
    elif how.estimator == "reinforce":
        others = (rewards.sum((0, 1)) - rewards) / (p * g - 1)
        centred, deviation = rewards - others, rewards.reshape(p * g, -1).std(0, ddof=1)
    else:
        centred, deviation = rewards - rewards.mean(1, keepdims=True), rewards.std(1, ddof=1, keepdims=True)
        centred = centred * (g / (g - 1) if how.estimator == "rloo" else 1.0)
    if how.aggregation == "sum_then_normalize":
        spread = (rewards @ weights).std(1, ddof=1, keepdims=True) if how.estimator == "grpo" else 1.0
        return centred @ weights / spread
    total = (centred / deviation) @ weights
    return (total - total.mean()) / total.std(ddof=1)


def plain_loss(
    model: PeftModel,
    rollouts: Rollouts,
    ids: Sequence[list[int]],
    advantages: np.ndarray,
    how: OnlineSettings,
    old: Any,
) -> tuple[Tensor, list[Tensor]]:
    """The mean over completions of the clipped surrogate and of the divergence, sequence by sequence."""

    def logprobs(prompt: list[int], response: list[int], adapted: bool) -> Tensor:
        with nullcontext() if adapted else model.disable_adapter():
            out = model(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        return torch.stack([out[len(prompt) - 1 + i, token] for i, token in enumerate(response)])

    places = [(p, g) for p in range(len(rollouts.prompts)) for g in range(advantages.shape[1])]
    prompts = [ids[rollouts.prompts[p]] for p, _ in places]
    own = [logprobs(x, y, True) for x, y in zip(prompts, rollouts.responses, strict=True)]
    old = [each.detach() for each in own] if old is None else old
    with torch.no_grad():
        reference = [logprobs(x, y, False) for x, y in zip(prompts, rollouts.responses, strict=True)]
    ratio = torch.stack([(a - b).sum() for a, b in zip(old, reference, strict=True)]).reshape(advantages.shape)
    others = (ratio.sum(1, keepdim=True) - ratio) / (ratio.shape[1] - 1)
    whole = torch.tensor(advantages) - (how.beta * (ratio - others) if how.kl == "k1" else 0.0)
    losses = []
    for place, new, was, theirs in zip(places, own, old, reference, strict=True):
        if how.mask_truncated and rollouts.truncated[0][place]:
            losses.append(0 * new.sum())
            continue
        rho, A, gap = (new - was).exp(), whole[place], new - theirs
        each = -torch.minimum(rho * A, rho.clamp(1 - how.clip, 1 + how.clip) * A)
        each = each + {"k1": 0.0, "k2": how.beta * gap**2 / 2, "k3": how.beta * ((-gap).exp() - 1 + gap)}[how.kl]
        losses.append({"grpo": each.mean(), "dr_grpo": each.sum() / 6}.get(how.estimator, each.sum()))
    return torch.stack(losses).mean(), old


def plain_training(model: PeftModel, job: Job, workplace: Workplace, how: OnlineSettings) -> list[float]:
    """The same rollouts, drawn by the bank; everything after them with PEFT and torch alone."""
    environment = workplace.environment
    assert environment is not None
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(parameters, weight_decay=how.weight_decay)
    past: list[np.ndarray] = []
    losses = []
    for step in range(how.steps):
        drawn = batch_order([len(each) for each in environment.prompt_ids], how.prompts, workplace.seed, step)
        with AdapterBank(environment.base.model, {job.key: adapter_of(model, job.start)}) as bank:
            rollouts = roll_out(
                environment, bank, [job.key], drawn, how.completions, f"rollout/{workplace.seed}/{step}"
            )
        advantages = plain_advantages(rollouts.rewards[0], job.preference.vector(NAMES), how, past)
        past.append(rollouts.rewards[0])
        old = None
        for update in range(how.updates):
            loss, old = plain_loss(model, rollouts, environment.prompt_ids, advantages, how, old)
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, how.max_gradient_norm)
            adam.param_groups[0]["lr"] = how.learning_rate * 0.5 * (1 + np.cos(np.pi * step / how.steps))
            adam.step()
            losses += [loss.item()] * (update == 0)
    return losses


def adapter_of(model: PeftModel, like: Adapter) -> Adapter:
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    layers = {
        name: replace(
            layer,
            A=weights[f"base_model.model.{name}.lora_A.default.weight"],
            B=weights[f"base_model.model.{name}.lora_B.default.weight"],
        )
        for name, layer in like.layers.items()
    }
    return replace(like, layers=layers)


CASES = [
    *({"estimator": e, "aggregation": a} for e in ESTIMATORS for a in AGGREGATIONS),
    *({"kl": kl, "estimator": e} for kl in ("k2", "k3") for e in ("grpo", "rloo")),
    {"updates": 3, "learning_rate": 0.05, "clip": 0.02},
    {"mask_truncated": True},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_training_is_what_peft_and_textbook_formulas_give(
    jobs: list[Job],
    workplace: Workplace,
    tmp_path: Path,
    load_with_peft: Callable[..., PeftModel],
    changes: dict[str, Any],
) -> None:
    """The preference (.4, .6), trained beside two others: the same losses, and in the end the same weights."""
    how = settings(**changes)
    said: list[float] = []
    train([jobs[1]], replace(workplace, on_step=lambda *a: said.append(a[2]["loss"])), how)
    together = train(jobs, workplace, how)
    write_adapter(jobs[1].start, tmp_path, "base")
    model = load_with_peft(workplace.scorer.model, tmp_path, is_trainable=True)
    losses = plain_training(model, jobs[1], workplace, how)
    assert said == pytest.approx(losses, rel=1e-5, abs=2e-5)
    found = {jobs[1].key: together[jobs[1].key]}
    assert largest_difference(found, {jobs[1].key: adapter_of(model, jobs[1].start)}) < 2e-4
    assert largest_difference(found, {jobs[1].key: jobs[1].start}) > 5e-3


@pytest.mark.parametrize("passes", [2, 9])
def test_neither_neighbours_nor_passes_change_a_result(jobs: list[Job], workplace: Workplace, passes: int) -> None:
    """9 groups per step in passes of 5 (cut across policies) or one by one; each alone; in another order."""
    together = train(jobs, workplace, SETTINGS)
    alone = {key: adapter for job in jobs for key, adapter in train([job], workplace, SETTINGS).items()}
    cut = train(jobs[::-1], replace(workplace, passes=passes), SETTINGS)
    assert largest_difference(alone, together) < 1e-4
    assert largest_difference(cut, together) < 1e-4
    assert (
        largest_difference(
            {job.key: together[jobs[0].key] for job in jobs[1:]}, {j.key: together[j.key] for j in jobs[1:]}
        )
        > 1e-3
    )


# Reward weighting


@pytest.mark.parametrize("kl", ["k1", "k3"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_update_put_together_from_the_objectives_gradients_is_the_update(
    jobs: list[Job], workplace: Workplace, estimator: str, aggregation: str, kl: str
) -> None:
    """With mu so large that the weights stay, gradient weighting must train what fixed weights train.

    (Unclipped where they shall move: I_1 - I_2 = |g_1|^2 - |g_2|^2, which is 0 for two gradients clipped to one norm.)
    """
    how = {"estimator": estimator, "aggregation": aggregation, "kl": kl, "updates": 2}
    fixed = train(jobs[1:], workplace, settings(**how))
    still = train(jobs[1:], workplace, settings(**how, weighting={"type": "gradient", "mu": 1e9}))
    moved = train(jobs[1:], workplace, settings(**how, weighting={"type": "gradient", "mu": 1e-2, "clip": None}))
    assert largest_difference(still, fixed) < 2e-4
    assert largest_difference(moved, fixed) > 1e-3


def test_gradient_weighting_costs_one_forward_pass_and_a_backward_pass_per_objective(
    jobs: list[Job], workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two objectives and the divergence: three backward passes of one graph, for all preferences together."""
    graphs: list[int] = []
    original = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: (graphs.append(1), original(*a, **k))[1])
    calls: list[bool] = []
    own = Scorer.token_logprobs
    monkeypatch.setattr(Scorer, "token_logprobs", lambda *a: (calls.append(torch.is_grad_enabled()), own(*a))[1])
    train(jobs, workplace, settings(weighting="gradient"))
    assert len(graphs) == 3 * SETTINGS.steps
    # The policy, and the reference without gradients; what comes after is the look at the end.
    assert calls[: 2 * SETTINGS.steps] == [True, False] * SETTINGS.steps
    assert not any(calls[2 * SETTINGS.steps :])


def test_the_gram_matrix_and_the_weights_are_logged(jobs: list[Job], workplace: Workplace) -> None:
    """Inner products of a second derivation: gradients of one objective at a time, by training on it alone."""
    lines: list[dict[str, Any]] = []
    how = settings(weighting={"type": "gradient", "mu": 1e-2, "clip": None}, steps=1, beta=0.0, max_gradient_norm=1e9)
    one = replace(jobs[1], steps=1)
    train([one], replace(workplace, on_record=lambda _, values: lines.append(values)), how)
    gram = np.array(lines[0]["gram"])
    for k, name in enumerate(NAMES):
        norms: list[float] = []
        corner = replace(one, preference=Preference.of({name: 1.0}))
        place = replace(workplace, on_step=lambda *a, norms=norms: norms.append(a[2]["gradient_norm"]))
        found = settings(steps=1, beta=0.0, max_gradient_norm=1e9)
        train([corner], place, found)
        # A corner's advantages are whitened once more: by sqrt((n - p) / (n - 1)) for p groups of unit variance.
        whitened = np.sqrt((12 - 3) / (12 - 1))
        assert gram[k, k] == pytest.approx((norms[0] * whitened) ** 2, rel=1e-4)
    assert gram[0, 1] == pytest.approx(gram[1, 0])
    weights = lines[0]["weights"]
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["low"] != pytest.approx(0.6)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_scale_acts_and_on_rewards_it_would_not(
    jobs: list[Job], workplace: Workplace, estimator: str, aggregation: str
) -> None:
    """Twice the scale is twice the gradient, for every estimator. Twice the rewards is the same gradient wherever a
    deviation is divided out: there the paper's placement is a no-op."""

    def norm(place: Workplace, **changes: Any) -> float:
        found: list[float] = []
        how = settings(estimator=estimator, aggregation=aggregation, beta=0.0, steps=1, **changes)
        train([replace(jobs[1], steps=1)], replace(place, on_step=lambda *a: found.append(a[2]["gradient_norm"])), how)
        return found[0]

    plain = norm(workplace)
    assert plain > 1e-3
    assert norm(workplace, weighting={"type": "weighters:Scaled", "scale": 2.0}) == pytest.approx(2 * plain, rel=1e-4)
    assert workplace.environment is not None
    doubled = replace(workplace.environment, score=lambda *a: 2 * score(*a))
    naive = norm(replace(workplace, environment=doubled))
    divided = estimator == "grpo" or aggregation == "normalize_then_sum"
    assert naive == pytest.approx(plain if divided else 2 * plain, rel=1e-4)


def test_units_of_an_objective_do_not_matter_after_its_own_normalisation(jobs: list[Job], workplace: Workplace) -> None:
    """MO-GRPO's invariance: one objective in thousandths and shifted, and the same update; summed first, another."""
    assert workplace.environment is not None
    units = np.array([1000.0, 1.0]), np.array([-7.0, 0.0])
    other = replace(workplace.environment, score=lambda *a: score(*a) * units[0] + units[1])
    elsewhere = replace(workplace, environment=other)
    for estimator in ESTIMATORS:
        how = settings(estimator=estimator)
        found = [train([jobs[1]], place, how) for place in (workplace, elsewhere)]
        assert largest_difference(*found) < 1e-4
    summed = settings(aggregation="sum_then_normalize")
    found = [train([jobs[1]], place, summed) for place in (workplace, elsewhere)]
    assert largest_difference(*found) > 1e-3


def test_a_jobs_own_weighter_decides_in_place_of_the_settings(jobs: list[Job], workplace: Workplace) -> None:
    """Wished (.4, .6) and weighed (.9, .1), whatever `weighting` says: bit for bit what (.9, .1) trains."""
    how = settings(aggregation="sum_then_normalize", weighting="gradient")
    steered = replace(jobs[1], weighter=Scaled(np.array([0.9, 0.1])))
    wish = Preference.of({"long": 0.9, "low": 0.1})
    plain = replace(jobs[1], preference=wish)
    found = train([steered], workplace, how)
    expected = train([plain], workplace, settings(aggregation="sum_then_normalize"))
    assert largest_difference(found, expected) == 0.0
    assert largest_difference(train([jobs[1]], workplace, settings(aggregation="sum_then_normalize")), expected) > 1e-3


# Guards and restarts


class Failing:
    """Scores that are NaN for the first policy from one call on."""

    def __init__(self, call: int, rows: int = 12):
        self.calls, self.call, self.rows = 0, call, rows

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
        self.calls += 1
        found = score(prompts, responses)
        if self.calls == self.call:
            found[1 : self.rows, 1] = np.nan
        return found


def test_a_reward_that_is_nan_stops_its_preference_alone(jobs: list[Job], workplace: Workplace) -> None:
    """At the third step: the first preference keeps the adapter of two steps, the others never notice."""
    assert workplace.environment is not None
    how, long = settings(steps=4), [replace(job, steps=4) for job in jobs]
    said: list[str] = []
    stopped: dict[str, Any] = {}
    failing = replace(
        workplace,
        environment=replace(workplace.environment, score=Failing(3)),
        notice=said.append,
        on_stop=stopped.__setitem__,
    )
    found, whole = train(long, failing, how), train(long, workplace, how)
    others = {job.key: whole[job.key] for job in jobs[1:]}
    assert largest_difference({key: found[key] for key in others}, others) < 1e-5
    assert said == [
        "long100 stopped in step 3: objective 'low' gave no finite score to 11 of its completions; its last good "
        "adapter is kept"
    ]
    assert stopped == {"long100": {"step": 2, "reason": said[0].partition(": ")[2].partition(";")[0]}}

    assert largest_difference({"long100": found["long100"]}, {"long100": jobs[0].start}) > 1e-3
    assert largest_difference({"long100": found["long100"]}, {"long100": whole["long100"]}) > 1e-4


def test_a_loss_that_is_no_longer_finite_stops_its_preference_alone(jobs: list[Job], workplace: Workplace) -> None:
    """A factor of 1e30 makes infinities of its policy's logits."""
    layers = {name: replace(layer, B=layer.B * 1e30, A=layer.A * 1e30) for name, layer in jobs[0].start.layers.items()}
    broken = replace(jobs[0], start=replace(jobs[0].start, layers=layers))
    said: list[str] = []
    found = train([broken, *jobs[1:]], replace(workplace, notice=said.append), SETTINGS)
    assert len(said) == 1
    assert said[0].startswith("long100 stopped in step 1: its loss is no longer finite; a lower learning_rate helps")
    others = {job.key: adapter for job in jobs[1:] for adapter in [train([job], workplace, SETTINGS)[job.key]]}
    assert largest_difference({key: found[key] for key in others}, others) < 1e-4


@pytest.mark.parametrize("weighting", ["fixed", {"type": "hypervolume", "every": 2}, {"type": "gradient", "mu": 1e-3}])
def test_a_stopped_training_goes_on_to_the_same_adapters(
    jobs: list[Job], workplace: Workplace, tmp_path: Path, weighting: Any
) -> None:
    """Stopped in the second and the fourth step of five; moments, archive and weights are carried over, bit for bit."""
    how = settings(steps=5, estimator="reinforce", weighting=weighting, validation_prompts=1)
    long = [replace(job, steps=5) for job in jobs]
    kept = replace(workplace, checkpoint=tmp_path / "group.safetensors")
    for stop in (2, 4):

        def interrupt(step: int, *_: Any, stop: int = stop) -> None:
            if step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(long, replace(kept, on_step=interrupt), how)
    assert largest_difference(train(long, kept, how), train(long, workplace, how)) == 0.0


def test_entropy_collapse_is_told_once(jobs: list[Job], workplace: Workplace) -> None:
    """Trained hard to write low letters, of which there are few; below 97 % of the first entropy it is told."""
    said: list[str] = []
    how = settings(entropy_floor=0.97, learning_rate=0.1, beta=0.0, steps=12)
    train([replace(jobs[2], steps=12)], replace(workplace, notice=said.append), how)
    assert len(said) == 1
    assert said[0].startswith("low100: entropy has collapsed to ")
