"""Conditional language policy (Wang et al. 2024, arXiv 2407.15762): adapters that are trained through their mixtures.

One adapter per objective, but none is ever trained alone. Every step draws preferences w from a Dirichlet, and the
policy with the row w takes the loss for the preference w: maximise E_w [ J_w(theta(w)) ], theta(w) = sum_k w_k theta_k.
What lies between the corners is then trained for, where a soup only hopes for it. The authors published no code.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.errors import UserError
from moalign.losses import advantage_parts, combine
from moalign.methods.inner import InnerSettings
from moalign.methods.modpo_settings import ModpoSettings
from moalign.methods.online_settings import OnlineSettings
from moalign.methods.pair_loss import Learner, PairLoss
from moalign.methods.rollout_loss import RolloutLoss
from moalign.rollouts import Rollouts, roll_out
from moalign.training import GroupTrainer, Optimisation, batch_order
from moalign.workplace import Job, Workplace


class ConditionedSettings(InnerSettings):
    """Settings of training through mixtures: those of the losses, and which mixtures are drawn."""

    concentration: PositiveFloat = 1.0  # of the Dirichlet: 1 is uniform over preferences, less favours the corners
    draws: PositiveInt = 4  # preferences per step, with a batch each

    @model_validator(mode="after")
    def _shared_by_all(self) -> "ConditionedSettings":
        if isinstance(self.inner, OnlineSettings):
            alone = OnlineSettings()
            for name in ("weighting", "kl_budget", "length_budget"):
                if getattr(self.inner, name) != getattr(alone, name):
                    raise ValueError(
                        f"settings.settings.{name}: it is of one preference alone, and here every step has others; "
                        "leave it out"
                    )
        return self


def train(jobs: Sequence[Job], workplace: Workplace, settings: ConditionedSettings) -> dict[str, Adapter]:
    """Train the corners' adapters together, `draws` mixtures a step; preferences are drawn by (seed, step).

    Raises UserError if a loss or a reward is not finite: what one mixture spoils, all adapters share.
    """
    with AdapterBank(workplace.scorer.model, {job.key: job.start for job in jobs}, trainable=True) as bank:
        trainer = GroupTrainer(bank, Optimisation.of(jobs[0].steps, settings.inner), workplace, shared=True)
        mixtures = Mixtures(bank, jobs, workplace, settings)
        if isinstance(settings.inner, ModpoSettings):
            pairs = _Pairs(mixtures, PairLoss(bank, workplace, settings.inner))
            trainer.run(pairs.loss.entries, pairs.loss, pairs)
        else:
            _Rolling(mixtures, trainer, settings.inner).run()
        return {job.key: bank.adapter(job.key) for job in jobs}


class Mixtures:
    """The preferences of each step, and their rows."""

    def __init__(self, bank: AdapterBank, jobs: Sequence[Job], workplace: Workplace, settings: ConditionedSettings):
        self.bank, self.workplace, self.settings = bank, workplace, settings
        self.corner = {job.primary: job.key for job in jobs}

    def drawn(self, step: int) -> Float[np.ndarray, "d m"]:
        """The preferences of a step, columns as the run's objectives."""
        names = self.workplace.objectives
        rng = np.random.default_rng([self.workplace.seed, 2, step])
        return rng.dirichlet(np.full(len(names), self.settings.concentration), self.settings.draws)

    def row(self, weights: Float[np.ndarray, " m"]) -> Float[Tensor, " k"]:
        """The row of a preference: each corner's adapter by its objective's weight."""
        names = self.workplace.objectives
        return self.bank.mixture({self.corner[name]: float(w) for name, w in zip(names, weights, strict=True)})


class _Pairs:
    """The steps by MODPO's loss: every mixture is a learner with pairs of its own."""

    def __init__(self, mixtures: Mixtures, loss: PairLoss):
        self.mixtures, self.loss = mixtures, loss

    def before(self, step: int) -> None:
        """Draw the step's mixtures."""
        drawn = self.mixtures.drawn(step)
        names = self.mixtures.workplace.objectives
        self.loss.learners = [
            Learner(
                f"mixture {number}",
                self.mixtures.row(weights),
                torch.tensor(weights, dtype=torch.float32),
                names[int(weights.argmax())],
                batch=step * len(drawn) + number,
            )
            for number, weights in enumerate(drawn)
        ]

    def state(self) -> dict[str, Any]:
        """Nothing: a step's mixtures follow from its number."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class _Rolling:
    """The steps by policy gradients: every mixture answers prompts, and learns from its own answers."""

    def __init__(self, mixtures: Mixtures, trainer: GroupTrainer, settings: OnlineSettings):
        assert mixtures.workplace.environment is not None
        self.mixtures, self.trainer, self.settings = mixtures, trainer, settings
        self.workplace, self.environment = mixtures.workplace, mixtures.workplace.environment

    def run(self) -> None:
        """Take all the steps that are left after the last checkpoint."""
        start, _, _ = self.trainer.restore()
        steps = self.trainer.optimisation.steps
        for step in range(start, steps):
            loss = self._loss(step, self.mixtures.drawn(step))
            entries = [(d, p) for d in range(len(loss.rollouts.keys)) for p in range(len(loss.rollouts.prompts))]
            for _ in range(self.settings.updates):
                value, _ = self.trainer.gradients(entries, loss)
                norms = self.trainer.clip()
                self.trainer.update(step)
            kl = float(np.mean([loss.sampled(policy)[0] for policy in range(len(loss.rollouts.keys))]))
            self.workplace.on_step(step + 1, steps, {"kl": kl, "loss": value, "gradient_norm": norms.mean().item()})
            self.workplace.on_bank(step + 1, self.trainer.bank)
            self.trainer.save(step + 1)

    def _loss(self, step: int, drawn: Float[np.ndarray, "d m"]) -> RolloutLoss:
        settings, bank = self.settings, self.trainer.bank
        rows = {f"mixture {number}": self.mixtures.row(weights) for number, weights in enumerate(drawn)}
        lengths = [len(ids) for ids in self.environment.prompt_ids]
        prompts = batch_order(lengths, settings.prompts, self.workplace.seed, step)
        stream = f"mixtures/{self.workplace.seed}/{step}"
        found = roll_out(self.environment, bank, list(rows), prompts, settings.completions, stream, rows)
        loss = RolloutLoss.of(bank, self.workplace, found, settings, rows)
        loss.advantages = self._advantages(found, drawn)
        return loss

    def _advantages(self, found: Rollouts, drawn: Float[np.ndarray, "d m"]) -> dict[int, Tensor]:
        if not np.isfinite(found.rewards).all():
            name = self.workplace.objectives[int(np.argmin(np.isfinite(found.rewards).all((0, 1, 2))))]
            raise UserError(
                f"objective {name!r} gave no finite score to a completion; expected a number for every text"
            )
        advantages = {}
        for number, preference in enumerate(drawn):
            rewards, weights = torch.tensor(found.rewards[number]), torch.tensor(preference)
            parts = advantage_parts(rewards, weights, self.settings.estimator, self.settings.aggregation)
            advantages[number] = combine(parts, weights, self.settings.aggregation)
        return advantages
