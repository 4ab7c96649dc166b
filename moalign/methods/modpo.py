"""MODPO (Zhou et al. 2024, arXiv 2310.03708): one adapter per preference, all of them side by side in one bank.

The authors run four forward passes and one backward pass per step and preference. Three of the four are constants of
the data (the reference twice, the margin model once), so that one forward and one backward pass suffice here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.methods.modpo_settings import ModpoSettings
from moalign.methods.pair_loss import Learner, PairLoss
from moalign.training import GroupTrainer, Optimisation
from moalign.weighting import Observation
from moalign.workplace import Job, Workplace


def train(jobs: Sequence[Job], workplace: Workplace, settings: ModpoSettings) -> dict[str, Adapter]:
    """Train the jobs, which must take equally many steps, side by side.

    The result for a preference does not depend on its neighbours: gradients, clipping and the optimiser's state are
    each adapter's own, and pairs are drawn by (seed, primary objective, step). Raises UserError if a loss stops
    being finite.
    """
    optimisation = Optimisation.of(jobs[0].steps, settings)
    with AdapterBank(workplace.scorer.model, {job.key: job.start for job in jobs}, trainable=True) as bank:
        learners = [
            Learner(job.key, bank.one_hot([job.key])[0], _weights(job.preference.vector(names)), job.primary)
            for names in [workplace.objectives]
            for job in jobs
        ]
        steering = _Steering(bank, jobs, learners, workplace, optimisation)
        loss = PairLoss(bank, workplace, settings, learners)
        GroupTrainer(bank, optimisation, workplace).run(loss.entries, loss, steering)
        return {job.key: bank.adapter(job.key) for job in jobs}


class _Steering:
    """Gives learners the weights that their jobs' weighters choose; those without one keep their preference."""

    def __init__(
        self,
        bank: AdapterBank,
        jobs: Sequence[Job],
        learners: Sequence[Learner],
        workplace: Workplace,
        optimisation: Optimisation,
    ):
        self.bank, self.workplace, self.optimisation = bank, workplace, optimisation
        weighed = [(learner, job.weighter) for job, learner in zip(jobs, learners, strict=True)]
        self.weighed = [(learner, weighter) for learner, weighter in weighed if weighter is not None]

    def before(self, step: int) -> None:
        """Ask the weighters. The heaviest objective is the primary one, so that MODPO's 1/w_k stays tame."""
        every = {learner.name: weighter.validation_every for learner, weighter in self.weighed}
        due = [name for name, steps in every.items() if steps and step % steps == 0]
        attained = dict(zip(due, self.workplace.validate(self.bank, due), strict=True)) if due else {}
        names = self.workplace.objectives
        for learner, weighter in self.weighed:
            rate, unseen = self.optimisation.rate(step), np.empty((0, len(names)))
            seen = Observation(step, unseen, rate, attained=attained.get(learner.name))
            learner.weights = _weights(weighter.update(seen).weights)
            learner.primary = names[int(learner.weights.argmax())]

    def state(self) -> dict[str, Any]:
        """That of the weighters."""
        return {learner.name: weighter.state_dict() for learner, weighter in self.weighed}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for learner, weighter in self.weighed:
            weighter.load_state_dict(state[learner.name])


def _weights(vector: np.ndarray) -> torch.Tensor:
    return torch.tensor(vector, dtype=torch.float32)
