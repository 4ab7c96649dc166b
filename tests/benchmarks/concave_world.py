"""A policy of two independent slots, whose front is concave, and its training under any reward weighter.

See bench_concave.py for what it is, and why fixed weights cannot hold the inside of that front.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moalign.losses import LENGTH, Aggregation, Estimator, advantage_parts, clipped_objective, combine, per_sequence
from moalign.weighting import Observation, Weighting, build_weighter

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPTS, VALIDATION = 4, 64  # groups in a batch; answers per validation
RATE, CLIP = 0.02, (0.2, 0.2)  # one update per batch: nothing is ever clipped
PREFERENCES = np.stack([np.linspace(0, 1, 11), np.linspace(1, 0, 11)], axis=1)


class Constraint:
    """Maximise J1 at J2 >= tau = w2^2, by a multiplier l with a proportional part: weights (1, l) / (1 + l).

    e = tau - J2 (of the batch);  log l = gain e + rate (sum of e so far)    (a PI controller, as Stooke et al. 2020,
    arXiv 2007.03964, because the multiplier alone swings between the corners of a front that is not convex).
    """

    needs: frozenset[str] = frozenset()
    validation_every = 0

    def __init__(self, preference: np.ndarray, *, gain: float = 10.0, rate: float = 0.2) -> None:
        self.tau, self.gain, self.rate, self.total = float(preference[1]) ** 2, gain, rate, 0.0

    def update(self, seen: Observation) -> Weighting:
        error = self.tau - float(seen.rewards[:, 1].mean())
        self.total += error
        second = 1 / (1 + np.exp(-np.clip(self.gain * error + self.rate * self.total, -50, 50)))
        return Weighting(np.array([1 - second, second]))

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


# Name: the weighter, its settings, and whether its scale is put on the rewards.
WEIGHTINGS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "fixed": ("fixed", {}, False),
    "hypervolume": ("hypervolume", {}, False),
    "hypervolume naive": ("hypervolume", {}, True),
    "gradient": ("gradient", {"mu": 10 * RATE}, False),
    "tchebycheff": ("tchebycheff:Tchebycheff", {}, False),
    "constraint": ("concave_world:Constraint", {}, False),
}


def values(logits: Tensor) -> Tensor:
    """J1 and J2 of each run, exactly: (runs, 2, 3) -> (runs, 2)."""
    return logits.softmax(-1)[..., :2].prod(dim=1)


def draw(logits: Tensor, answers: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Answers of each run, (runs, answers, 2 slots), and their rewards, (runs, answers, 2 objectives)."""
    below = logits.softmax(-1).cumsum(-1)[:, None, :, :2]
    uniform = torch.rand(len(logits), answers, 2, 1, generator=generator, dtype=torch.float64)
    options = (uniform > below).sum(-1)
    return options, torch.stack([(options == k).all(-1).double() for k in (0, 1)], dim=-1)


def start(seeds: int) -> Tensor:
    """The logits of the 11 runs of each seed, alike within a seed, where about half of the mass is bad."""
    generator = torch.Generator().manual_seed(0)
    logits = 0.5 * torch.randn(seeds, 2, 3, generator=generator, dtype=torch.float64)
    return (logits + torch.tensor([0.0, 0.0, 1.0])).repeat_interleave(len(PREFERENCES), 0)


class Training:
    """The 11 runs of every seed side by side; they share nothing but the call."""

    def __init__(self, name: str, estimator: Estimator, aggregation: Aggregation, seeds: int, completions: int) -> None:
        kind, settings, self.naive = WEIGHTINGS[name]
        self.estimator: Estimator = estimator
        self.aggregation: Aggregation = aggregation
        self.completions, self.batch = completions, PROMPTS * completions
        self.logits = start(seeds).requires_grad_(True)
        self.adam = torch.optim.Adam([self.logits], lr=RATE)
        # The same for all weighters, and apart, so that validation does not change what is drawn for training.
        self.rollouts, self.validation = (torch.Generator().manual_seed(number) for number in (1, 2))
        preferences = np.tile(PREFERENCES, (seeds, 1))
        self.weighters = [build_weighter(kind, preference, settings, EXAMPLES) for preference in preferences]
        self.drawn = 0  # answers, of all runs
        self.initial = values(self.logits.detach())

    def step(self, number: int) -> None:
        """One batch of answers, one update of the weights, one of the policy."""
        old = self.logits.detach().log_softmax(-1)
        options, rewards = draw(old, self.batch, self.rollouts)
        logprobs = self.logits.log_softmax(-1)[:, None].expand(-1, self.batch, -1, -1).gather(-1, options[..., None])
        losses = self._losses(logprobs.flatten())
        parts = self._parts(rewards)
        found = self._weigh(number, rewards, self._grams(losses, parts))
        scales = torch.tensor([one.scale for one in found], dtype=torch.float64)
        if self.naive:
            parts = self._parts(rewards * scales[:, None, None])
            scales = torch.ones_like(scales)
        advantages = torch.stack(
            [
                scale * combine(part, torch.from_numpy(one.weights), self.aggregation).flatten()
                for scale, part, one in zip(scales, parts, found, strict=True)
            ]
        )
        self.adam.zero_grad()
        losses(advantages).sum().backward()
        self.adam.step()
        self.drawn += options.shape[0] * self.batch

    def _parts(self, rewards: Tensor) -> Tensor:
        """(runs, prompts, completions, 2); groups do not know of each other, so all runs are one call.

        That is so because neither pair of estimator and aggregation has parts that depend on the weights.
        """
        groups = rewards.reshape(-1, self.completions, 2)
        parts = advantage_parts(groups, torch.full((2,), 0.5).double(), self.estimator, self.aggregation)
        return parts.reshape(-1, PROMPTS, self.completions, 2)

    def _losses(self, logprobs: Tensor) -> Callable[[Tensor], Tensor]:
        """Advantages (runs, batch) -> the loss of each run; the two slots are the tokens of an answer."""
        sequences = len(logprobs) // 2
        owner = torch.arange(sequences).repeat_interleave(2)

        def losses(advantages: Tensor) -> Tensor:
            tokens = clipped_objective(logprobs, logprobs.detach(), advantages.flatten(), owner, CLIP)
            length = LENGTH[self.estimator]
            assert length in ("mean", "sum")
            return per_sequence(tokens, owner, sequences, length).reshape(-1, self.batch).mean(1)

        return losses

    def _grams(self, losses: Callable[[Tensor], Tensor], parts: Tensor) -> list[np.ndarray] | None:
        """For weighters that need it: one backward pass per objective through the same graph."""
        if "gram" not in self.weighters[0].needs:
            return None
        gradients = [
            torch.autograd.grad(losses(parts[..., k].flatten(1)).sum(), self.logits, retain_graph=True)[0].flatten(1)
            for k in (0, 1)
        ]
        rows = torch.stack(gradients, dim=1)
        return list((rows @ rows.mT).numpy())

    def _weigh(self, number: int, rewards: Tensor, grams: list[np.ndarray] | None) -> list[Weighting]:
        every = self.weighters[0].validation_every
        measured = None
        if every and number % every == 0:
            _, scores = draw(self.logits.detach(), VALIDATION, self.validation)
            self.drawn += scores.shape[0] * VALIDATION
            measured = ((scores.mean(1) - self.initial) / (self.initial * (1 - self.initial)).sqrt()).numpy()
        return [
            weighter.update(
                Observation(
                    step=number,
                    rewards=rewards[run].numpy(),
                    learning_rate=RATE,
                    gram=None if grams is None else grams[run],
                    validation=None if measured is None else measured[run],
                )
            )
            for run, weighter in enumerate(self.weighters)
        ]
