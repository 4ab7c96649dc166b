"""Supervised fine-tuning of several adapters at once: the ends of a soup, such as SALSA's reference.

SALSA (arXiv 2411.01798) anchors a policy to the soup of two independent fine-tunings of one base: the same data, a new
start and a new order. Here they train side by side in one bank, one adapter per seed.

This is not one of `METHODS`: those train one adapter per preference, on pairs or rewards of a sweep's objectives. Here
the unit is a seed, there is neither a preference nor an objective, and nothing that a front could be made of.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.errors import UserError
from moalign.losses.sft import sft_loss
from moalign.training import Entry, GroupTrainer, Optimisation, batch_order
from moalign.workplace import Workplace


class SftSettings(BaseModel):
    """Settings of supervised fine-tuning."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveFloat = 1.0
    steps: PositiveInt | None = None  # instead of epochs
    batch_size: PositiveInt = 16  # responses per step, of each adapter
    learning_rate: PositiveFloat = 2e-4
    weight_decay: NonNegativeFloat = 0.0
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of the steps
    max_gradient_norm: PositiveFloat = 1.0  # of each adapter by itself

    def steps_for(self, responses: int) -> int:
        """Steps over a data set of so many responses."""
        return self.steps or max(1, round(self.epochs * max(1, responses // self.batch_size)))


@dataclass(frozen=True)
class Demonstrations:
    """n answers to imitate, as token ids; responses end in EOS. Lists, because no two have the same length.

    >>> Demonstrations(prompt=[[5, 6]], response=[[7, 2]]).lengths
    [4]
    """

    prompt: Sequence[list[int]]
    response: Sequence[list[int]]

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each prompt with its response."""
        return [len(p) + len(r) for p, r in zip(self.prompt, self.response, strict=True)]

    def select(self, indices: Sequence[int]) -> "Demonstrations":
        """The demonstrations at `indices`, in that order."""
        return Demonstrations([self.prompt[i] for i in indices], [self.response[i] for i in indices])


def train(
    starts: Mapping[int, Adapter], data: Demonstrations, workplace: Workplace, settings: SftSettings
) -> dict[int, Adapter]:
    """Train one adapter per seed, all of them side by side, from `starts`; the adapters by seed.

    The result for a seed does not depend on the others: gradients, clipping and the optimiser's state are each
    adapter's own, and so is its order of the data, a function of its seed and the step. Raises UserError if a loss
    stops being finite.
    """
    seeds = list(starts)
    optimisation = Optimisation.of(settings.steps_for(len(data)), settings)
    lengths = data.lengths

    def entries(step: int) -> list[Entry]:
        """(seed's number, response) of one step, seed by seed, so that rows are one-hot and grouped."""
        return [
            (number, i)
            for number, seed in enumerate(seeds)
            for i in batch_order(lengths, settings.batch_size, seed, step)
        ]

    def loss(drawn: Sequence[Entry]) -> Float[Tensor, " n"]:
        """The loss of each (seed's number, response); one forward pass."""
        part = data.select([i for _, i in drawn])
        tokens = workplace.scorer.pack(part.prompt, [[response] for response in part.response], workplace.pad_id)
        with bank.rows(bank.one_hot([str(seeds[number]) for number, _ in drawn])):
            logprob = workplace.scorer.logprobs(tokens)
        losses = sft_loss(logprob, _counts(part).to(logprob.device))
        if not bool(torch.isfinite(losses).all()):
            number, _ = drawn[int((~torch.isfinite(losses)).nonzero()[0])]
            raise UserError(f"the loss of seed {seeds[number]} is no longer finite; a lower learning_rate helps")
        return losses

    with AdapterBank(workplace.scorer.model, {str(s): start for s, start in starts.items()}, trainable=True) as bank:
        GroupTrainer(bank, optimisation, workplace).run(entries, loss)
        return {seed: bank.adapter(str(seed)) for seed in seeds}


def heldout_losses(
    adapters: Mapping[int, Adapter], data: Demonstrations, workplace: Workplace
) -> dict[int, dict[str, float] | None]:
    """Mean loss, in nats per token, `before` (of the base, which a fresh adapter is) and `after`, by seed.

    None where there are no data. Raises UserError if a loss is not finite, as after a last step that was too long.
    """
    if not len(data):
        return dict.fromkeys(adapters)
    groups, pad = [[response] for response in data.response], workplace.pad_id

    def mean(bank: AdapterBank, weights: Mapping[str, float]) -> float:
        rows = bank.mixture(weights).expand(len(data), -1)
        logprob = workplace.scorer.batched(data.prompt, groups, pad, bank=bank, rows=rows)
        return sft_loss(logprob, _counts(data)).double().mean().item()

    found: dict[int, dict[str, float] | None] = {}
    with AdapterBank(workplace.scorer.model, {str(seed): adapter for seed, adapter in adapters.items()}) as bank:
        before = mean(bank, {})
        for seed in adapters:
            after = mean(bank, {str(seed): 1.0})
            if not math.isfinite(after):
                raise UserError(f"the held-out loss of seed {seed} is not finite; a lower learning_rate helps")
            found[seed] = {"before": before, "after": after}
    return found


def _counts(data: Demonstrations) -> Tensor:
    return torch.tensor([len(response) for response in data.response])
