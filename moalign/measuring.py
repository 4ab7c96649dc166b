"""From adapters to points: what each adapter of a run attains, measured with all objectives."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from moalign.bank import AdapterBank
from moalign.claims import claim
from moalign.conditioning import condition
from moalign.data import tokenize_prompts
from moalign.direction import Direction
from moalign.enumeration import read_world
from moalign.errors import ObjectiveError
from moalign.evaluation import Evaluator, Measurement, ranking_accuracy
from moalign.files import write_json
from moalign.frontiers import ParetoPoint
from moalign.planning import Planner, Policy
from moalign.preference import Preference
from moalign.prepared import Prepared
from moalign.progress import Reporter
from moalign.runs import BASE

POLL_SECONDS = 1.0  # between looks at what other workers have finished


def open_evaluator(prepared: Prepared, reporter: Reporter) -> Evaluator:
    """Measures adapters of a run, once the objectives that are learned from pairs have their adapters."""
    learn_implicit(prepared)
    return Evaluator(
        base=prepared.base,
        scorer=prepared.scorer,
        objectives=prepared.objectives,
        prompts=prepared.prompts,
        prompt_ids=prepared.prompt_ids,
        settings=prepared.run.config.evaluation,
        seed=prepared.run.config.seed,
        cache=prepared.run.cache,
        world=read_world(prepared.run),
        reference=prepared.reference_policy,
        notice=reporter.notice,
        on_batch=lambda done, total: reporter.bar("generating", done, total),
    )


def planner_of(prepared: Prepared) -> Planner:
    """What a run is made of."""
    prompts = dict.fromkeys(prepared.run.objectives, len(prepared.train_prompts))
    sizes = prompts | {name: len(pairs) for name, pairs in prepared.pairs.items()}
    return Planner(prepared.run.config, prepared.data_digest, prepared.base.digest, sizes)


def learn_implicit(prepared: Prepared) -> None:
    """Make an objective of each corner adapter that was trained on pairs alone: MODPO's margin models."""
    for name in prepared.implicit:
        if name not in prepared.scorers:
            corner = Preference.of({name: 1.0})
            key = next(plan.key for plan in planner_of(prepared).corners() if plan.preference == corner)
            prepared.learn(name, prepared.run.store.load(key), key)


def directed_ids(prepared: Prepared, direction: Direction) -> list[list[int]]:
    """The evaluation prompts as a policy reads them that is told a direction."""
    wording = prepared.run.config.method_settings.wording(prepared.run.objectives)
    told = [condition(prompt, direction, wording, prepared.base.tokenizer) for prompt in prepared.prompts]
    return tokenize_prompts(told, prepared.base.tokenizer)


class Measurer:
    """Measures the policies of a run, `total` in all, and writes their points."""

    def __init__(self, prepared: Prepared, reporter: Reporter, total: int):
        self.prepared, self.run, self.reporter, self.total = prepared, prepared.run, reporter, total

    def measure(self, group: Sequence[Policy]) -> None:
        """Measure those of the group that have no point yet, in the same batches."""
        evaluator = open_evaluator(self.prepared, self.reporter)
        self._measure_base(evaluator)
        left = [policy for policy in group if not self.run.has_point(policy.key)]
        if not left:
            return
        adapters = dict.fromkeys(key for policy in left for key in policy.row)
        with AdapterBank(self.prepared.base.model, {key: self.run.store.load(key) for key in adapters}) as bank:
            rows = {policy.key: bank.mixture(policy.row) for policy in left}
            found = evaluator.measure(bank, rows, self._asked(left))
            for policy in left:
                self._write_accuracy(policy.key, bank, rows[policy.key])
        front, refused = self.run.front(), None
        for policy in left:
            try:
                point = self._point(evaluator, policy, found[policy.key])
            except ObjectiveError as error:  # of this adapter's texts: the others land first
                refused = refused or error
                continue
            self.run.write_samples(policy.key, evaluator.sample_rows(found[policy.key]))
            self.run.add_point(point)
            status = front.add(point)
            volume = front.hypervolume()
            self.run.log("point", **point.as_dict(), status=status.name, hypervolume=volume)
            self._say_truncated(found[policy.key])
            self.reporter.landed(point, status, volume, len(front), self.total)
        if refused is not None:
            raise refused

    def _asked(self, policies: Sequence[Policy]) -> dict[str, list[list[int]]]:
        """The prompts of policies that are told a direction, as they read them."""
        told = [(policy.key, policy.direction) for policy in policies if policy.direction is not None]
        return {key: directed_ids(self.prepared, direction) for key, direction in told}

    def _point(self, evaluator: Evaluator, policy: Policy, found: Measurement) -> ParetoPoint:
        config = self.run.config
        beta = config.method_settings.oracle_beta
        point = evaluator.point(policy.key, config.method, policy.preference, found, beta)
        row = None if policy.row == {policy.key: 1.0} else policy.row
        return replace(point, row=row, direction=policy.direction and policy.direction.components)

    def _say_truncated(self, found: Measurement) -> None:
        share = float(found.truncated.mean())
        if share > 0.2:
            self.reporter.notice(f"{share:.0%} of these responses did not end within max_new_tokens")

    def _measure_base(self, evaluator: Evaluator) -> None:
        """The base model's own point, and with it the reference point of every hypervolume of this run."""
        while self.run.base_point() is None:
            with claim(self.run.folder / "claims", BASE) as mine:
                if not mine:
                    time.sleep(POLL_SECONDS)
                if not mine or self.run.base_point() is not None:
                    continue
                found = evaluator.measure(None, {BASE: torch.zeros(1)})[BASE]
                names = self.run.objectives
                even = Preference.of(dict.fromkeys(names, 1.0))
                base = evaluator.point(BASE, BASE, even, found, self.run.config.method_settings.oracle_beta)
                deviation = found.scores.std(0)
                # Two deviations below the base; one unit below where the base has only one score.
                lowest = found.scores.mean(0) - np.where(deviation > 0, 2 * deviation, 1.0)
                chosen = self.run.config.reference_point or dict(zip(names, lowest.tolist(), strict=True))
                self.run.write_samples(BASE, evaluator.sample_rows(found))
                self._write_accuracy(BASE)
                self.run.fix_reference(base, chosen)

    def _write_accuracy(self, key: str, bank: AdapterBank | None = None, row: torch.Tensor | None = None) -> None:
        """Share of held-out pairs that the policy ranks as their labels do, per objective.

        `likelihood` asks which response it finds likelier; `reward` which it has made likelier than the base did (DPO's
        implicit reward), and is one half for the base itself.
        """
        pad, found = self.prepared.base.pad_id, {}
        for name, pairs in self.prepared.heldout.items():
            if not len(pairs):
                continue
            rows = row.expand(len(pairs), -1) if row is not None else None
            both = list(zip(pairs.chosen, pairs.rejected, strict=True))
            own = np.asarray(self.prepared.scorer.batched(pairs.prompt, both, pad, bank=bank, rows=rows)).reshape(-1, 2)
            reference = self.prepared.reference([*pairs.prompt, *pairs.prompt], [*pairs.chosen, *pairs.rejected])
            plain = bank is None and not self.prepared.reference_policy.digest  # equal, and not only nearly so
            ratio = np.zeros_like(own) if plain else own - reference.reshape(2, -1).T
            found[name] = {"likelihood": ranking_accuracy(*own.T), "reward": ranking_accuracy(*ratio.T)}
        write_json(self.run.folder / "accuracy" / f"{key}.json", found)
