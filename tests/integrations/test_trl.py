"""The real GRPOTrainer on a tiny Llama: where weights and scale enter, what a checkpoint keeps, what is refused."""

import ast
import copy
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer
from trl import GRPOConfig, GRPOTrainer

from moalign.errors import ConfigError, ObjectiveError, PreferenceError, RunError
from moalign.integrations.trl import DynamicRewardWeights
from moalign.weighting import Fixed, Observation, Weighting

# trl 1.16 still asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ROOT = Path(__file__).parents[2]
PROMPTS = ["a b c", "hello", "12", "what is it?", "so", "and then", "no", "why?"]
AGGREGATIONS = ("sum_then_normalize", "normalize_then_sum")
HALVES = {"high": 0.5, "odd": 0.5}


def high(completion_ids, **_):
    return [float(np.mean(ids)) for ids in completion_ids]


def odd(completion_ids, **_):
    return [float(np.mean(np.array(ids) % 2)) for ids in completion_ids]


def sometimes(completion_ids, **_):
    return [None if row % 4 == 1 else float(np.mean(ids)) for row, ids in enumerate(completion_ids)]


def never(completion_ids, **_):
    return [None] * len(completion_ids)


class Steps:
    """Answers one weighting after the other, and remembers what it saw; its state is how many it has answered."""

    def __init__(self, *answers: Weighting, needs: frozenset[str] = frozenset(), every: int = 1):
        self.answers = answers
        self.needs = needs
        self.validation_every = every
        self.seen: list[Observation] = []
        self.done = 0

    def update(self, seen: Observation) -> Weighting:
        self.seen.append(seen)
        self.done += 1
        return self.answers[(self.done - 1) % len(self.answers)]

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


def weighting(*weights, scale=1.0):
    return Weighting(np.array(weights, dtype=float), scale)


@pytest.fixture(scope="module")
def base(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)


@pytest.fixture
def make_trainer(base, tokenizer, tmp_path):
    """make_trainer(rewards, steps=2, ...): a GRPOTrainer of a fresh copy, four completions for each of two prompts."""

    def make(rewards=(high, odd), steps=2, evaluated=None, **changes):
        settings = {
            "output_dir": str(tmp_path),
            "max_steps": steps,
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 8,
            "learning_rate": 1e-2,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "bf16": False,
            "activation_checkpointing": False,  # TRL's default is transformers' old name for it, which warns
            "seed": 3,
        }
        return GRPOTrainer(
            model=copy.deepcopy(base),
            processing_class=tokenizer,
            reward_funcs=list(rewards),
            eval_dataset=evaluated,
            train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
            args=GRPOConfig(**{**settings, **changes}),
        )

    return make


def train(trainer, weighter, *, resume=None, **options):
    """Train under this weighter; the advantages of each call of the loss, as TRL shuffles them, and the callback."""
    callback = DynamicRewardWeights(trainer, weighter, **options)
    trainer.add_callback(callback)
    losses = spy(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return losses, callback


def spy(trainer):
    """The advantages that the loss is given, sorted: a list that grows while the trainer trains."""
    found, compute = [], trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        found.append(np.sort(inputs["advantages"].double().numpy()))
        return compute(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    return found


def parameters(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def expected(rewards, weights, aggregation):
    """TRL's advantages once more: groups of four, sample deviations, 1e-4."""
    groups = rewards.reshape(-1, 4, rewards.shape[1])
    if aggregation == "sum_then_normalize":
        total = groups @ weights
        return ((total - total.mean(1, keepdims=True)) / (total.std(1, ddof=1, keepdims=True) + 1e-4)).flatten()
    each = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)
    total = (each @ weights).flatten()
    return (total - total.mean()) / (total.std(ddof=1) + 1e-4)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_each_batch_is_learnt_from_with_the_weights_and_the_scale_that_it_led_to(make_trainer, aggregation):
    """The advantages in the loss are scale * A(rewards of this batch, weights of this batch), and both are logged."""
    answers = (weighting(1, 0), weighting(0, 1, scale=0.5), weighting(0.03, 0.97, scale=1.5))
    trainer = make_trainer(steps=3, multi_objective_aggregation=aggregation)
    weighter = Steps(*answers)
    losses, _ = train(trainer, weighter)
    assert [seen.step for seen in weighter.seen] == [0, 1, 2]
    assert {seen.learning_rate for seen in weighter.seen} == {0.01}
    for seen, answer, found in zip(weighter.seen, answers, losses, strict=True):
        assert seen.validation is None
        right = answer.scale * expected(seen.rewards, answer.weights, aggregation)
        np.testing.assert_allclose(found, np.sort(right), rtol=1e-3, atol=1e-4)
    assert logged(trainer, "reward_weights/high") == pytest.approx([1, 0, 0.03])
    assert logged(trainer, "reward_weights/odd") == pytest.approx([0, 1, 0.97])
    assert logged(trainer, "reward_scale") == [1, 0.5, 1.5]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_scale_changes_the_update_and_would_not_if_it_multiplied_the_rewards(make_trainer, aggregation):
    """One step of SGD: 1.5 times the advantages move 1.5 times as far; 1.5 times the weights move just as far."""
    moved = []
    for answer in (weighting(0.2, 0.8), weighting(0.2, 0.8, scale=1.5), weighting(0.3, 1.2)):
        trainer = make_trainer(steps=1, multi_objective_aggregation=aggregation)
        before = parameters(trainer)
        train(trainer, Steps(answer))
        moved.append((parameters(trainer) - before).double())
    plain, scaled, naive = moved
    assert plain.norm() > 1e-2
    assert (scaled - 1.5 * plain).norm() < 1e-3 * plain.norm()
    assert (naive - plain).norm() < 1e-2 * plain.norm()  # what is left is TRL's 1e-4 beside the deviation


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_fixed_weights_are_plain_trl_bit_for_bit(make_trainer, aggregation):
    settings = {"steps": 3, "multi_objective_aggregation": aggregation, "beta": 0.1, "max_grad_norm": 1.0}
    plain = make_trainer(reward_weights=[0.3, 0.7], **settings)
    plain.train()
    ours = make_trainer(**settings)
    train(ours, "fixed", preference="high=3,odd=7")
    assert torch.equal(parameters(plain), parameters(ours))
    assert logged(plain, "reward") == logged(ours, "reward")


@pytest.mark.parametrize(
    "inner", [{"num_iterations": 2}, {"steps_per_generation": 2, "per_device_train_batch_size": 4}]
)
def test_one_update_for_each_batch_of_rollouts(make_trainer, inner):
    """Two steps of the optimiser on one batch of rollouts share its weights and its scale."""
    weighter = Steps(weighting(1, 0), weighting(0, 1, scale=2.0))
    losses, _ = train(make_trainer(steps=4, **inner), weighter)
    assert len(losses) == 4
    assert weighter.done == 2
    for seen, answer, pair in zip(weighter.seen, weighter.answers, (losses[:2], losses[2:]), strict=True):
        right = answer.scale * expected(seen.rewards, answer.weights, "sum_then_normalize")
        for value in np.concatenate(pair):
            assert np.abs(right - value).min() < 1e-3


def test_an_evaluation_uses_the_last_weights_and_is_not_a_batch(make_trainer):
    held_out = Dataset.from_dict({"prompt": PROMPTS[:2]})
    trainer = make_trainer(steps=2, evaluated=held_out, eval_strategy="steps", eval_steps=1)
    weighter = Steps(weighting(1, 0), weighting(0, 1, scale=9.0))
    train(trainer, weighter)
    assert weighter.done == 2
    assert logged(trainer, "eval_reward") == pytest.approx(
        [logged(trainer, "eval_rewards/high/mean")[0], logged(trainer, "eval_rewards/odd/mean")[1]]
    )


def test_an_evaluation_before_training_weighs_as_the_preference_says(make_trainer):
    held_out = Dataset.from_dict({"prompt": PROMPTS[:2]})
    trainer = make_trainer(steps=1, evaluated=held_out, eval_strategy="steps", eval_on_start=True)
    train(trainer, "fixed", preference="odd=1,high=0")
    assert logged(trainer, "eval_reward")[0] == logged(trainer, "eval_rewards/odd/mean")[0]


def test_training_twice_scales_once(make_trainer):
    trainer = make_trainer(steps=1)
    weighter = Steps(weighting(1, 0, scale=1.5))
    losses, _ = train(trainer, weighter)
    trainer.train()
    assert weighter.done == 2
    for seen, found in zip(weighter.seen, losses, strict=True):
        right = 1.5 * expected(seen.rewards, np.array([1.0, 0.0]), "sum_then_normalize")
        np.testing.assert_allclose(found, np.sort(right), rtol=1e-3, atol=1e-4)


def test_validation_is_by_default_the_running_mean_of_the_training_rewards(make_trainer):
    """From the first batch's mean, in its deviations: (running mean - mean_0) / std_0, the first 0; memory 2."""
    weighter = Steps(weighting(0.5, 0.5), needs=frozenset({"validation"}))
    train(make_trainer(steps=3), weighter, memory=2)
    first, second, third = (seen.rewards.mean(axis=0) for seen in weighter.seen)
    deviation = weighter.seen[0].rewards.std(axis=0)
    running = [first, (first + second) / 2, ((first + second) / 2 + third) / 2]
    for seen, mean in zip(weighter.seen, running, strict=True):
        np.testing.assert_allclose(seen.validation, (mean - first) / deviation, atol=1e-12)


def test_validation_may_be_the_users_own(make_trainer):
    """Every second batch here, before its update; in evaluation mode, and training goes on in training mode."""
    calls = []

    def validate(model):
        calls.append((model.training, torch.is_grad_enabled()))
        return {"odd": 3.0, "high": 10.0 + 4.0 * len(calls)}

    trainer = make_trainer(steps=5)
    weighter = Steps(weighting(0.5, 0.5), needs=frozenset({"validation"}), every=2)
    train(trainer, weighter, validate=validate)
    assert calls == [(False, False)] * 3
    assert [seen.validation is None for seen in weighter.seen] == [False, True, False, True, False]
    unit = weighter.seen[0].rewards.std(axis=0)[0]
    for step, gain in ((0, 0.0), (2, 4.0), (4, 8.0)):
        np.testing.assert_allclose(weighter.seen[step].validation, [gain / unit, 0.0])


def test_the_hypervolume_scale_reaches_the_advantages(make_trainer):
    """Both objectives one deviation up: 0.5 + 1.5 tanh(1), from the second batch on; without news 0.5."""
    means = iter([0.0, 1.0, 0.5])
    weighter = Steps(weighting(0.5, 0.5), needs=frozenset({"validation"}))
    train(make_trainer(steps=1), weighter)  # the same seed, so the same first batch: for its deviations
    high_unit, odd_unit = weighter.seen[0].rewards.std(axis=0)

    def validate(model):
        gain = next(means)
        return {"high": gain * high_unit, "odd": gain * odd_unit}

    trainer = make_trainer(steps=3)
    train(trainer, "hypervolume", preference=HALVES, settings={"every": 1}, validate=validate)
    assert logged(trainer, "reward_scale") == pytest.approx([1.0, 0.5 + 1.5 * np.tanh(1.0), 0.5], rel=1e-5)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_rewards_that_do_not_apply(make_trainer, aggregation):
    """None is left out of the means, and shown to the weighter as its objective's mean; no advantage is NaN."""
    rewards = []

    def recorded(**arguments):
        rewards.append(sometimes(**arguments))
        return rewards[-1]

    trainer = make_trainer([recorded, never, odd], steps=2, multi_objective_aggregation=aggregation)
    weighter = Steps(weighting(0.5, 0.2, 0.3), needs=frozenset({"validation"}))
    losses, _ = train(trainer, weighter)
    assert all(np.isfinite(found).all() and np.abs(found).max() > 0.1 for found in losses)
    for seen, given in zip(weighter.seen, rewards, strict=True):
        known = [value for value in given if value is not None]
        column = [np.mean(known) if value is None else value for value in given]
        np.testing.assert_allclose(seen.rewards[:, 0], column, rtol=1e-5)
        assert not seen.rewards[:, 1].any()
    means = [np.mean([value for value in given if value is not None]) for given in rewards]
    unit = np.std([value for value in rewards[0] if value is not None])
    found = weighter.seen[1].validation
    assert found[:2] == pytest.approx([(means[1] - means[0]) / 2 / unit, 0.0], rel=1e-4)


@pytest.mark.parametrize("flag", [False, True])
def test_training_that_resumes_is_training_that_never_stopped(make_trainer, flag):
    """Four steps at once, and two and two: the same parameters, weights, validation and scale, bit for bit.

    Within an epoch: transformers itself draws other random numbers when it resumes where an epoch ends.
    """
    answers = [weighting(0.1, 0.9, scale=1.2), weighting(0.5, 0.5), weighting(0.8, 0.2, scale=0.7), weighting(0, 1)]
    settings = {"steps": 4, "save_strategy": "steps", "save_steps": 2}
    straight, whole = make_trainer(**settings), Steps(*answers, needs=frozenset({"validation"}))
    expected_losses, _ = train(straight, whole)
    checkpoint = Path(straight.args.output_dir) / "checkpoint-2"
    json.loads((checkpoint / "trainer_state.json").read_text(), parse_constant=pytest.fail)  # no NaN, which is no JSON
    resumed = make_trainer(restore_callback_states_from_checkpoint=flag, **settings)
    rest = Steps(*answers, needs=frozenset({"validation"}))
    losses, _ = train(resumed, rest, resume=str(checkpoint))
    assert [seen.step for seen in rest.seen] == [2, 3]
    assert rest.done == 4
    for one, other in zip(whole.seen[2:], rest.seen, strict=True):
        np.testing.assert_array_equal(one.rewards, other.rewards)
        np.testing.assert_array_equal(one.validation, other.validation)
    np.testing.assert_array_equal(expected_losses[2:], losses)
    assert torch.equal(parameters(straight), parameters(resumed))


def test_a_checkpoint_without_our_state_starts_the_weighter_anew(make_trainer):
    plain = make_trainer(steps=1, save_strategy="steps", save_steps=1)
    plain.train()
    weighter = Steps(weighting(1, 0), needs=frozenset({"validation"}))
    trainer = make_trainer(steps=2, save_strategy="steps", save_steps=1)
    train(trainer, weighter, resume=True)
    assert [seen.step for seen in weighter.seen] == [0]
    assert not weighter.seen[0].validation.any()


def test_a_checkpoint_of_other_rewards_is_refused(make_trainer):
    train(make_trainer(steps=1, save_strategy="steps", save_steps=1), "fixed", preference=HALVES)
    trainer = make_trainer([odd, high], steps=2)
    with pytest.raises(RunError, match="the checkpoint's reward functions are high, odd, but now they are odd, high"):
        train(trainer, "fixed", preference=HALVES, resume=True)


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        ({"weighter": "fixed"}, ConfigError, r"'fixed' needs a preference, such as 'high=0.5,odd=0.5'"),
        (
            {"preference": {"hihg": 0.5, "odd": 0.5}},
            PreferenceError,
            r"unknown objective 'hihg'; did you mean 'high'\?",
        ),
        ({"preference": {"high": 1.0}}, ConfigError, "no weight for reward function odd; say 0 if it is not to count"),
        ({"weighter": "fixd", "preference": HALVES}, ConfigError, "did you mean 'fixed'"),
        (
            {"weighter": "gradient", "preference": HALVES},
            ConfigError,
            "Gradient needs the gradient of each reward alone",
        ),
        ({"settings": {"x": 1}, "preference": HALVES}, ConfigError, "'x'"),
        ({"names": ["a", "b", "c"]}, ConfigError, r"3 names \(a, b, c\) for 2 reward functions \(high, odd\)"),
        (
            {"names": ["odd", "high"]},
            ConfigError,
            "names are in the order odd, high, but reward_funcs in the order high, odd",
        ),
        ({"names": ["a", "a"]}, ConfigError, r"two reward functions have the same name \(a, a\)"),
        ({"preference": HALVES, "memory": 0}, ConfigError, "memory is 0"),
        ({"preference": HALVES, "validate": dict}, ConfigError, "Fixed reads no validation; leave validate out"),
        ({"weighter": Fixed(np.ones(2) / 2), "preference": HALVES}, ConfigError, "leave them out here"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make_trainer, arguments, error, line):
    with pytest.raises(error, match=line) as raised:
        DynamicRewardWeights(make_trainer(), **{"weighter": "fixed", **arguments})
    assert "\n" not in str(raised.value)


def test_names_of_ones_own_where_trls_repeat(make_trainer):
    trainer = make_trainer([lambda **given: high(**given), lambda **given: odd(**given)], steps=1)
    with pytest.raises(ConfigError, match="two reward functions have the same name"):
        DynamicRewardWeights(trainer, "fixed", preference=HALVES)
    train(trainer, "fixed", preference="odd=0.9,high=0.1", names=["high", "odd"])
    assert logged(trainer, "reward_weights/odd") == pytest.approx([0.9])


def test_weights_in_the_config_would_be_replaced(make_trainer):
    with pytest.raises(ConfigError, match="reward_weights in GRPOConfig would be replaced; leave it out"):
        DynamicRewardWeights(make_trainer(reward_weights=[1.0, 2.0]), "fixed", preference=HALVES)


def test_another_kind_of_trainer(make_trainer, monkeypatch):
    with pytest.raises(ConfigError, match="needs TRL's GRPOTrainer; this is a Trainer"):
        DynamicRewardWeights(Trainer.__new__(Trainer), "fixed", preference=HALVES)
    trainer = make_trainer()
    monkeypatch.delattr(GRPOTrainer, "_log_metric")
    with pytest.raises(ConfigError, match=r"has no _log_metric; moalign was written for trl 1\.16"):
        DynamicRewardWeights(trainer, "fixed", preference=HALVES)


def test_one_callback_for_one_trainer(make_trainer):
    one, other = make_trainer(), make_trainer()
    one.add_callback(DynamicRewardWeights(other, "fixed", preference=HALVES))
    with pytest.raises(ConfigError, match="was made from another trainer"):
        one.train()
    for _ in range(2):
        other.add_callback(DynamicRewardWeights(other, "fixed", preference=HALVES))
    with pytest.raises(ConfigError, match="from one DynamicRewardWeights; it has more"):
        other.train()


@pytest.mark.parametrize(
    "answer",
    [weighting(1), weighting(np.nan, 1), weighting(-1, 2), weighting(1, 0, scale=0.0), weighting(1, 0, scale=np.inf)],
)
def test_a_weighter_that_goes_wrong_stops_the_training(make_trainer, answer):
    """TRL would turn NaN advantages into 0 and go on without a word."""
    with pytest.raises(ConfigError, match=r"the weighter gave weights .* expected 2 finite weights >= 0 \(high, odd\)"):
        train(make_trainer(), Steps(answer))


@pytest.mark.parametrize(
    ("means", "line"),
    [
        ({"high": 1.0}, "validate gave high; expected high, odd"),
        ({}, "validate gave nothing; expected high, odd"),
        ({"high": np.nan, "odd": 1.0}, "validate gave nan for 'high'; expected a finite number"),
    ],
)
def test_a_validation_that_goes_wrong_stops_the_training(make_trainer, means, line):
    trainer = make_trainer()
    with pytest.raises(ObjectiveError, match=line):
        train(trainer, Steps(weighting(1, 0), needs=frozenset({"validation"})), validate=lambda model: means)
    assert trainer.model.training


def test_moalign_and_its_command_line_do_without_trl():
    code = "import sys, moalign, moalign.cli; sys.exit('trl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    for folder in ("moalign", "objectives", "frontiers", "dashboards"):
        for path in set((ROOT / folder).rglob("*.py")) - {ROOT / "moalign" / "integrations" / "trl.py"}:
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for node in tree:
                names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                assert not {"trl", "moalign.integrations.trl"} & {name.removesuffix(".trainer") for name in names}, path


def test_without_trl_one_line_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "moalign.integrations.trl")
    monkeypatch.setitem(sys.modules, "trl", None)  # how Python marks a module that is not there
    with pytest.raises(ImportError, match=r"^moalign.integrations.trl needs TRL; pip install 'moalign\[trl\]'$"):
        importlib.import_module("moalign.integrations.trl")
