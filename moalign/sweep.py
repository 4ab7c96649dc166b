"""The sweep: from a config to a run folder with a front of measured adapters.

It may be killed at any instant and given again: what is finished is neither trained nor scored twice, and what was in
training goes on from its last checkpoint. Any number of workers may share the folder.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from moalign import __version__
from moalign.bank import AdapterBank
from moalign.claims import claim
from moalign.config import SweepConfig
from moalign.enumeration import known_world, read_world
from moalign.evaluation import Evaluator, Measurement, ranking_accuracy
from moalign.files import create_once, digest, read_json, write_json
from moalign.merging import soup
from moalign.methods import METHODS, Job, PairData, Workplace
from moalign.models import adapter_factory, describe
from moalign.planning import Plan, best_group_size, groups_of, preferences_of, waves_of
from moalign.preference import Preference
from moalign.preparation import prepare
from moalign.prepared import Prepared
from moalign.progress import Reporter
from moalign.runs import BASE, Run
from moalign.trackers import open_trackers

_POLL_SECONDS = 1.0  # between looks at what other workers have finished
_LOG_STEPS = 10


def run_sweep(config: SweepConfig, folder: str | Path, reporter: Reporter | None = None) -> Run:
    """Train and measure one adapter for each preference of `config`; begin the run in `folder` or continue it.

    Raises a UserError with one clear line for whatever the user can mend; the run then stays resumable.
    """
    reporter = reporter or Reporter(quiet=True)
    preferences_of(config)  # a wrong weight is told before anything is loaded
    run = Run.create(Path(folder), config)
    with reporter.running():
        _Sweep(run, reporter).finish()
    return run


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
        on_batch=lambda done, total: reporter.bar("generating", done, total),
    )


def plans_of(prepared: Prepared) -> list[list[Plan]]:
    """The waves of adapters that a run is made of."""
    sizes = {name: len(pairs) for name, pairs in prepared.pairs.items()}
    return waves_of(prepared.run.config, prepared.data_digest, prepared.base.digest, sizes)


def learn_implicit(prepared: Prepared) -> None:
    """Make an objective of each corner adapter that was trained on pairs alone: MODPO's margin models."""
    for name in prepared.implicit:
        if name not in prepared.scorers:
            corner = Preference.of({name: 1.0})
            key = next(plan.key for plan in plans_of(prepared)[0] if plan.preference == corner)
            prepared.learn(name, prepared.run.store.load(key), key)


class _Sweep:
    """One worker's view of a run."""

    def __init__(self, run: Run, reporter: Reporter):
        self.run, self.reporter = run, reporter
        self.prepared = prepare(run, reporter.notice)
        self.settings = run.config.method_settings
        self.waves = plans_of(self.prepared)
        self.plans = [plan for wave in self.waves for plan in wave]
        known_world(self.prepared)
        self.trackers = open_trackers(run.config.trackers, run.folder)
        settings = run.config.adapter
        self._fresh = adapter_factory(
            self.prepared.base, rank=settings.rank, alpha=settings.alpha, target_modules=settings.target_modules
        )

    def finish(self) -> None:
        """Work until every plan has its adapter and its point."""
        try:
            for wave in self.waves:
                groups = groups_of(wave, self._group_size(wave))
                self._each(groups, self._trained, self._train)
                learn_implicit(self.prepared)
                self._each(groups, self._measured, self._measure)
        finally:
            for tracker in self.trackers:
                tracker.finish()
        shutil.rmtree(self.run.folder / "checkpoints", ignore_errors=True)  # what kills have left of finished groups

    def _each(
        self,
        groups: Sequence[list[Plan]],
        done: Callable[[Sequence[Plan]], bool],
        work: Callable[[list[Plan]], None],
    ) -> None:
        """Do the groups that are nobody else's, and wait for those that are."""
        while left := [group for group in groups if not done(group)]:
            busy = True
            for group in left:
                with claim(self.run.folder / "claims", _name(group)) as mine:
                    if mine and not done(group):
                        work(group)
                    busy = busy and not mine
            if busy:
                time.sleep(_POLL_SECONDS)

    def _trained(self, group: Sequence[Plan]) -> bool:
        return all(plan.key in self.run.store for plan in group)

    def _measured(self, group: Sequence[Plan]) -> bool:
        return all(self.run.has_point(plan.key) for plan in group)

    # Training

    def _train(self, group: list[Plan]) -> None:
        data = {name: self.prepared.pair_data(name) for name in {plan.primary for plan in group}}
        checkpoint, left = self._checkpoint(group), group
        if not checkpoint.is_file():  # else it holds the whole group
            left = [plan for plan in group if plan.key not in self.run.store]
            checkpoint = self._checkpoint(left)
        adapters = METHODS[self.run.config.method].train(
            [self._job(plan) for plan in left], self._workplace(left, data, checkpoint), self.settings
        )
        for plan in left:
            self.run.store.save(plan.key, adapters[plan.key], self._record(plan), self.prepared.base.name)
        checkpoint.unlink(missing_ok=True)
        if set(self.run.objectives) <= set(self.prepared.scorers):  # else once the whole wave is trained
            self._measure(group)

    def _checkpoint(self, group: Sequence[Plan]) -> Path:
        return self.run.folder / "checkpoints" / f"{_name(group)}.safetensors"

    def _job(self, plan: Plan) -> Job:
        # One seed for all: adapters that begin alike can be blended (rewarded soups, section 2).
        start = self._fresh(self.run.config.seed)
        if plan.parents:
            parents = [self.run.store.load(key) for key in plan.parents]
            start = soup(parents, plan.preference.vector(self.run.objectives).tolist(), self.run.config.adapter.rank)
        return Job(plan.key, plan.preference, plan.primary, start, plan.steps)

    def _workplace(self, group: list[Plan], data: dict[str, PairData], checkpoint: Path | None) -> Workplace:
        def on_step(step: int, steps: int, numbers: dict[str, float]) -> None:
            label = str(group[0].preference) if len(group) == 1 else f"{len(group)} preferences"
            self.reporter.bar(f"training {label}", step, steps, f"loss {numbers['loss']:.3f}")
            if step % _LOG_STEPS == 0 or step == steps:
                self.run.log("step", group=_name(group), step=step, **numbers)
                for tracker in self.trackers:
                    tracker.log(step, {f"{_name(group)}/{name}": value for name, value in numbers.items()})

        return Workplace(
            scorer=self.prepared.scorer,
            pad_id=self.prepared.base.pad_id,
            objectives=self.run.objectives,
            data=data,
            seed=self.run.config.seed,
            checkpoint=checkpoint,
            checkpoint_seconds=self.run.config.checkpoint_seconds,
            on_step=on_step,
            notice=self.reporter.notice,
        )

    def _record(self, plan: Plan) -> dict[str, object]:
        packages = ("torch", "transformers", "peft")
        return {
            "base": describe(self.prepared.base),
            "method": self.run.config.method,
            "settings": self.settings.model_dump(mode="json"),
            "preference": plan.preference.weights,
            "primary": plan.primary,
            "steps": plan.steps,
            "data": self.prepared.data_digest,
            "seed": self.run.config.seed,
            "parents": list(plan.parents),
            "versions": {"moalign": __version__, **{name: version(name) for name in packages}},
        }

    def _group_size(self, wave: Sequence[Plan]) -> int:
        """Fixed once for a run, so that a continued one has the same groups and so the same arithmetic."""
        asked, path = self.run.config.group_size, self.run.folder / "plan.json"
        if asked != "auto":
            return asked
        if not path.is_file():
            most = max(len(wave) for wave in self.waves)
            create_once(path, {"group_size": self._time_groups(wave[0], most)})
        return read_json(path)["group_size"]

    def _time_groups(self, plan: Plan, most: int) -> int:
        if most == 1:
            return 1
        method, data = METHODS[self.run.config.method], {plan.primary: self.prepared.pair_data(plan.primary)}
        job = Job("probe", plan.preference, plan.primary, self._fresh(0), 1)
        settings = self.settings.model_copy(update={"steps": 1})
        corner = Preference.of({plan.primary: 1.0})  # needs no margins, which may not be known yet

        def one_step(size: int) -> None:
            jobs = [Job(f"probe {i}", corner, job.primary, job.start, 1) for i in range(size)]
            workplace = Workplace(
                self.prepared.scorer, self.prepared.base.pad_id, self.run.objectives, data, self.run.config.seed
            )
            method.train(jobs, workplace, settings)

        return best_group_size(one_step, most, self.run.config.memory_gb)

    # Measuring

    def _measure(self, group: list[Plan]) -> None:
        evaluator = open_evaluator(self.prepared, self.reporter)
        self._measure_base(evaluator)
        left = [plan for plan in group if not self.run.has_point(plan.key)]
        if not left:
            return
        with AdapterBank(self.prepared.base.model, {plan.key: self.run.store.load(plan.key) for plan in left}) as bank:
            found = evaluator.measure(bank, {plan.key: bank.mixture({plan.key: 1.0}) for plan in left})
            for plan in left:
                self._write_accuracy(plan.key, bank)
        front = self.run.front()
        for plan in left:
            point = evaluator.point(
                plan.key, self.run.config.method, plan.preference, found[plan.key], self.settings.beta
            )
            self.run.write_samples(plan.key, evaluator.sample_rows(found[plan.key]))
            self.run.add_point(point)
            status = front.add(point)
            volume = front.hypervolume()
            self.run.log("point", **point.as_dict(), status=status.name, hypervolume=volume)
            self._say_truncated(found[plan.key])
            self.reporter.landed(point, status, volume, len(front), len(self.plans))

    def _say_truncated(self, found: Measurement) -> None:
        share = float(found.truncated.mean())
        if share > 0.2:
            self.reporter.notice(f"{share:.0%} of these responses did not end within max_new_tokens")

    def _measure_base(self, evaluator: Evaluator) -> None:
        """The base model's own point, and with it the reference point of every hypervolume of this run."""
        while self.run.base_point() is None:
            with claim(self.run.folder / "claims", BASE) as mine:
                if not mine:
                    time.sleep(_POLL_SECONDS)
                if not mine or self.run.base_point() is not None:
                    continue
                found = evaluator.measure(None, {BASE: torch.zeros(1)})[BASE]
                names = self.run.objectives
                even = Preference.of(dict.fromkeys(names, 1.0))
                base = evaluator.point(BASE, BASE, even, found, self.settings.beta)
                deviation = found.scores.std(0)
                # Two deviations below the base; one unit below where the base has only one score.
                lowest = found.scores.mean(0) - np.where(deviation > 0, 2 * deviation, 1.0)
                chosen = self.run.config.reference_point or dict(zip(names, lowest.tolist(), strict=True))
                self.run.write_samples(BASE, evaluator.sample_rows(found))
                self._write_accuracy(BASE, None)
                self.run.fix_reference(base, chosen)

    def _write_accuracy(self, key: str, bank: AdapterBank | None) -> None:
        """Share of held-out pairs that the policy ranks as their labels do, per objective.

        `likelihood` asks which response it finds likelier; `reward` which it has made likelier than the base did (DPO's
        implicit reward), and is one half for the base itself.
        """
        pad, found = self.prepared.base.pad_id, {}
        for name, pairs in self.prepared.heldout.items():
            if not len(pairs):
                continue
            rows = bank.one_hot([key] * len(pairs)) if bank is not None else None
            both = list(zip(pairs.chosen, pairs.rejected, strict=True))
            own = np.asarray(self.prepared.scorer.batched(pairs.prompt, both, pad, bank=bank, rows=rows)).reshape(-1, 2)
            reference = self.prepared.reference([*pairs.prompt, *pairs.prompt], [*pairs.chosen, *pairs.rejected])
            ratio = own - reference.reshape(2, -1).T if bank is not None else np.zeros_like(own)
            found[name] = {"likelihood": ranking_accuracy(*own.T), "reward": ranking_accuracy(*ratio.T)}
        write_json(self.run.folder / "accuracy" / f"{key}.json", found)


def _name(group: Sequence[Plan]) -> str:
    """A group's name on disk: its one key, or a digest of all."""
    return group[0].key if len(group) == 1 else f"group-{digest(*(plan.key for plan in group))[:12]}"
