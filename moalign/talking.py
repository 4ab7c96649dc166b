"""One text for one wish: the `generate` command, and its Python twin."""

from dataclasses import dataclass
from typing import Any

from moalign.bank import AdapterBank
from moalign.batches import Completions, Prompt
from moalign.blends import row_for
from moalign.data import tokenize_prompts
from moalign.generation import generate
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
        self, prompt: str, preference: Preference, *, seed: int = 0, max_new_tokens: int = 128, temperature: float = 1.0
    ) -> dict[str, Any]:
        """Answer a prompt as the preference wants it: {text, preference, row, scores}.

        `scores` has the objectives that can score a text by themselves; those learned from pairs are left out. In a
        run over conversations the prompt is what the user says; in one over plain texts it is taken as it is.
        """
        row = row_for(self.run, preference)
        asked: Prompt = [{"role": "user", "content": prompt}] if self._converses() else prompt
        with AdapterBank(self.base.model, {key: self.run.store.load(key) for key in row}) as bank:
            (ids,) = generate(
                self.base,
                bank,
                bank.mixture(row)[None],
                tokenize_prompts([asked], self.base.tokenizer),
                seeds=[seed],
                max_new_tokens=max_new_tokens,
                temperature=temperature,
            )
        text = str(self.base.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        scores = ObjectiveSet(self.scorers).score(Completions([asked], [text]))[0] if self.scorers else []
        return {
            "text": text,
            "preference": preference.weights,
            "row": row,
            "scores": {each.name: float(score) for each, score in zip(self.scorers, scores, strict=True)},
        }

    def _converses(self) -> bool:
        """Whether the run's own prompts are conversations: the adapters know no other form."""
        return any(not isinstance(row["prompt"], str) for row in self.run.samples(BASE)[:1])
