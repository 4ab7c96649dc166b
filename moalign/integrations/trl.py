"""Reward weights that change during training, for people who stay with TRL's GRPOTrainer (asked for in trl#3036).

    trainer = GRPOTrainer(..., reward_funcs=[helpful, brief])
    preference = {"helpful": 0.5, "brief": 0.5}
    trainer.add_callback(DynamicRewardWeights(trainer, "hypervolume", preference=preference))
    trainer.train()

TRL hands its callbacks neither the trainer nor the rewards, so the callback is made from the trainer, as TRL's own
LogCompletionsCallback is, and stands in for two of its methods. `_calculate_rewards` is where the rewards of a batch
are known, those of all processes, and not yet weighted; `_generate_and_score_completions` returns the advantages
after their normalisation, which is where a scale counts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

try:
    from trl import GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]
except ModuleNotFoundError as error:
    if error.name != "trl":
        raise
    raise ImportError("moalign.integrations.trl needs TRL; pip install 'moalign[trl]'") from None

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from moalign.errors import ConfigError, ObjectiveError, RunError
from moalign.integrations.progress import Progress, known_means
from moalign.preference import Preference
from moalign.weighting import Observation, RewardWeighter, Weighting, build_weighter

_HOOKS = ("_calculate_rewards", "_generate_and_score_completions", "_log_metric", "reward_func_names")
_KEY = "moalign.reward_weights"  # in trainer_state.json


class DynamicRewardWeights(TrainerCallback):
    """Gives TRL's GRPOTrainer the reward weights and the advantage scale of a `RewardWeighter`.

        A = scale * A_TRL(rewards, weights)        weights, scale = weighter.update(this batch)

    Once per batch of rollouts, before it is learnt from, under either `multi_objective_aggregation`. The scale
    multiplies the advantages after TRL has normalised them, and no KL term; multiplying the rewards, as the paper of
    the hypervolume weighter does (arXiv 2509.11452, Algorithm 1), is undone by the normalisation.

    Args:
        trainer: a GRPOTrainer whose config leaves `reward_weights` alone.
        weighter: "fixed", "hypervolume", `package.module:Class`, or a weighter that is built, whose weights are in
            the order of `reward_funcs`. One that needs a Gram matrix is refused: TRL has one graph for all rewards.
        preference: a weight for each reward function by name; with a named weighter only, as `settings`.
        settings: the named weighter's own, such as {"every": 2}: how often "hypervolume" validates.
        names: the reward functions' names, in their order, where TRL's own (`reward_func_names`) will not do.
        validate: `validate(model)` gives the mean of each objective on held-out prompts by name, in its own units.
            It is called in evaluation mode without gradients, and first before the first update.
        memory: without `validate`, about how many batches the running mean of the training rewards looks back on.

    The weighter's validation counts from the first value, in standard deviations of the first batch's rewards. WITHOUT
    `validate` IT IS NOT HELD OUT: it is the running mean of the rewards on the training prompts, which costs nothing,
    lags by some batches, and flatters a policy that has learnt its prompts by heart.

    Edge cases: a reward that does not apply (None) is left out of every mean, and the weighter is shown its
    objective's mean there; an objective whose first rewards are all equal is counted in its own units. An evaluation
    uses the last weights, and scales nothing. The state stands in `trainer_state.json` of TRL's checkpoints, and is
    taken up when training resumes; after a checkpoint without it the weighter begins anew.

    Raises ConfigError for names, settings or weighters that do not fit, PreferenceError for a preference that is none,
    ObjectiveError for a validation without a finite number for each name, RunError for a checkpoint of other rewards.
    """

    def __init__(
        self,
        trainer: Trainer,
        weighter: RewardWeighter | str,
        *,
        preference: Preference | Mapping[str, float] | str | None = None,
        settings: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
        validate: Callable[[PreTrainedModel], Mapping[str, float]] | None = None,
        memory: int = 10,
    ):
        _check_trainer(trainer)
        self._trainer: Any = trainer
        if memory < 1:
            raise ConfigError(f"memory is {memory}; expected a number of batches, at least 1")
        self.names = _names(self._trainer.reward_func_names, names)
        self._last: Weighting | None = None
        if isinstance(weighter, str):
            if preference is None:
                wish = ",".join(f"{name}={1 / len(self.names):.3g}" for name in self.names)
                raise ConfigError(f"weighter {weighter!r} needs a preference, such as {wish!r}")
            vector = _vector(preference, self.names)
            self._last = Weighting(vector)  # for an evaluation that comes before the first batch
            weighter = build_weighter(weighter, vector, dict(settings or {}))
        elif preference is not None or settings is not None:
            raise ConfigError("a weighter that is built has its preference and settings; leave them out here")
        self.weighter = weighter
        _check_needs(weighter, validate)
        self._validate = validate
        self._memory = memory
        self._progress = Progress.none(len(self.names))
        self._batches = 0
        # Kept now, so that a second `train()` replaces the trainer's methods again and does not wrap the wrappers.
        self._calculate = self._trainer._calculate_rewards
        self._generate = self._trainer._generate_and_score_completions

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the trainer's methods over, and the state of the checkpoint that training resumes from."""
        trainer = self._trainer
        if state is not trainer.state:
            raise ConfigError("DynamicRewardWeights was made from another trainer; make it from the one that it is in")
        if sum(isinstance(callback, DynamicRewardWeights) for callback in trainer.callback_handler.callbacks) > 1:
            raise ConfigError("a trainer takes its reward weights from one DynamicRewardWeights; it has more")
        kept: Any = state.stateful_callbacks  # a dictionary, whatever its annotation says
        if _KEY in kept:
            self._load(kept[_KEY])
        if self._last is not None:
            self._apply(self._last)
        trainer._calculate_rewards = self._weigh
        trainer._generate_and_score_completions = self._scale

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leave the weighter's state where the trainer's next checkpoint will write it, with the rest, in one file."""
        kept: Any = state.stateful_callbacks
        kept[_KEY] = {
            "names": self.names,
            "batches": self._batches,
            "weights": None if self._last is None else self._last.weights.tolist(),
            "scale": None if self._last is None else float(self._last.scale),
            "progress": self._progress.state_dict(),
            "weighter": self.weighter.state_dict(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        if state["names"] != self.names:
            found, expected = ", ".join(state["names"]), ", ".join(self.names)
            raise RunError(
                f"the checkpoint's reward functions are {found}, but now they are {expected}; resume with those"
            )
        self.weighter.load_state_dict(state["weighter"])
        self._progress = Progress.of(state["progress"])
        self._batches = state["batches"]
        if state["weights"] is not None:
            self._last = Weighting(np.array(state["weights"]), state["scale"])

    def _weigh(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards = self._calculate(*args, **kwargs)
        if self._trainer.model.training:  # as TRL itself tells training from evaluation
            self._update(rewards.double().cpu().numpy())
        return rewards

    def _scale(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        batch = self._generate(*args, **kwargs)
        if self._trainer.model.training and self._last is not None:
            batch["advantages"] = batch["advantages"] * self._last.scale
        return batch

    def _update(self, rewards: Float[np.ndarray, "b m"]) -> None:
        trainer = self._trainer
        means = known_means(rewards)
        self._progress.measure(rewards)
        if self._validate is None:
            self._progress.add(means, self._memory)
        validation = None
        every = self.weighter.validation_every if "validation" in self.weighter.needs else 0
        if every and self._batches % every == 0:
            if self._validate is not None:
                self._progress.add(self._validated(self._validate), 1)
            validation = self._progress.values()
        fallback = np.where(np.isnan(means), 0.0, means)
        seen = Observation(
            step=self._batches,
            rewards=np.where(np.isfinite(rewards), rewards, fallback),
            learning_rate=float(trainer.lr_scheduler.get_last_lr()[0]),
            validation=validation,
        )
        weighting = self.weighter.update(seen)
        _check_weighting(weighting, self.names)
        self._apply(weighting)
        self._batches += 1
        for name, weight in zip(self.names, weighting.weights, strict=True):
            trainer._log_metric(f"reward_weights/{name}", float(weight))
        trainer._log_metric("reward_scale", float(weighting.scale))

    def _apply(self, weighting: Weighting) -> None:
        self._last = weighting
        self._trainer.reward_weights = torch.tensor(weighting.weights, dtype=torch.float32)

    def _validated(self, validate: Callable[[PreTrainedModel], Mapping[str, float]]) -> Float[np.ndarray, " m"]:
        model = self._trainer.model
        model.eval()
        try:
            with torch.no_grad():
                found = validate(model)
        finally:
            model.train()
        if set(found) != set(self.names):
            raise ObjectiveError(f"validate gave {', '.join(found) or 'nothing'}; expected {', '.join(self.names)}")
        # Each process may have drawn other texts; all must go on with the same weights.
        means = np.array(gather_object([[float(found[name]) for name in self.names]])).mean(axis=0)
        for name, mean in zip(self.names, means, strict=True):
            if not np.isfinite(mean):
                raise ObjectiveError(f"validate gave {mean} for {name!r}; expected a finite number")
        return means


def _check_trainer(trainer: Trainer) -> None:
    if not isinstance(trainer, GRPOTrainer):
        raise ConfigError(f"DynamicRewardWeights needs TRL's GRPOTrainer; this is a {type(trainer).__name__}")
    missing = [name for name in _HOOKS if not hasattr(trainer, name)]
    if missing:
        raise ConfigError(f"this TRL's GRPOTrainer has no {', '.join(missing)}; moalign was written for trl 1.16")
    if getattr(trainer.args, "reward_weights", None) is not None:
        raise ConfigError("reward_weights in GRPOConfig would be replaced; leave it out, and give the preference here")


def _names(functions: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """One name for each reward function, in their order: columns and weights must not be mixed up."""
    there = ", ".join(functions)
    if names is not None and len(names) != len(functions):
        raise ConfigError(
            f"{len(names)} names ({', '.join(names)}) for {len(functions)} reward functions ({there}); "
            "expected one for each, in the order of reward_funcs"
        )
    if names is not None and list(names) != list(functions) and sorted(names) == sorted(functions):
        raise ConfigError(f"names are in the order {', '.join(names)}, but reward_funcs in the order {there}")
    chosen = list(functions if names is None else names)
    if len(set(chosen)) < len(chosen):
        raise ConfigError(
            f"two reward functions have the same name ({', '.join(chosen)}); give names=[...], all different"
        )
    return chosen


def _vector(preference: Preference | Mapping[str, float] | str, names: Sequence[str]) -> Float[np.ndarray, " m"]:
    """The preference in the order of the reward functions; TRL wants a weight for each, so a missing one is no 0."""
    if isinstance(preference, str):
        preference = Preference.parse(preference)
    elif not isinstance(preference, Preference):
        preference = Preference.of(preference)
    vector = preference.vector(names)
    forgotten = [name for name in names if name not in preference.weights]
    if forgotten:
        raise ConfigError(f"no weight for reward function {', '.join(forgotten)}; say 0 if it is not to count")
    return vector


def _check_needs(weighter: RewardWeighter, validate: Callable[..., Any] | None) -> None:
    kind = type(weighter).__name__
    if "gram" in weighter.needs:
        raise ConfigError(
            f"weighter {kind} needs the gradient of each reward alone, and TRL's loss has one for their sum; "
            "use 'hypervolume' here, or moalign's own method: online"
        )
    if validate is not None and "validation" not in weighter.needs:
        raise ConfigError(f"weighter {kind} reads no validation; leave validate out")


def _check_weighting(weighting: Weighting, names: Sequence[str]) -> None:
    """TRL turns an advantage that is NaN into 0, and would go on without learning anything."""
    weights, scale = weighting.weights, weighting.scale
    if (
        weights.shape != (len(names),)
        or not (weights >= 0).all()
        or not np.isfinite([*weights, scale]).all()
        or scale <= 0
    ):
        raise ConfigError(
            f"the weighter gave weights {weights.tolist()} and scale {scale:g}; expected {len(names)} finite weights "
            f">= 0 ({', '.join(names)}) and a positive scale"
        )
