"""A sweep that is ready to train: its base, its pairs, and the constants of the data.

Reference log-probabilities, margins and scores do not depend on the preference; they are computed for the whole
sweep, cached by content, and never again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.batches import Completions, PreferencePairs, Prompt, TokenPairs
from moalign.cache import FloatCache, score_cached
from moalign.data.tokenize import tokenize_texts
from moalign.files import digest
from moalign.logprobs import Scorer
from moalign.models import BaseModel
from moalign.objectives import Implicit, Objective, ObjectiveSet
from moalign.reference import ReferencePolicy
from moalign.rollouts import Environment
from moalign.runs import Run
from moalign.workplace import PairData

Notice = Callable[[str], None]


@dataclass
class Prepared:
    """A sweep that is ready to train.

    `scorers` holds the objectives that can score a text; one that is learned from its pairs joins them when its
    corner adapter is trained (`learn`). `pairs` and `heldout` are the texts of each objective's own comparisons.
    """

    run: Run
    base: BaseModel
    scorer: Scorer
    scorers: dict[str, Objective]
    pairs: dict[str, PreferencePairs]
    tokens: dict[str, TokenPairs]
    heldout: dict[str, TokenPairs]
    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    notice: Notice
    reference_policy: ReferencePolicy = field(default_factory=ReferencePolicy)
    start: tuple[Adapter, str] | None = None  # where training begins, with its digest; None for a fresh adapter
    train_prompts: list[Prompt] = field(default_factory=list)  # for rollouts
    train_prompt_ids: list[list[int]] = field(default_factory=list)
    _references: dict[str, Float[np.ndarray, " n"]] = field(default_factory=dict)

    @property
    def implicit(self) -> list[str]:
        """Objectives that are learned from their pairs."""
        return [name for name, settings in self.run.config.objectives.items() if settings.type is None]

    @property
    def data_digest(self) -> str:
        """A name for all that is learned from, by content: the pairs, and the rules that give their margins."""
        settings = self.run.config.objectives
        rules = {name: self.scorers[name].fingerprint for name in settings if settings[name].type is not None}
        texts = [json.dumps([name, *_contents(pairs)]) for name, pairs in sorted(self.pairs.items())]
        texts += [json.dumps(self.train_prompts), self.reference_policy.digest, self.start[1] if self.start else ""]
        return digest(*texts, json.dumps(rules, sort_keys=True), self.run.config.data.separator)

    def learn(self, name: str, adapter: Adapter, key: str) -> None:
        """Make an objective of the adapter trained on its pairs: beta times its log-ratio to the base."""
        bank = AdapterBank(self.base.model, {name: adapter})
        row = bank.mixture({name: 1.0})

        def log_ratio(completions: Completions) -> Float[np.ndarray, " n"]:
            prompts, responses = self._ids(completions)
            rows = row.expand(len(prompts), -1)
            groups = [[response] for response in responses]
            own = self.scorer.batched(prompts, groups, self.base.pad_id, bank=bank, rows=rows)
            return own.double().numpy() - self.reference(prompts, responses)

        beta = self.run.config.method_settings.beta
        self.scorers[name] = Implicit(name, beta, log_ratio, key)

    def _ids(self, completions: Completions) -> tuple[list[list[int]], list[list[int]]]:
        separator = self.run.config.data.separator
        return tokenize_texts(
            completions.prompts, completions.responses, self.base.tokenizer, separator, self.base.eos_ids
        )

    def reference(self, prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> Float[np.ndarray, " n"]:
        """log pi_ref of each response, from the cache where it was computed before."""
        cache = FloatCache(self.run.cache, "reference")
        policy = self.base.digest + self.reference_policy.digest
        keys = [digest(policy, json.dumps([p, r])) for p, r in zip(prompts, responses, strict=True)]
        known = cache.get_many(keys)
        missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())
        for start in range(0, len(missing), 1024):
            part = missing[start : start + 1024]
            groups = [[responses[i]] for i in part]
            with self.reference_policy():
                values = self.scorer.batched([prompts[i] for i in part], groups, self.base.pad_id).tolist()
            cache.put_many({keys[i]: value for i, value in zip(part, values, strict=True)})
            known.update({keys[i]: value for i, value in zip(part, values, strict=True)})
        return np.array([known[key] for key in keys])

    def pair_data(self, name: str) -> PairData:
        """The pairs of one objective with the margins of all others that can score by now."""
        pairs, tokens = self.pairs[name], self.tokens[name]
        if name not in self._references:
            both = self.reference([*tokens.prompt, *tokens.prompt], [*tokens.chosen, *tokens.rejected])
            self._references[name] = both[: len(tokens)] - both[len(tokens) :]
        names = self.run.objectives
        margins = np.full((len(pairs), len(names)), np.nan)
        others = [other for other in names if other != name and other in self.scorers]
        if others:
            scores = self.score(others, [*pairs.prompts, *pairs.prompts], [*pairs.chosen, *pairs.rejected])
            margins[:, [names.index(other) for other in others]] = scores[: len(pairs)] - scores[len(pairs) :]
        return PairData(tokens, pairs.probability, margins, self._references[name])

    def score(self, names: Sequence[str], prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Scores of texts under some objectives, from the cache where they were computed before."""
        objectives = ObjectiveSet([self.scorers[name] for name in names])
        return score_cached(objectives, Completions(prompts, responses), self.run.cache)

    def environment(self, max_new_tokens: int) -> Environment:
        """Where policies answer the training prompts, and are scored by all objectives; a score may be NaN."""

        def score(prompts: Sequence[Prompt], responses: Sequence[str]) -> Float[np.ndarray, "n m"]:
            return score_cached(self.objectives, Completions(prompts, responses), self.run.cache, finite=False)

        return Environment(
            self.base,
            self.train_prompts,
            self.train_prompt_ids,
            score,
            max_new_tokens,
            self.reference_policy,
            self.notice,
        )

    @property
    def objectives(self) -> ObjectiveSet:
        """All objectives, in the order of the run; every implicit one must have been learned."""
        return ObjectiveSet([self.scorers[name] for name in self.run.objectives])


def _contents(pairs: PreferencePairs) -> list[object]:
    """The contents of pairs, for a digest."""
    return [list(pairs.prompts), list(pairs.chosen), list(pairs.rejected), pairs.probability.tolist()]
