"""MODPO (Zhou et al. 2024, arXiv 2310.03708): one adapter per preference, all of them side by side in one bank.

The authors run four forward passes and one backward pass per step and preference. Three of the four are constants of
the data (the reference twice, the margin model once), so that one forward and one backward pass suffice here.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.errors import UserError
from moalign.losses import modpo_loss
from moalign.training import GroupTrainer, Optimisation, batch_order
from moalign.workplace import Job, PairData, Workplace


class ModpoSettings(BaseModel):
    """Settings of MODPO. Defaults follow the paper, but for the learning rate: theirs is for a scale of 1/64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beta: PositiveFloat = 0.1  # strength of the KL penalty; also of the implicit rewards
    epochs: PositiveFloat = 3.0
    steps: PositiveInt | None = None  # instead of epochs
    batch_size: PositiveInt = 16  # pairs per step
    learning_rate: PositiveFloat = 2e-4
    weight_decay: NonNegativeFloat = 0.0
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of the steps
    max_gradient_norm: PositiveFloat = 1.0  # of each adapter by itself
    grad_renorm: bool = False  # multiply the loss by w_k: the same optimum, without gradients of size 1/w_k
    standardise_margins: bool = False  # divide each margin by its deviation over the data: weights without units
    reference: Literal["base"] | dict[str, FiniteFloat] = "base"  # or a soup: PEFT folder -> weight (SALSA)
    start: str | None = None  # a PEFT folder; otherwise the first of a soup, or a fresh adapter
    warm_start: bool = False  # begin between the corners, at their soup, and take `warm_share` of the steps
    warm_share: float = Field(default=0.4, gt=0, le=1)

    @property
    def facts(self) -> dict[str, str]:
        """What a report says of the method, beside its name."""
        return {"beta": f"{self.beta:g}"}

    @property
    def oracle_beta(self) -> float | None:
        """The beta of the optimum that this aims at."""
        return self.beta

    def steps_for(self, pairs: int) -> int:
        """Steps over a data set of so many pairs."""
        return self.steps or max(1, round(self.epochs * max(1, pairs // self.batch_size)))


def train(jobs: Sequence[Job], workplace: Workplace, settings: ModpoSettings) -> dict[str, Adapter]:
    """Train the jobs, which must take equally many steps, side by side.

    The result for a preference does not depend on its neighbours: gradients, clipping and the optimiser's state are
    each adapter's own, and pairs are drawn by (seed, primary objective, step). Raises UserError if a loss stops
    being finite.
    """
    batches = _Batches(jobs, workplace, settings)
    optimisation = Optimisation(
        steps=jobs[0].steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        max_gradient_norm=settings.max_gradient_norm,
    )
    with AdapterBank(workplace.scorer.model, {job.key: job.start for job in jobs}, trainable=True) as bank:
        trainer = GroupTrainer(bank, optimisation, workplace)
        trainer.run(batches.entries, lambda entries: batches.loss(bank, entries))
        return {job.key: bank.adapter(job.key) for job in jobs}


class _Batches:
    """The pairs of each step, and their loss."""

    def __init__(self, jobs: Sequence[Job], workplace: Workplace, settings: ModpoSettings):
        self.jobs, self.workplace, self.settings = jobs, workplace, settings
        names = workplace.objectives
        self.weights = torch.tensor(np.stack([job.preference.vector(names) for job in jobs]), dtype=torch.float32)
        self.primary = [names.index(job.primary) for job in jobs]
        self.margins = {name: _margins(workplace.data[name], settings) for name in {job.primary for job in jobs}}

    def entries(self, step: int) -> list[tuple[int, int]]:
        """(job, pair) of one step, job by job, so that rows are one-hot and grouped."""
        drawn: dict[str, list[int]] = {}
        for job in self.jobs:
            if job.primary not in drawn:
                lengths = self.workplace.data[job.primary].tokens.lengths
                drawn[job.primary] = batch_order(lengths, self.settings.batch_size, self.workplace.seed, step)
        return [(number, pair) for number, job in enumerate(self.jobs) for pair in drawn[job.primary]]

    def loss(self, bank: AdapterBank, entries: Sequence[tuple[int, int]]) -> Float[Tensor, " n"]:
        """The loss of each (job, pair); one forward pass."""
        scorer = self.workplace.scorer
        pairs = [(self.workplace.data[self.jobs[job].primary], pair) for job, pair in entries]
        tokens = scorer.pack(
            [data.tokens.prompt[i] for data, i in pairs],
            [(data.tokens.chosen[i], data.tokens.rejected[i]) for data, i in pairs],
            self.workplace.pad_id,
        )
        counts = 1 if len(tokens.ids) == len(entries) else 2  # sequences per pair
        names = [self.jobs[job].key for job, _ in entries for _ in range(counts)]
        with bank.rows(bank.one_hot(names)):
            chosen, rejected = scorer.logprobs(tokens).reshape(-1, 2).unbind(1)
        reference = torch.tensor([data.reference[i] for data, i in pairs], device=chosen.device).float()
        return self._modpo(chosen - rejected - reference, entries, pairs)

    def _modpo(
        self, log_ratio: Float[Tensor, " n"], entries: Sequence[tuple[int, int]], pairs: list[tuple[PairData, int]]
    ) -> Float[Tensor, " n"]:
        number = torch.tensor([job for job, _ in entries])
        weights = self.weights[number]
        margins = torch.stack([self.margins[self.jobs[job].primary][i] for job, i in entries])
        probability = torch.tensor([data.probability[i] for data, i in pairs]).float()
        losses = torch.zeros_like(log_ratio)
        for primary in dict.fromkeys(self.primary[job] for job, _ in entries):
            mine = torch.tensor([self.primary[job] == primary for job, _ in entries])
            to = log_ratio.device
            loss = modpo_loss(
                log_ratio[mine.to(to)],
                margins[mine].to(to),
                weights[mine].to(to),
                primary,
                beta=self.settings.beta,
                probability=probability[mine].to(to),
            )
            if self.settings.grad_renorm:
                loss = loss * weights[mine, primary].to(to)
            losses = losses.index_put((mine.nonzero()[:, 0].to(to),), loss)
        if not bool(torch.isfinite(losses).all()):
            job = int(number[~torch.isfinite(losses.detach().cpu())][0])
            raise UserError(f"the loss of {self.jobs[job].key} is no longer finite; a lower learning_rate helps")
        return losses


def _margins(data: PairData, settings: ModpoSettings) -> Float[Tensor, "n m"]:
    """Margins in their units, or divided by their standard deviation over the data (flat ones stay as they are)."""
    margins = data.margins
    if settings.standardise_margins:
        deviation = np.ma.masked_invalid(margins).std(axis=0).filled(0.0)
        margins = margins / np.where(deviation > 0, deviation, 1.0)
    return torch.tensor(margins, dtype=torch.float32)
