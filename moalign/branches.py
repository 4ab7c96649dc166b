"""Branches: adapters that set out from one of the front and climb one objective while the others hold.

C-MORL's second stage (Liu et al., arXiv 2410.02236): from a selected adapter, for each objective l, maximise J_l
subject to J_i >= tau_i for the others. All branches of a round train side by side, by the run's own losses with weights
that follow the constraints' slack (`moalign.weighting.Constrained`). Every few steps each is measured, and offered to
the set.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.data import tokenize_prompts
from moalign.errors import ConfigError
from moalign.evaluation import Evaluator, Measurement
from moalign.files import digest, read_json, write_json
from moalign.frontiers import AddStatus, ParetoPoint, clustered_mean
from moalign.methods import METHODS, Job
from moalign.methods.inner import InnerSettings
from moalign.preference import Preference
from moalign.prepared import Prepared
from moalign.progress import Reporter
from moalign.rollouts import Environment, roll_out
from moalign.weighting import Averaged, Constrained, thresholds_from
from moalign.workplace import Workplace

FILLED = "fill"  # the method that points of branches carry


@dataclass(frozen=True)
class Branch:
    """One branch: the point that it sets out from, the objective that it climbs, and what the others must keep.

    `least` are thresholds on the evaluation prompts, None where nothing is asked for; `drop` is by how much each
    objective may fall below what the parent attains, on whichever prompts. All are in the objectives' own units.
    """

    parent: str
    objective: str
    least: dict[str, float | None]
    drop: dict[str, float]

    @property
    def key(self) -> str:
        """Its name on disk."""
        return f"{self.parent[:60]}-{self.objective}-{digest(str(asdict(self)))[:8]}"


def branch_of(
    point: ParetoPoint,
    objective: str,
    lowest: Float[np.ndarray, " m"],
    highest: Float[np.ndarray, " m"],
    retain: float,
    into: ParetoPoint | None = None,
) -> Branch:
    """The branch from a point: tau_i = J_i - (1 - retain) |J_i| on values normalised by the given range.

    With `into`, the other end of a gap, an objective in which that end has less may fall as far as halfway to it, so
    that the branch ends in the middle of the gap: C-MORL's threshold with a beta for each objective. A flat objective,
    which has no range, is not constrained.
    """
    names = list(point.values)
    attained, spans = np.array([point.values[name] for name in names]), highest - lowest
    moving = spans > 0
    least = np.full(len(names), -np.inf)
    least[moving] = thresholds_from(attained[moving], lowest[moving], highest[moving], retain)
    if into is not None:
        other = np.array([into.values[name] for name in names])
        least = np.where(moving & (other < attained), (attained + other) / 2, least)
    drop = np.where(moving, attained - least, 0.0)
    asked = {
        name: float(value) if moves and name != objective else None
        for name, value, moves in zip(names, least, moving, strict=True)
    }
    return Branch(point.adapter, objective, asked, dict(zip(names, drop.tolist(), strict=True)))


class Branching:
    """Trains the branches of one round, and offers what they attain on the way to the run's set."""

    def __init__(self, prepared: Prepared, evaluator: Evaluator, reporter: Reporter, folder: Path, checkpoint: Path):
        self.prepared, self.run, self.evaluator, self.reporter = prepared, prepared.run, evaluator, reporter
        self.settings, self.folder = self.run.config.fill, folder
        settings = self.settings
        self.method, self.method_settings = self.run.config.method, self.run.config.method_settings
        if isinstance(self.method_settings, InnerSettings):  # a branch is trained alone, whatever its parent was
            self.method, self.method_settings = self.method_settings.by, self.method_settings.inner
        self.workplace = self._workplace(checkpoint)
        self.steps, self.every = settings.steps, settings.every
        _, self._places = self._environment.parted(settings.prompts, self.run.config.seed)

    @property
    def _environment(self) -> Environment:
        assert self.workplace.environment is not None
        return self.workplace.environment

    def _workplace(self, checkpoint: Path) -> Workplace:
        config, prepared, settings = self.run.config, self.prepared, self.method_settings

        def on_step(step: int, steps: int, numbers: dict[str, float]) -> None:
            self.reporter.bar("training branches", step, steps)

        pairs = settings.learns_from == "pairs"
        if pairs:
            _take_prompts(prepared)
        return Workplace(
            scorer=prepared.scorer,
            pad_id=prepared.base.pad_id,
            objectives=self.run.objectives,
            data={name: prepared.pair_data(name) for name in self.run.objectives} if pairs else {},
            seed=config.seed,
            environment=prepared.environment(
                getattr(settings, "max_new_tokens", None) or config.evaluation.max_new_tokens
            ),
            folder=config.own_folder,
            checkpoint=checkpoint,
            checkpoint_seconds=config.checkpoint_seconds,
            on_step=on_step,
            on_record=lambda kind, values: self.run.log(kind, **values),
            notice=self.reporter.notice,
            scratch=checkpoint.with_suffix(""),
        )

    def train(self, branches: Sequence[Branch]) -> None:
        """Train all of them, to the end of their steps."""
        starts = {branch.key: self.run.store.load(branch.parent) for branch in branches}
        jobs = [
            Job(
                branch.key,
                Preference.of({branch.objective: 1.0}),
                branch.objective,
                starts[branch.key],
                self.steps,
                weighter=weighter,
            )
            for branch, weighter in zip(branches, self._weighters(branches, starts), strict=True)
        ]
        workplace = replace(
            self.workplace,
            validate=self._validate,
            on_bank=lambda step, bank: self._offer_all(step, bank, branches, jobs),
        )
        METHODS[self.method].train(jobs, workplace, self._settings())

    def _settings(self) -> Any:
        known = {
            "validation_prompts": self.settings.prompts,
            "validation_completions": self.settings.completions,
            "learning_rate": self.settings.pace * self.method_settings.learning_rate,
        }
        fields = type(self.method_settings).model_fields
        return self.method_settings.model_copy(update={k: v for k, v in known.items() if k in fields})

    def _weighters(self, branches: Sequence[Branch], starts: dict[str, Adapter]) -> list[Averaged]:
        """Thresholds on the validation prompts: what the parents attain there, measured once, less the drop."""
        path, names = self.folder / "validated.json", self.run.objectives
        if not path.is_file():
            with AdapterBank(self.prepared.base.model, starts) as bank:
                attained = self._validate(bank, list(starts))
            write_json(path, dict(zip(starts, attained.tolist(), strict=True)))
        attained = read_json(path)
        return [
            Averaged(
                Constrained(
                    np.full(len(names), 1 / len(names)),
                    objective=names.index(branch.objective),
                    thresholds=[
                        None if branch.least[name] is None else attained[branch.key][place] - branch.drop[name]
                        for place, name in enumerate(names)
                    ],
                    ranges=self._ranges,
                    kind=self.settings.constraint,
                    sharpness=self.settings.sharpness,
                    every=self.settings.validate_every,
                    units=self._units,
                )
            )
            for branch in branches
        ]

    @property
    def _ranges(self) -> list[float]:
        """What counts as 1 of each objective: its range when the fill began; 1 where it is flat."""
        ranges = read_json(self.folder.parent / "ranges.json")
        spans = np.array(ranges["highest"]) - np.array(ranges["lowest"])
        return np.where(spans > 0, spans, 1.0).tolist()

    @property
    def _units(self) -> Any:
        """Whether what is trained on weighs objectives over their own deviations, or in their own units."""
        settings = self.method_settings
        normalised = getattr(settings, "aggregation", "") == "normalize_then_sum"
        return "deviations" if normalised or getattr(settings, "standardise_margins", False) else "own"

    def _validate(self, bank: AdapterBank, keys: Sequence[str]) -> Float[np.ndarray, "k m"]:
        """Mean objectives on the validation prompts, always on the same random numbers."""
        stream = f"validation/{self.run.config.seed}"
        found = roll_out(self._environment, bank, keys, self._places, self.settings.completions, stream)
        return found.rewards.mean((1, 2))

    # Offers

    def _offer_all(self, step: int, bank: AdapterBank, branches: Sequence[Branch], jobs: Sequence[Job]) -> None:
        """Measure the branches that still hold their constraints, and take those in that widen the front."""
        if step % self.every and step != self.steps:
            return
        due = [(branch, job) for branch, job in zip(branches, jobs, strict=True) if self._due(step, branch, job)]
        found = self.evaluator.measure(bank, {job.key: bank.one_hot([job.key])[0] for _, job in due}) if due else {}
        for branch, job in due:
            self._offer(step, branch, job, found[job.key], bank)
        for job in jobs:  # those too that were offered before a kill: their next mean begins here as it did then
            _averaged(job).restart()

    def _due(self, step: int, branch: Branch, job: Job) -> bool:
        """Whether a branch has trained since its last offer, and is to be measured now."""
        offered = self._offer_path(branch, step).is_file()
        return not offered and _averaged(job).answered and not self._failing(branch, step)

    def _offer(self, step: int, branch: Branch, job: Job, found: Measurement, bank: AdapterBank) -> None:
        run, key = self.run, f"{branch.key}-{step}"
        if not np.isfinite(found.scores).all():  # it cannot be placed; the other branches go on
            self.reporter.notice(f"{key}: an objective gave no finite score to one of its responses; it is refused")
            write_json(self._offer_path(branch, step), {"held": False, "taken": False})
            return
        # At a constrained optimum the multipliers are the weights that it is the best for (Karush, Kuhn and Tucker).
        preference = Preference.of(dict(zip(run.objectives, _averaged(job).mean.tolist(), strict=True)))
        point = self.evaluator.point(key, FILLED, preference, found, self.method_settings.oracle_beta)
        held = self._holds(branch, found)
        status = run.front().add(point)
        taken = held and status is not AddStatus.DOMINATED
        if taken:
            record = self._record(branch, step, preference)
            run.store.save(key, bank.adapter(job.key), record, self.prepared.base.name)
            run.write_samples(key, self.evaluator.sample_rows(found))
            run.add_point(point)
            run.log("point", **point.as_dict(), status=status.name, hypervolume=run.front().hypervolume())
        write_json(self._offer_path(branch, step), {**point.as_dict(), "held": held, "taken": taken})

    def _holds(self, branch: Branch, found: Measurement) -> bool:
        """Whether every objective meets its threshold, within what its interval (95 %) leaves open."""
        mean, error = clustered_mean(found.scores, found.prompt)
        return all(
            least is None or value + 1.96 * wide >= least
            for name, value, wide in zip(self.run.objectives, mean, np.nan_to_num(error), strict=True)
            for least in [branch.least[name]]
        )

    def _failing(self, branch: Branch, step: int) -> bool:
        """Whether its last two offers broke a constraint: such a branch is not measured again."""
        paths = (self._offer_path(branch, earlier) for earlier in range(self.every, step, self.every))
        last = [path for path in paths if path.is_file()][-2:]
        return len(last) == 2 and not any(read_json(path)["held"] for path in last)

    def _offer_path(self, branch: Branch, step: int) -> Path:
        return self.folder / "offers" / f"{branch.key}-{step}.json"

    def _record(self, branch: Branch, step: int, preference: Preference) -> dict[str, object]:
        parent = self.run.store.record(branch.parent)
        return {
            **{name: parent[name] for name in ("base", "method", "settings", "data", "seed", "versions")},
            "filled": {"objective": branch.objective, "least": branch.least, **self.settings.model_dump(mode="json")},
            "preference": preference.weights,
            "primary": branch.objective,
            "steps": step,
            "start": None,
            "parents": [branch.parent],
        }


def _averaged(job: Job) -> Averaged:
    assert isinstance(job.weighter, Averaged)
    return job.weighter


def _take_prompts(prepared: Prepared) -> None:
    """The prompts of the training pairs, for looks at the constraints."""
    room = prepared.base.context - prepared.run.config.evaluation.max_new_tokens
    found = {str(prompt): prompt for pairs in prepared.pairs.values() for prompt in pairs.prompts}
    prompts = list(found.values())
    ids = tokenize_prompts(prompts, prepared.base.tokenizer)
    fitting = [i for i, prompt in enumerate(ids) if len(prompt) <= room]
    if not fitting:
        raise ConfigError(f"no training prompt is shorter than {room} tokens; lower evaluation.max_new_tokens")
    prepared.train_prompts, prepared.train_prompt_ids = [prompts[i] for i in fitting], [ids[i] for i in fitting]
