"""The loss of a batch of rollouts: clipped ratios and a divergence from the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.bank import AdapterBank
from moalign.batches import Tokens
from moalign.logprobs import Scorer
from moalign.losses import LENGTH, clipped_objective, kl_advantages, kl_per_token, per_sequence
from moalign.methods.online_settings import OnlineSettings
from moalign.rollouts import Environment, Rollouts
from moalign.training import Entry
from moalign.workplace import Workplace


@dataclass
class RolloutLoss:
    """Losses of (policy, prompt) groups of completions; the first call on a group fixes its old and reference policy.

    `advantages[policy]` is Float[p, g], or Float[p, g, c] for c columns with a gradient each; the divergence is then
    one column more.
    """

    bank: AdapterBank
    scorer: Scorer
    environment: Environment
    rollouts: Rollouts
    keep: Bool[Tensor, "d p g"]  # completions that count, of d policies
    clip: tuple[float, float]
    kl: Literal["k1", "k2", "k3"]
    beta: float
    length: Literal["mean", "sum"] | float
    advantages: Mapping[int, Tensor] = field(default_factory=dict)
    rows: Mapping[str, Float[Tensor, " k"]] | None = None  # of policies that are mixtures; else each is its adapter
    _fixed: dict[Entry, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        bank: AdapterBank,
        workplace: Workplace,
        rollouts: Rollouts,
        settings: OnlineSettings,
        rows: Mapping[str, Float[Tensor, " k"]] | None = None,
    ) -> "RolloutLoss":
        """As the settings have it; its advantages are still to be given."""
        assert workplace.environment is not None
        dropped = rollouts.truncated if settings.mask_truncated else np.zeros_like(rollouts.truncated)
        rule = LENGTH[settings.estimator]
        return cls(
            bank,
            workplace.scorer,
            workplace.environment,
            rollouts,
            torch.tensor(~dropped),
            (settings.clip, settings.clip_high or settings.clip),
            settings.kl,
            settings.beta,
            float(workplace.environment.max_new_tokens) if rule == "constant" else rule,
            rows=rows,
        )

    def __call__(self, entries: Sequence[Entry]) -> Float[Tensor, " n"] | Float[Tensor, "n c"]:
        """One loss per group (or one per group and column): the mean over its completions."""
        tokens = self._pack(entries)
        counts = len(tokens.ids) // len(entries)
        names = [self.rollouts.keys[job] for job, _ in entries for _ in range(counts)]
        rows = self.bank.one_hot(names) if self.rows is None else torch.stack([self.rows[name] for name in names])
        with self.bank.rows(rows):
            logprobs = self.scorer.token_logprobs(tokens)
        owner, size = tokens.owner.to(logprobs.device), tokens.responses // len(entries)
        old, reference = self._constants(entries, tokens, logprobs.detach(), owner // size)
        keep = torch.stack([self.keep[job, place] for job, place in entries]).to(logprobs.device)

        def mean(values: Float[Tensor, " n"]) -> Tensor:
            return (per_sequence(values, owner, tokens.responses, self.length).reshape(-1, size) * keep).mean(1)

        def objective(advantages: Tensor) -> Tensor:
            flat = advantages.to(logprobs).flatten()
            return clipped_objective(logprobs, old, flat, owner, self.clip)

        given = torch.stack([self.advantages[job][place] for job, place in entries])
        if self.kl == "k1":
            ratio = per_sequence(old - reference, owner, tokens.responses, "sum").reshape(-1, size)
            divergence = self.beta * kl_advantages(ratio)
        if given.ndim == 2:
            if self.kl == "k1":
                return mean(objective(given.to(logprobs) + divergence))
            return mean(objective(given) + self.beta * kl_per_token(logprobs, reference, self.kl))
        last = objective(divergence) if self.kl == "k1" else self.beta * kl_per_token(logprobs, reference, self.kl)
        return torch.stack([*(mean(objective(column)) for column in given.unbind(-1)), mean(last)], dim=1)

    def _pack(self, entries: Sequence[Entry]) -> Tokens:
        """Read a prompt once for its group where that saves half of the tokens, else once per completion."""
        prompts = [self.environment.prompt_ids[self.rollouts.prompts[place]] for _, place in entries]
        groups = [self.rollouts.group(job, place) for job, place in entries]
        again = sum(len(prompt) * (len(group) - 1) for prompt, group in zip(prompts, groups, strict=True))
        if again < sum(len(response) for group in groups for response in group):
            prompts = [prompt for prompt, group in zip(prompts, groups, strict=True) for _ in group]
            groups = [[response] for group in groups for response in group]
        return self.scorer.pack(prompts, groups, self.environment.base.pad_id)

    def _constants(
        self, entries: Sequence[Entry], tokens: Tokens, logprobs: Float[Tensor, " n"], owner: Tensor
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Log-probabilities of the tokens under the policy that drew them, and under the reference."""
        if any(entry not in self._fixed for entry in entries):
            with torch.no_grad(), self.environment.reference():
                reference = self.scorer.token_logprobs(tokens)
            counts = torch.bincount(owner, minlength=len(entries)).tolist()
            for entry, *both in zip(entries, logprobs.split(counts), reference.split(counts), strict=True):
                self._fixed[entry] = both[0], both[1]
        old, reference = zip(*(self._fixed[entry] for entry in entries), strict=True)
        return torch.cat(old), torch.cat(reference)

    def sampled(self, policy: int) -> tuple[float, float]:
        """KL to the reference in nats per completion, and entropy in nats per token, of the policy that drew them.

        The first is the mean of sum_t (exp(-l) - 1 + l), l = log pi/pi_ref: as unbiased as that of l, and never
        negative. Both are estimates from the policy's own completions.
        """
        found = [self._fixed[policy, place] for place in range(len(self.rollouts.prompts))]
        old, reference = (torch.cat(each).double() for each in zip(*found, strict=True))
        count = self.keep[policy].numel()
        divergence = kl_per_token(old, reference, "k3").sum() / count
        return float(divergence), float(-old.mean())
