"""The loop of online alignment: roll out, score, weigh, learn; every preference of a bank in the same batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from moalign.bank import AdapterBank
from moalign.methods.guards import collapse, reason_to_stop
from moalign.methods.online_settings import OnlineSettings
from moalign.methods.rollout_loss import RolloutLoss
from moalign.methods.steering import Steering, Validated
from moalign.rollouts import Rollouts, roll_out
from moalign.training import Entry, GroupTrainer, Optimisation, batch_order
from moalign.weighting import Observation, Weighting, build_weighter
from moalign.workplace import Job, Workplace


class RolloutTrainer:
    """Trains the adapters of a bank on their own rollouts, in lockstep; each by its own steering."""

    def __init__(self, bank: AdapterBank, jobs: Sequence[Job], workplace: Workplace, settings: OnlineSettings):
        assert workplace.environment is not None
        self.bank, self.jobs, self.workplace, self.settings = bank, jobs, workplace, settings
        self.environment = workplace.environment
        self.trainer = GroupTrainer(bank, Optimisation.of(jobs[0].steps, settings), workplace)
        self.steering = [_steering(job, workplace, settings) for job in jobs]
        validating = any(each.weighter.validation_every for each in self.steering)
        self.training, self.validation = self.environment.parted(
            settings.validation_prompts if validating else 0, workplace.seed
        )
        self._good = self._values()  # from before the last step: what is kept when that step turns out bad

    def run(self) -> None:
        """Take all the steps that are left after the last checkpoint."""
        start, state, kept = self.trainer.restore()
        for steering, saved in zip(self.steering, state.get("steering", []), strict=False):
            steering.load(saved)
        self._good = [tensor.to(self.bank.model.device) for tensor in kept] or self._values()
        for step in range(start, self.jobs[0].steps):
            if self._going():
                self._step(step)
                self.workplace.on_bank(step + 1, self.bank)
            self.trainer.save(step + 1, {"steering": [each.state() for each in self.steering]}, self._good)
        if self._going():
            self._look_at_the_end(self.jobs[0].steps)
        for job, steering in zip(self.jobs, self.steering, strict=True):
            if steering.stopped:
                self.workplace.on_stop(job.key, steering.stopped)

    def _going(self) -> list[int]:
        return [number for number, each in enumerate(self.steering) if each.stopped is None]

    def _values(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.trainer.parameters]

    # One step

    def _step(self, step: int) -> None:
        before, drawn = self._values(), self._going()
        validated = self._validated(step)
        rollouts = self._roll_out(step)
        self._stop_without_rewards(step, drawn, rollouts)
        loss = RolloutLoss.of(self.bank, self.workplace, rollouts, self.settings)
        value = self._first_gradients(step, drawn, loss, validated)
        if value is None:
            return
        norms = self._clipped(step)
        kls = self._watch(step, drawn, loss)
        self._apply(step, before)
        for _ in range(self.settings.updates - 1):
            if entries := self._entries(drawn, rollouts):
                self.trainer.gradients(entries, loss)
                self._clipped(step)
                self._apply(step, before)
        self._good = before
        # KL first: on-policy the loss of centred advantages is 0, whatever is learnt.
        numbers = {"kl": float(np.mean(kls))} if kls else {}
        numbers |= {"loss": value, "gradient_norm": float(norms[drawn].nanmean())}
        self.workplace.on_step(step + 1, self.jobs[0].steps, numbers)

    def _roll_out(self, step: int) -> Rollouts:
        lengths = [len(self.environment.prompt_ids[place]) for place in self.training]
        drawn = batch_order(lengths, self.settings.prompts, self.workplace.seed, step)
        keys = [self.jobs[number].key for number in self._going()]
        prompts = [self.training[place] for place in drawn]
        stream = f"rollout/{self.workplace.seed}/{step}"
        return roll_out(self.environment, self.bank, keys, prompts, self.settings.completions, stream)

    def _validated(self, step: int) -> dict[int, Validated]:
        """Validation of the policies whose weighters ask for one now; always on the same random numbers."""
        every = {number: self.steering[number].weighter.validation_every for number in self._going()}
        asked = [number for number, steps in every.items() if steps and step % steps == 0]
        if not asked:
            return {}
        keys, stream = [self.jobs[number].key for number in asked], f"validation/{self.workplace.seed}"
        found = roll_out(
            self.environment, self.bank, keys, self.validation, self.settings.validation_completions, stream
        )
        rewards = found.rewards.reshape(len(asked), -1, found.rewards.shape[-1])
        finite = [each[np.isfinite(each).all(1)] for each in rewards]
        return {number: self.steering[number].validated(e) for number, e in zip(asked, finite, strict=True) if len(e)}

    def _entries(self, drawn: Sequence[int], rollouts: Rollouts) -> list[Entry]:
        """(policy of the rollouts, prompt), policy by policy, so that rows are one-hot and grouped."""
        going = [policy for policy, number in enumerate(drawn) if self.steering[number].stopped is None]
        return [(policy, place) for policy in going for place in range(len(rollouts.prompts))]

    # From rewards to gradients

    def _first_gradients(
        self, step: int, drawn: Sequence[int], loss: RolloutLoss, validated: dict[int, Validated]
    ) -> float | None:
        """Decide the weights, and take the gradients of the batch at the policy that drew it."""
        entries = self._entries(drawn, loss.rollouts)
        if not entries:
            return None
        policies = list(dict.fromkeys(policy for policy, _ in entries))
        by_gradient = any("gram" in each.weighter.needs for each in self.steering)
        if not by_gradient:
            for policy in policies:
                self._decide(step, drawn[policy], loss.rollouts.rewards[policy], validated.get(drawn[policy]), None)
        parts = {policy: self.steering[drawn[policy]].parts(loss.rollouts.rewards[policy]) for policy in policies}
        if by_gradient:
            loss.advantages = parts
            value, columns = self.trainer.gradients(entries, loss)
            grams = gram(columns[:-1]).double().cpu().numpy()
            factors = torch.zeros(len(self.jobs), len(self.workplace.objectives))
            for policy, part in parts.items():
                number = drawn[policy]
                self._decide(step, number, loss.rollouts.rewards[policy], validated.get(number), grams[number])
                factors[number] = self.steering[number].factors(part).float()
            self._combine(columns, factors)
        loss.advantages = {p: self.steering[drawn[p]].advantages(part) for p, part in parts.items()}
        if not by_gradient:
            value, _ = self.trainer.gradients(entries, loss)
        for policy in policies:
            rewards = loss.rollouts.rewards[policy]
            self.steering[drawn[policy]].moments.add(rewards.reshape(-1, rewards.shape[-1]))
        return value

    def _decide(
        self, step: int, number: int, rewards: np.ndarray, validated: Validated | None, inner: np.ndarray | None
    ) -> None:
        rate = self.trainer.optimisation.rate(step)
        seen = Observation(step, rewards.reshape(-1, rewards.shape[-1]), rate, inner, *(validated or (None, None)))
        self.steering[number].decide(seen)

    def _combine(self, columns: list[list[Tensor]], factors: Float[Tensor, "k m"]) -> None:
        """The update as a sum of the objectives' own gradients, without another pass; the divergence's is the last."""
        for place, parameter in enumerate(self.trainer.parameters):
            total = columns[-1][place].clone()
            for objective, column in enumerate(columns[:-1]):
                # A preference that has stopped may hold NaN here, and counts 0.
                factor = factors[:, objective, None, None].to(column[place])
                total += torch.where(factor != 0, factor * column[place], torch.zeros_like(total))
            parameter.grad = total

    def _clipped(self, step: int) -> Float[Tensor, " k"]:
        """Clip each gradient by its own norm; one that is not finite stops its preference."""
        norms = self.trainer.clip()
        for number in self._going():
            if not bool(torch.isfinite(norms[number])):
                self._stop(step, number, "its loss is no longer finite; a lower learning_rate helps", self._good)
        return norms

    def _apply(self, step: int, before: Sequence[Tensor]) -> None:
        """One optimiser step; those that have stopped stay exactly where they are, and infinities are taken back."""
        stopped = [number for number, each in enumerate(self.steering) if each.stopped is not None]
        kept = [parameter[stopped].detach().clone() for parameter in self.trainer.parameters]
        for parameter in self.trainer.parameters:
            if parameter.grad is not None:
                parameter.grad[stopped] = 0.0
        self.trainer.update(step)
        with torch.no_grad():
            for parameter, values in zip(self.trainer.parameters, kept, strict=True):
                parameter[stopped] = values
        finite = torch.stack(
            [torch.isfinite(each.detach()).flatten(1).all(1).cpu() for each in self.trainer.parameters]
        )
        for number in self._going():
            if not bool(finite[:, number].all()):
                self._stop(step, number, "its weights are no longer finite; a lower learning_rate helps", before)

    # Guards

    def _look_at_the_end(self, step: int) -> None:
        """Watch the policies after the last step too: one more batch, from which nothing is learnt."""
        drawn, rollouts = self._going(), self._roll_out(step)
        loss = RolloutLoss.of(self.bank, self.workplace, rollouts, self.settings)
        loss.advantages = {policy: torch.zeros(rollouts.rewards.shape[1:3]) for policy in range(len(drawn))}
        with torch.no_grad():
            for entry in self._entries(drawn, rollouts):
                loss([entry])
        self._watch(step, drawn, loss)

    def _stop(self, step: int, number: int, reason: str, kept: Sequence[Tensor] | None = None) -> None:
        """End a preference's training: with the adapter it has, or with that of `kept`."""
        key = self.jobs[number].key
        self.steering[number].stopped = {"step": step, "reason": reason}
        with torch.no_grad():
            for parameter, values in zip(self.trainer.parameters, kept or [], strict=kept is not None):
                parameter[number] = values[number]
        self.workplace.notice(f"{key} stopped in step {step + 1}: {reason}; its last good adapter is kept")

    def _stop_without_rewards(self, step: int, drawn: Sequence[int], rollouts: Rollouts) -> None:
        for policy, number in enumerate(drawn):
            finite = np.isfinite(rollouts.rewards[policy]).all((0, 1))
            if not finite.all():
                name = self.workplace.objectives[int(np.argmin(finite))]
                count = int((~np.isfinite(rollouts.rewards[policy])).any(-1).sum())
                self._stop(step, number, f"objective {name!r} gave no finite score to {count} of its completions")

    def _watch(self, step: int, drawn: Sequence[int], loss: RolloutLoss) -> list[float]:
        """Log what the rollouts show, and hold it against the budgets; the KL of those that train."""
        found = []
        for policy, number in enumerate(drawn):
            steering = self.steering[number]
            if steering.stopped is not None:
                continue
            kl, entropy = loss.sampled(policy)
            length = float(loss.rollouts.lengths[policy].mean())
            found.append(kl)
            self._record(step, number, policy, loss, {"kl": kl, "entropy": entropy, "length": length})
            if (reason := reason_to_stop(self.settings, kl, entropy, length)) is not None:
                self._stop(step, number, reason, self._good)
                continue
            steering.entropy = steering.entropy or entropy
            warning = collapse(self.settings, entropy, steering.entropy)
            if warning is not None and not steering.collapsed:
                steering.collapsed = True
                self.workplace.notice(f"{self.jobs[number].key}: {warning}")
        return found

    def _record(self, step: int, number: int, policy: int, loss: RolloutLoss, numbers: dict[str, Any]) -> None:
        names, rewards = self.workplace.objectives, loss.rollouts.rewards[policy]
        steering = self.steering[number]
        self.workplace.on_record(
            "rollouts",
            {
                "adapter": self.jobs[number].key,
                "step": step + 1,
                "rewards": dict(zip(names, rewards.mean((0, 1)).tolist(), strict=True)),
                **numbers,
                "truncated": float(loss.rollouts.truncated[policy].mean()),
                "weights": dict(zip(names, steering.weighting.weights.tolist(), strict=True)),
                "scale": steering.weighting.scale,
                **({"gram": steering.gram} if steering.gram else {}),
            },
        )


def gram(columns: Sequence[Sequence[Tensor]]) -> Float[Tensor, "k m m"]:
    """Inner products of the objectives' gradients, adapter by adapter, summed over all of its factors."""
    total = None
    for gradients in zip(*columns, strict=True):
        stacked = torch.stack(gradients).flatten(2)
        inner = torch.einsum("akd,bkd->kab", stacked, stacked)
        total = inner if total is None else total + inner.to(total.device)
    assert total is not None
    return total


def _steering(job: Job, workplace: Workplace, settings: OnlineSettings) -> Steering:
    preference = job.preference.vector(workplace.objectives)
    kind, own = settings.weighter
    weighter = job.weighter or build_weighter(kind, preference, own, workplace.folder)
    return Steering(weighter, Weighting(preference), settings.estimator, settings.aggregation)
