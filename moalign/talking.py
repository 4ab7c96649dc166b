"""One text for one wish: the `generate` command, and its Python twin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.bank import AdapterBank
from moalign.batches import Completions, Prompt
from moalign.blends import row_for
from moalign.conditioning import condition
from moalign.data import tokenize_prompts
from moalign.direction import Direction, choose, nearby
from moalign.errors import ConfigError
from moalign.generation import generate
from moalign.methods import METHODS
from moalign.models import BaseModel, load_base
from moalign.objectives import Objective, ObjectiveSet, build_objective
from moalign.preference import Preference
from moalign.runs import BASE, Run


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

    def say(
        self,
        prompt: str,
        preference: Preference | Direction,
        *,
        seed: int = 0,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        best_of: int = 1,
        spread: float = 0.0,
    ) -> dict[str, Any]:
        """Answer a prompt as the preference wants: {text, preference, row, scores}, and the direction that was told.

        `scores` has the objectives that can score a text by themselves; those learned from pairs are left out. In a
        run over conversations the prompt is what the user says; in one over plain texts it is taken as it is.

        A run of `dpa` is told a direction: that of the preference, or the one given. With `best_of` n, the best along
        it of n answers is taken, which for `dpa` are asked for in directions within `spread` degrees of it (robust
        preference selection, arXiv 2510.20498); all objectives must score by themselves. Raises ConfigError for a
        direction or a spread where the adapters do not read any, and for a choice that cannot be made.
        """
        wish = self._wish(preference, best_of, spread)
        asked: Prompt = [{"role": "user", "content": prompt}] if self._converses() else prompt
        told = self._told(asked, wish, seed, best_of, spread)
        with AdapterBank(self.base.model, {key: self.run.store.load(key) for key in wish.row}) as bank:
            ids = generate(
                self.base,
                bank,
                bank.mixture(wish.row).expand(best_of, -1),
                tokenize_prompts(told, self.base.tokenizer),
                seeds=list(range(seed, seed + best_of)),
                max_new_tokens=max_new_tokens,
                temperature=temperature,
            )
        texts = [str(text).strip() for text in self.base.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        scores = self._scores(asked, texts)
        best = (choose(scores, wish.along) if best_of > 1 else 0) or 0
        return {
            "text": texts[best],
            "preference": wish.preference.weights,
            **({} if wish.direction is None else {"direction": wish.direction.components}),
            "row": wish.row,
            "scores": {each.name: float(score) for each, score in zip(self.scorers, scores[best], strict=True)},
        }

    def _wish(self, asked: Preference | Direction, best_of: int, spread: float) -> "_Wish":
        names, reads = self.run.objectives, METHODS[self.run.config.method].adapters == "rounds"
        if not reads and (isinstance(asked, Direction) or spread):
            raise ConfigError(
                f"{self.run.folder} was trained by {self.run.config.method!r}, whose adapters read no direction; ask "
                "for weights >= 0 and no spread, or use a run of method 'dpa'"
            )
        if best_of > 1 and len(self.scorers) < len(names):
            learned = next(name for name in names if name not in [each.name for each in self.scorers])
            raise ConfigError(
                f"the best of {best_of} answers needs scores, and objective {learned!r} has no type to score"
            )
        if isinstance(asked, Direction):
            even = Preference.of(dict.fromkeys(names, 1.0))
            return _Wish(row_for(self.run, even), asked.preference() or even, asked, asked.vector(names))
        direction = Direction.toward(asked) if reads else None
        along = asked.vector(names) if direction is None else direction.vector(names)
        return _Wish(row_for(self.run, asked), asked, direction, along)

    def _told(self, asked: Prompt, wish: "_Wish", seed: int, count: int, spread: float) -> list[Prompt]:
        """The prompt as each answer is asked for: with a direction each, where the adapter reads one."""
        if wish.direction is None:
            return [asked] * count
        rng = np.random.default_rng(seed)
        around = nearby(wish.direction, count, spread, rng) if spread else [wish.direction] * count
        wording = self.run.config.method_settings.wording(self.run.objectives)
        return [condition(asked, direction, wording, self.base.tokenizer) for direction in around]

    def _scores(self, asked: Prompt, texts: Sequence[str]) -> Float[np.ndarray, "n m"]:
        if not self.scorers:
            return np.zeros((len(texts), 0))
        return ObjectiveSet(self.scorers).score(Completions([asked] * len(texts), list(texts)))

    def _converses(self) -> bool:
        """Whether the run's own prompts are conversations: the adapters know no other form."""
        return any(not isinstance(row["prompt"], str) for row in self.run.samples(BASE)[:1])


@dataclass(frozen=True)
class _Wish:
    """What was asked for, as adapters see it; `along` is what the best of several answers is the best for."""

    row: dict[str, float]
    preference: Preference
    direction: Direction | None
    along: Float[np.ndarray, " m"]
