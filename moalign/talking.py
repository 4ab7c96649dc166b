"""One text for one wish: the `generate` command, and its Python twin."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.bank import AdapterBank
from moalign.batches import Completions, Prompt
from moalign.conditioning import condition
from moalign.data import tokenize_prompts
from moalign.direction import Direction, choose, nearby
from moalign.errors import ConfigError
from moalign.generation import generate
from moalign.models import BaseModel, load_base
from moalign.objectives import Objective, ObjectiveSet, build_objective
from moalign.preference import Preference
from moalign.runs import BASE, Run
from moalign.serving.offline import decode
from moalign.serving.plan import Plan, Planner
from moalign.serving.policies import unread
from moalign.serving.sampling import Sampling

LIKELIEST = 1e-6  # a temperature so low that only the likeliest token is ever drawn; 0 divides by itself


@dataclass(frozen=True)
class Speaker:
    """A run's base model and its objectives that score a text by themselves, loaded once for any number of texts."""

    run: Run
    base: BaseModel
    scorers: list[Objective]

    @classmethod
    def load(cls, run: Run) -> "Speaker":
        """Load the base model of a run and build its objectives."""
        config = run.config
        scorers = [
            build_objective(name, {"type": settings.type, **settings.extras}, config.own_folder)
            for name, settings in config.objectives.items()
            if settings.type is not None
        ]
        return cls(run, load_base(config.base, device=config.device, dtype=config.dtype), scorers)

    @cached_property
    def planner(self) -> Planner:
        """From a wish to a row; the run's points are read once, at the first text."""
        return Planner.of(self.run)

    def say(
        self,
        prompt: str,
        preference: Preference | Direction,
        *,
        policy: str | None = None,
        seed: int = 0,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        best_of: int = 1,
        spread: float = 0.0,
    ) -> dict[str, Any]:
        """Answer a prompt as the preference wants: {text, preference, policy, row, predicted, source, scores}.

        The row is what the policy makes of the preference (`moalign.serving.plan`), by default the run's own; for
        `decode` there are `lanes` in its place, rows with their shares. `predicted` and `source` are what it is
        predicted to attain. `scores` has the objectives that can score a text by themselves; those learned from pairs
        are left out. In a run over conversations the prompt is what the user says; in one over plain texts it is taken
        as it is. Temperature 0 takes the likeliest token each time.

        A run of `dpa` is told a `direction`, which is returned too: that of the preference, or the one given (then the
        preference is None if a component is negative). With `best_of` n, the best along it of n answers is taken, which
        for `dpa` are asked for in directions within `spread` degrees of it (robust preference selection, arXiv
        2510.20498); all objectives must score by themselves. Raises ConfigError for a direction or a spread where the
        adapters do not read any, for a choice that cannot be made, and for a policy that the run does not allow.
        """
        plan = self._plan(preference, policy, best_of, spread)
        direction = plan.direction
        asked: Prompt = [{"role": "user", "content": prompt}] if converses(self.run) else prompt
        told = self._told(asked, direction, seed, best_of, spread)
        samplings = [Sampling(max_new_tokens, temperature, seed=seed + number) for number in range(best_of)]
        texts = self._write(plan, tokenize_prompts(told, self.base.tokenizer), samplings)
        scores = self._scores(asked, texts)
        along = preference if direction is None else direction
        best = (choose(scores, along.vector(self.run.objectives)) if best_of > 1 else 0) or 0
        record = plan.as_dict()
        return {
            "text": texts[best],
            "preference": record["preference"],
            **({} if direction is None else {"direction": record["direction"]}),
            "policy": plan.policy,
            **({"row": plan.rows[0]} if len(plan.rows) == 1 else {"lanes": record["lanes"]}),
            "predicted": record["predicted"],
            "source": plan.source,
            "scores": {each.name: float(score) for each, score in zip(self.scorers, scores[best], strict=True)},
        }

    def _plan(self, asked: Preference | Direction, policy: str | None, best_of: int, spread: float) -> Plan:
        names = self.run.objectives
        plan = self.planner.plan(asked, policy)
        if plan.direction is None and spread:
            raise ConfigError(unread(self.run.config.method))
        if best_of > 1 and len(self.scorers) < len(names):
            learned = next(name for name in names if name not in [each.name for each in self.scorers])
            raise ConfigError(
                f"the best of {best_of} answers needs scores, and objective {learned!r} has no type to score"
            )
        return plan

    def _write(self, plan: Plan, prompts: Sequence[list[int]], samplings: Sequence[Sampling]) -> list[str]:
        keys = dict.fromkeys(key for row in plan.rows for key in row)
        with AdapterBank(self.base.model, {key: self.run.store.load(key) for key in keys}) as bank:
            if len(plan.rows) == 1:  # transformers' own loop, which knows every architecture
                ids = generate(
                    self.base,
                    bank,
                    bank.mixture(plan.rows[0]).expand(len(prompts), -1),
                    prompts,
                    seeds=[each.seed for each in samplings],
                    max_new_tokens=samplings[0].max_tokens,
                    temperature=samplings[0].temperature or LIKELIEST,
                )
            else:
                ids = decode(self.base, bank, plan, prompts, samplings)
        return [str(text).strip() for text in self.base.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _told(self, asked: Prompt, direction: Direction | None, seed: int, count: int, spread: float) -> list[Prompt]:
        """The prompt as each answer is asked for: with a direction each, where the adapter reads one."""
        if direction is None:
            return [asked] * count
        rng = np.random.default_rng(seed)
        around = nearby(direction, count, spread, rng) if spread else [direction] * count
        wording = self.run.config.method_settings.wording(self.run.objectives)
        return [condition(asked, each, wording, self.base.tokenizer) for each in around]

    def _scores(self, asked: Prompt, texts: Sequence[str]) -> Float[np.ndarray, "n m"]:
        if not self.scorers:
            return np.zeros((len(texts), 0))
        return ObjectiveSet(self.scorers).score(Completions([asked] * len(texts), list(texts)))


def converses(run: Run) -> bool:
    """Whether the run's own prompts are conversations: its adapters know no other form."""
    return any(not isinstance(row["prompt"], str) for row in run.samples(BASE)[:1])
