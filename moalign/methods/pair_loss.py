"""The loss of preference pairs, for policies that are rows of one bank: MODPO, and whatever trains through mixtures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from moalign.bank import AdapterBank
from moalign.errors import UserError
from moalign.losses import modpo_loss
from moalign.methods.modpo_settings import ModpoSettings
from moalign.training import Entry, batch_order
from moalign.workplace import PairData, Workplace


@dataclass
class Learner:
    """A policy that learns from pairs: its row of the bank, its weights, and the objective whose pairs it reads.

    `batch` says which batch of these pairs is read next; None for that of the step, the same for all learners.
    """

    name: str
    row: Float[Tensor, " k"]
    weights: Float[Tensor, " m"]
    primary: str
    batch: int | None = None


class PairLoss:
    """The pairs of each step, and the MODPO losses of (learner, pair) entries; one forward pass for all."""

    def __init__(
        self, bank: AdapterBank, workplace: Workplace, settings: ModpoSettings, learners: Sequence[Learner] = ()
    ):
        self.bank, self.workplace, self.settings, self.learners = bank, workplace, settings, list(learners)
        self.margins = {name: _margins(data, settings) for name, data in workplace.data.items()}

    def entries(self, step: int) -> list[Entry]:
        """(learner, pair) of one step, learner by learner, so that rows are grouped."""
        drawn: dict[tuple[str, int], list[int]] = {}
        found = []
        for number, learner in enumerate(self.learners):
            batch = (learner.primary, step if learner.batch is None else learner.batch)
            if batch not in drawn:
                lengths = self.workplace.data[learner.primary].tokens.lengths
                drawn[batch] = batch_order(lengths, self.settings.batch_size, self.workplace.seed, batch[1])
            found += [(number, pair) for pair in drawn[batch]]
        return found

    def __call__(self, entries: Sequence[Entry]) -> Float[Tensor, " n"]:
        """The loss of each entry. Raises UserError if one is not finite."""
        scorer = self.workplace.scorer
        pairs = [(self.workplace.data[self.learners[number].primary], pair) for number, pair in entries]
        tokens = scorer.pack(
            [data.tokens.prompt[i] for data, i in pairs],
            [(data.tokens.chosen[i], data.tokens.rejected[i]) for data, i in pairs],
            self.workplace.pad_id,
        )
        counts = 1 if len(tokens.ids) == len(entries) else 2  # sequences per pair
        rows = torch.stack([self.learners[number].row for number, _ in entries for _ in range(counts)])
        with self.bank.rows(rows):
            chosen, rejected = scorer.logprobs(tokens).reshape(-1, 2).unbind(1)
        reference = torch.tensor([data.reference[i] for data, i in pairs], device=chosen.device).float()
        losses = self._modpo(chosen - rejected - reference, entries, pairs)
        if not bool(torch.isfinite(losses).all()):
            number = entries[int((~torch.isfinite(losses.detach().cpu())).nonzero()[0])][0]
            raise UserError(
                f"the loss of {self.learners[number].name} is no longer finite; a lower learning_rate helps"
            )
        return losses

    def _modpo(
        self, log_ratio: Float[Tensor, " n"], entries: Sequence[Entry], pairs: list[tuple[PairData, int]]
    ) -> Float[Tensor, " n"]:
        learners = [self.learners[number] for number, _ in entries]
        weights = torch.stack([learner.weights for learner in learners]).float()
        margins = torch.stack(
            [self.margins[learner.primary][i] for learner, (_, i) in zip(learners, pairs, strict=True)]
        )
        probability = torch.tensor([data.probability[i] for data, i in pairs]).float()
        losses, to = torch.zeros_like(log_ratio), log_ratio.device
        for primary in dict.fromkeys(learner.primary for learner in learners):
            number = self.workplace.objectives.index(primary)
            mine = torch.tensor([learner.primary == primary for learner in learners])
            loss = modpo_loss(
                log_ratio[mine.to(to)],
                margins[mine].to(to),
                weights[mine].to(to),
                number,
                beta=self.settings.beta,
                probability=probability[mine].to(to),
            )
            if self.settings.grad_renorm:
                loss = loss * weights[mine, number].to(to)
            losses = losses.index_put((mine.nonzero()[:, 0].to(to),), loss)
        return losses


def _margins(data: PairData, settings: ModpoSettings) -> Float[Tensor, "n m"]:
    """Margins in their units, or divided by their standard deviation over the data (flat ones stay as they are)."""
    margins = data.margins
    if settings.standardise_margins:
        deviation = np.ma.masked_invalid(margins).std(axis=0).filled(0.0)
        margins = margins / np.where(deviation > 0, deviation, 1.0)
    return torch.tensor(margins, dtype=torch.float32)
