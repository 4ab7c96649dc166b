"""Is the front of one run better than that of another, or is it the draw of the prompts?"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.errors import DataError, RunError
from moalign.frontiers import Comparison, ParetoSet, compare_draws, hypervolume
from moalign.gains import redrawn
from moalign.runs import Run

# Points of a front up to which 400 hypervolumes take a few seconds, by the number of objectives; beyond, minutes.
_QUICK = {2: 5000, 3: 5000, 4: 1500, 5: 400, 6: 80}


@dataclass(frozen=True, eq=False)
class Together:
    """Two fronts over the same objectives, and how both vary over prompts that are drawn again, the same for both.

    `drawn` has the values of all points, those of the first front before those of the second. Volumes count against the
    reference point of the first; what varies is the prompts and not the training.
    """

    fronts: tuple[ParetoSet, ParetoSet]
    drawn: Float[np.ndarray, "b n m"]

    @property
    def first(self) -> Float[np.ndarray, "b p m"]:
        """The draws of the first front."""
        return self.drawn[:, : len(self.fronts[0])]

    @property
    def second(self) -> Float[np.ndarray, "b q m"]:
        """The draws of the second front."""
        return self.drawn[:, len(self.fronts[0]) :]

    @property
    def quick(self) -> bool:
        """Whether the volumes are had in seconds."""
        points = max(map(len, self.fronts))
        return points <= _QUICK.get(len(self.fronts[0].objectives), 0)

    @cached_property
    def volumes(self) -> Comparison:
        """The difference of the hypervolumes, as `moalign.frontiers.compare_draws` says."""
        return compare_draws(self.first, self.second, self.fronts[0].reference_point)

    @cached_property
    def most(self) -> tuple[Comparison, ...]:
        """Of each objective, how much more of it the first front has at its best point than the second at its own.

        The difference is that of the measured values, low and high are the 2.5 % and 97.5 % quantiles of the draws, and
        p as in `compare_draws`. It takes no time whatever the number of objectives.
        """
        measured = self.fronts[0].values.max(axis=0) - self.fronts[1].values.max(axis=0)
        differences = self.first.max(axis=1) - self.second.max(axis=1)
        low, high = np.quantile(differences, [0.025, 0.975], axis=0)
        tails = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0)) + 1
        p = np.minimum(1.0, 2 * tails / (len(differences) + 1))
        return tuple(Comparison(*map(float, row)) for row in zip(measured, low, high, p, strict=True))


def together(first: Run, second: Run, fronts: tuple[ParetoSet, ParetoSet]) -> Together:
    """Two runs as these fronts of theirs show them.

    Raises RunError if the runs have other objectives, if a front is empty, or if they were not measured on the same
    prompts, and DataError if a text has no score.
    """
    names = [run.folder.resolve().name for run in (first, second)]
    if first.objectives != second.objectives:
        raise RunError(
            f"{names[0]} has objectives {', '.join(first.objectives)} and {names[1]} has "
            f"{', '.join(second.objectives)}; expected the same, in the same order"
        )
    for name, front in zip(names, fronts, strict=True):
        if not len(front):
            raise RunError(f"no adapter of {name} has been measured yet; let its sweep measure one")
    points = [(run, point) for run, front in zip((first, second), fronts, strict=True) for point in front]
    drawn = redrawn([(run, point.adapter) for run, point in points], first.objectives, first.config.seed)
    if not len(drawn):
        raise RunError(
            f"{names[0]} and {names[1]} were not measured on the same prompts, so that nothing says what is noise; "
            "give both runs the same data.prompts and evaluation"
        )
    if not np.isfinite(drawn).all():
        raise DataError(f"a text of {names[0]} or {names[1]} has a score that is no number; measure its point again")
    return Together(fronts, drawn)


def compare_runs(first: Run, second: Run) -> dict[str, Any]:
    """The difference of two runs' hypervolumes, first less second, with its interval over prompts.

    {objectives, reference_point, hypervolume: [first, second], difference, interval, p, significant}. Both fronts count
    against the reference point of the first run; prompts are drawn again, the same for both, as
    `moalign.frontiers.compare_draws` says; what varies is the prompts and not the training. With more than six
    objectives it takes minutes. Raises what `together` raises.
    """
    found = together(first, second, (first.front(), second.front()))
    reference, volumes = found.fronts[0].reference_point, found.volumes
    return {
        "objectives": list(first.objectives),
        "reference_point": reference.tolist(),
        "hypervolume": [hypervolume(front.values, reference) for front in found.fronts],
        "difference": volumes.difference,
        "interval": [volumes.low, volumes.high],
        "p": volumes.p,
        "significant": bool(volumes.significant),
    }
