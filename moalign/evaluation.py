"""Measuring adapters: generate for all of them in the same batches, score with every objective, say how sure."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from moalign.bank import AdapterBank
from moalign.batches import Completions, Prompt
from moalign.cache import score_cached
from moalign.config import EvaluationSettings
from moalign.errors import ObjectiveError
from moalign.files import digest
from moalign.frontiers import ParetoPoint, bootstrap_interval, clustered_mean
from moalign.frontiers.oracle import Answers, log_partition, matched_beta
from moalign.generation import generate
from moalign.logprobs import Reference, Scorer
from moalign.memory import in_parts
from moalign.models import BaseModel
from moalign.objectives import ObjectiveSet
from moalign.preference import Preference


@dataclass(frozen=True)
class Measurement:
    """n responses of one policy, and what each is worth."""

    prompt: Int[np.ndarray, " n"]  # which prompt each response answers
    responses: list[str]
    scores: Float[np.ndarray, "n m"]
    log_ratio: Float[np.ndarray, " n"]  # log pi(y|x) - log pi_ref(y|x), in nats
    kl: Float[np.ndarray, " n"]  # exact divergence of the next tokens, summed along the response, in nats
    length: Int[np.ndarray, " n"]  # tokens, EOS included
    truncated: Bool[np.ndarray, " n"]  # EOS did not come in time


@dataclass(frozen=True)
class Evaluator:
    """Measures rows of a bank on a fixed set of prompts.

    Every (prompt, sample) has its own stream of random numbers, the same for every adapter: a response does not
    depend on what else is in the batch, and differences between adapters are measured on common random numbers.
    """

    base: BaseModel
    scorer: Scorer
    objectives: ObjectiveSet
    prompts: Sequence[Prompt]
    prompt_ids: Sequence[list[int]]
    settings: EvaluationSettings
    seed: int
    cache: Path
    world: Sequence[Answers] | None = None  # every answer to each prompt, where they can be enumerated
    reference: Reference = nullcontext  # what KL is measured from: the base, or a soup
    on_batch: Callable[[int, int], None] = field(default=lambda *_: None)
    notice: Callable[[str], None] = field(default=lambda *_: None)

    def measure(
        self,
        bank: AdapterBank | None,
        rows: Mapping[str, torch.Tensor],
        asked: Mapping[str, Sequence[list[int]]] | None = None,
    ) -> dict[str, Measurement]:
        """Measure each named row; a bank of None measures the base model under each name.

        `asked` has the prompts of rows that read them otherwise, such as with a direction in front. Scores and the
        reference policy keep to the plain ones, so that the divergence is that of what the user gets.
        """
        per_row = len(self.prompts) * self.settings.samples
        prompts = [(asked or {}).get(name, self.prompt_ids) for name in rows]
        texts = self._generate(bank, list(rows.values()), prompts)
        found = {}
        for number, (name, row) in enumerate(rows.items()):
            ids = texts[number * per_row : (number + 1) * per_row]
            found[name] = self._measurement(ids, bank, row, prompts[number])
        return found

    def _generate(
        self, bank: AdapterBank | None, rows: Sequence[torch.Tensor], prompts: Sequence[Sequence[list[int]]]
    ) -> list[list[int]]:
        """Responses ordered by row, prompt, sample."""
        samples = self.settings.samples
        work = [(row, p, s) for row in range(len(rows)) for p in range(len(self.prompts)) for s in range(samples)]
        done = 0

        def answer(batch: Sequence[tuple[int, int, int]]) -> list[list[int]]:
            nonlocal done
            found = generate(
                self.base,
                bank,
                torch.stack([rows[row] for row, _, _ in batch]) if bank is not None else None,
                [prompts[row][p] for row, p, _ in batch],
                seeds=[_seed(self.seed, p, s) for _, p, s in batch],
                max_new_tokens=self.settings.max_new_tokens,
                temperature=self.settings.temperature,
            )
            done += len(batch)
            self.on_batch(done, len(work))
            return found

        return in_parts(work, answer, self.settings.batch_size, self.notice)

    def _measurement(
        self, ids: list[list[int]], bank: AdapterBank | None, row: torch.Tensor, prompts: Sequence[list[int]]
    ) -> Measurement:
        samples = self.settings.samples
        groups = [ids[start : start + samples] for start in range(0, len(ids), samples)]
        responses = [text.strip() for text in self.base.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        prompt = np.repeat(np.arange(len(self.prompts)), samples)
        asked = [self.prompts[int(p)] for p in prompt]
        scores = score_cached(self.objectives, Completions(asked, responses), self.cache, finite=False)
        rows = row.expand(len(groups), -1) if bank is not None else None
        plain = None if prompts is self.prompt_ids else self.prompt_ids
        found = self.scorer.divergence(prompts, groups, self.base.pad_id, bank, rows, self.reference, plain)
        log_ratio, kl = (values.double().numpy() for values in found)
        return Measurement(
            prompt=prompt,
            responses=responses,
            scores=scores,
            log_ratio=log_ratio,
            kl=kl,
            length=np.array([len(response) for response in ids]),
            truncated=np.array([response[-1] not in self.base.eos_ids for response in ids]),
        )

    def point(
        self, adapter: str, method: str, preference: Preference, found: Measurement, beta: float | None
    ) -> ParetoPoint:
        """Summarise a measurement: means over responses, errors and intervals over prompts (the sampling unit).

        The oracle is the optimum at `beta`, or, where the method has no beta in the objectives' units, the one of the
        measured KL. Raises ObjectiveError for a score that is not finite.
        """
        finite = np.isfinite(found.scores)
        if not finite.all():
            name = self.objectives.names[int(np.argmin(finite.all(0)))]
            count = int((~finite).any(1).sum())
            raise ObjectiveError(
                f"objective {name!r} gave no finite score to {count} of the {len(finite)} responses of {adapter}; "
                "expected a finite number for every response, the empty one included"
            )
        names = self.objectives.names
        mean, error = clustered_mean(found.scores, found.prompt)
        interval = bootstrap_interval(found.scores, found.prompt, np.random.default_rng(self.seed))
        return ParetoPoint(
            adapter=adapter,
            method=method,
            preference=preference,
            values=dict(zip(names, mean.tolist(), strict=True)),
            standard_errors=dict(zip(names, error.tolist(), strict=True)),
            intervals={name: (float(low), float(high)) for name, (low, high) in zip(names, interval, strict=True)},
            kl_to_reference=float(found.kl.mean()),
            kl_to_oracle=self._kl_to_oracle(found, preference.vector(names), beta),
            length=float(found.length.mean()),
        )

    def _kl_to_oracle(self, found: Measurement, weights: Float[np.ndarray, " m"], beta: float | None) -> float | None:
        """KL(pi || pi*_w) = KL(pi || pi_ref) - E_pi[ w.r/beta - log Z(x) ], sampled; None without a known world."""
        if self.world is None:
            return None
        beta = matched_beta(self.world, weights, float(found.kl.mean())) if beta is None else beta
        if not 0 < beta < np.inf:
            return None
        log_z = np.array([log_partition(answers, weights, beta) for answers in self.world])
        return float(np.mean(found.kl - found.scores @ weights / beta + log_z[found.prompt]))

    def sample_rows(self, found: Measurement) -> list[dict[str, object]]:
        """One JSON-able record per response: what was asked, answered, and how it scored."""
        return [
            {
                "prompt": self.prompts[p],
                "response": response,
                "scores": dict(zip(self.objectives.names, scores.tolist(), strict=True)),
                "log_ratio": ratio,
            }
            for p, response, scores, ratio in zip(
                found.prompt, found.responses, found.scores, found.log_ratio.tolist(), strict=True
            )
        ]


def _seed(seed: int, prompt: int, sample: int) -> int:
    return int(digest(f"{seed}/{prompt}/{sample}")[:15], 16)


def ranking_accuracy(chosen: Float[np.ndarray, " n"], rejected: Float[np.ndarray, " n"]) -> float:
    """Share of pairs whose chosen response is the likelier one; ties count one half.

    >>> ranking_accuracy(np.array([-1.0, -2.0]), np.array([-3.0, -2.0]))
    0.75
    """
    return float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected)))
