"""The sweep: from a config to a run folder with a front of measured adapters.

It may be killed at any instant and given again: what is finished is neither trained nor scored twice, and what was in
training goes on from its last checkpoint. Any number of workers may share the folder.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from moalign import __version__
from moalign.adapters import Adapter
from moalign.claims import claim
from moalign.config import SweepConfig
from moalign.enumeration import known_world
from moalign.exploration import Exploration
from moalign.files import create_once, digest, read_json
from moalign.grouping import best_group_size, groups_of
from moalign.measuring import POLL_SECONDS, Measurer, learn_implicit, planner_of
from moalign.merging import factor_average, soup
from moalign.methods import METHODS, Job, PairData, Workplace
from moalign.models import adapter_factory, describe
from moalign.planning import Plan, Policy, preferences_of
from moalign.preference import Preference
from moalign.preparation import prepare
from moalign.progress import Reporter
from moalign.rollouts import Environment
from moalign.runs import Run
from moalign.trackers import open_trackers

Stopping = Callable[[str, dict[str, Any]], None]
Item = TypeVar("Item", Plan, Policy)

_LOG_STEPS = 10
_TOGETHER = 16  # policies that are measured in the same batches


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


class _Sweep:
    """One worker's view of a run."""

    def __init__(self, run: Run, reporter: Reporter):
        self.run, self.reporter = run, reporter
        self.prepared = prepare(run, reporter.notice)
        self.method, self.settings = METHODS[run.config.method], run.config.method_settings
        self.planner = planner_of(self.prepared)
        self.exploration = Exploration(run, self.planner)
        known_world(self.prepared)
        self.measurer = Measurer(self.prepared, reporter, self.exploration.total)
        self.trackers = open_trackers(run.config.trackers, run.folder)
        settings = run.config.adapter
        self._fresh = adapter_factory(
            self.prepared.base, rank=settings.rank, alpha=settings.alpha, target_modules=settings.target_modules
        )

    def finish(self) -> None:
        """Work until every plan has its adapter and its point."""
        try:
            for wave in self.exploration.waves():
                groups = groups_of(wave, self._group_size(wave))
                self._each(groups, self._trained, self._train)
                if self.planner.one_by_one:
                    learn_implicit(self.prepared)
                    self._measure([self.planner.policies(group) for group in groups])
            if not self.planner.one_by_one:
                policies = self.planner.policies([])
                self._measure([policies[i : i + _TOGETHER] for i in range(0, len(policies), _TOGETHER)])
        finally:
            for tracker in self.trackers:
                tracker.finish()
        shutil.rmtree(self.run.folder / "checkpoints", ignore_errors=True)  # what kills have left of finished groups

    def _measure(self, groups: Sequence[list[Policy]]) -> None:
        self._each(groups, self._measured, self.measurer.measure)

    def _each(
        self, groups: Sequence[list[Item]], done: Callable[[Sequence[Item]], bool], work: Callable[[list[Item]], None]
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
                time.sleep(POLL_SECONDS)

    def _trained(self, group: Sequence[Plan]) -> bool:
        return all(plan.key in self.run.store for plan in group)

    def _measured(self, group: Sequence[Policy]) -> bool:
        return all(self.run.has_point(policy.key) for policy in group)

    # Training

    def _train(self, group: list[Plan]) -> None:
        checkpoint, left = self._checkpoint(group), group
        if not checkpoint.is_file():  # else it holds the whole group
            left = [plan for plan in group if plan.key not in self.run.store]
            checkpoint = self._checkpoint(left)
        jobs, stopped = [self._job(plan) for plan in left], {}
        workplace = self._workplace(left, checkpoint, stopped.__setitem__)
        adapters = {job.key: job.start for job in jobs}  # of a mere merge
        keys = [plan.key for plan in left]
        self.run.log("training", group=_name(left), adapters=keys, steps=left[0].steps)
        if left[0].steps:
            adapters = self.method.train(jobs, workplace, self.settings)
        for plan in left:
            record = self._record(plan) | ({"stopped": stopped[plan.key]} if plan.key in stopped else {})
            self.run.store.save(plan.key, adapters[plan.key], record, self.prepared.base.name)
        checkpoint.unlink(missing_ok=True)
        shutil.rmtree(_scratch(checkpoint), ignore_errors=True)
        if not self.planner.one_by_one:
            return
        if set(self.run.objectives) <= set(self.prepared.scorers):  # else once the whole wave is trained
            self.measurer.measure(self.planner.policies(group))

    def _checkpoint(self, group: Sequence[Plan]) -> Path:
        return self.run.folder / "checkpoints" / f"{_name(group)}.safetensors"

    def _job(self, plan: Plan) -> Job:
        # One seed for all: adapters that begin alike can be blended (rewarded soups, section 2).
        start = self.prepared.start[0] if self.prepared.start else self._fresh(self.run.config.seed)
        if plan.parents:
            start = self._from(plan, [self.run.store.load(key) for key in plan.parents])
        return Job(plan.key, plan.preference, plan.primary, start, plan.steps, plan.stage)

    def _from(self, plan: Plan, parents: list[Adapter]) -> Adapter:
        if plan.stage:
            return parents[0]
        wanted, adapter = plan.preference.vector(self.run.objectives).tolist(), self.run.config.adapter
        if not plan.steps:
            return factor_average(parents, wanted)
        return soup(parents, wanted, adapter.rank, adapter.alpha / adapter.rank)

    def _workplace(self, group: list[Plan], checkpoint: Path, on_stop: Stopping) -> Workplace:
        def on_step(step: int, steps: int, numbers: dict[str, float]) -> None:
            label = str(group[0].preference) if len(group) == 1 else f"{len(group)} preferences"
            self.reporter.bar(f"training {label}", step, steps, _first(numbers))
            if step % _LOG_STEPS == 0 or step == steps:
                self.run.log("step", group=_name(group), step=step, **numbers)
                for tracker in self.trackers:
                    tracker.log(step, {f"{_name(group)}/{name}": value for name, value in numbers.items()})

        return Workplace(
            scorer=self.prepared.scorer,
            pad_id=self.prepared.base.pad_id,
            objectives=self.run.objectives,
            data=self._data(plan.primary for plan in group),
            environment=self._environment(),
            folder=self.run.config.own_folder,
            seed=self.run.config.seed,
            checkpoint=checkpoint,
            checkpoint_seconds=self.run.config.checkpoint_seconds,
            on_step=on_step,
            on_record=self._log_record,
            on_stop=on_stop,
            scratch=_scratch(checkpoint),
            notice=self.reporter.notice,
        )

    def _log_record(self, kind: str, values: dict[str, Any]) -> None:
        self.run.log(kind, **values)
        numbers = {f"{values['adapter']}/{name}": value for name, value in _numbers(values)}
        for tracker in self.trackers:
            tracker.log(values["step"], numbers)

    def _data(self, primaries: Iterable[str]) -> dict[str, PairData]:
        if self.settings.learns_from == "prompts":
            return {}
        wanted = self.run.objectives if self.method.together else sorted(set(primaries))
        return {name: self.prepared.pair_data(name) for name in wanted}

    def _environment(self) -> Environment | None:
        if self.settings.learns_from == "pairs":
            return None
        return self.prepared.environment(self.settings.max_new_tokens or self.run.config.evaluation.max_new_tokens)

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
            "start": self.prepared.start[1] if self.prepared.start else None,
            "parents": list(plan.parents),
            "versions": {"moalign": __version__, **{name: version(name) for name in packages}},
        }

    def _group_size(self, wave: Sequence[Plan]) -> int:
        """Fixed once for a run, so that a continued one has the same groups and so the same arithmetic."""
        asked, path = self.run.config.group_size, self.run.folder / "plan.json"
        if self.method.together:
            return len(wave)
        if asked != "auto":
            return asked
        if self.settings.learns_from == "prompts":  # rollouts of all preferences are one batch
            return self.exploration.widest
        if not path.is_file():
            create_once(path, {"group_size": self._time_groups(wave[0], self.exploration.widest)})
        return read_json(path)["group_size"]

    def _time_groups(self, plan: Plan, most: int) -> int:
        if most == 1:
            return 1
        data = self._data([plan.primary])
        job = Job("probe", plan.preference, plan.primary, self._fresh(0), 1)
        settings = self.settings.model_copy(update={"steps": 1})
        corner = Preference.of({plan.primary: 1.0})  # needs no margins, which may not be known yet

        def one_step(size: int) -> None:
            jobs = [Job(f"probe {i}", corner, job.primary, job.start, 1) for i in range(size)]
            workplace = Workplace(
                self.prepared.scorer, self.prepared.base.pad_id, self.run.objectives, data, self.run.config.seed
            )
            self.method.train(jobs, workplace, settings)

        return best_group_size(one_step, most, self.run.config.memory_gb)


def _scratch(checkpoint: Path) -> Path:
    """Where a method leaves what it wants back, beside its checkpoint."""
    return checkpoint.with_suffix("")


def _name(group: Sequence[Plan | Policy]) -> str:
    """A group's name on disk: its one key, or a digest of all."""
    return group[0].key if len(group) == 1 else f"group-{digest(*(plan.key for plan in group))[:12]}"


def _first(numbers: Mapping[str, float]) -> str:
    """What a bar has room for: the number that the method names first."""
    return next(f"{name} {value:.3f}" for name, value in numbers.items())


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """What of a record can be drawn: its numbers, those of mappings by their path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield f"{prefix}{name}", float(value)
