"""Is the front of one run better than that of another, or is it the draw of the prompts?"""

from typing import Any

from moalign.errors import RunError
from moalign.frontiers import compare_draws, hypervolume
from moalign.gains import redrawn
from moalign.runs import Run


def compare_runs(first: Run, second: Run) -> dict[str, Any]:
    """The difference of two runs' hypervolumes, first less second, with its interval over prompts.

    {objectives, reference_point, hypervolume: [first, second], difference, interval, p, significant}. Both fronts count
    against the reference point of the first run; prompts are drawn again, the same for both, as
    `moalign.frontiers.compare_draws` says; what varies is the prompts and not the training. Raises RunError if the runs
    have other objectives, or were not measured on the same prompts.
    """
    if first.objectives != second.objectives:
        raise RunError(
            f"{first.folder} has objectives {', '.join(first.objectives)} and {second.folder} has "
            f"{', '.join(second.objectives)}; expected the same, in the same order"
        )
    fronts = [first.front(), second.front()]
    points = [(run, point) for run, front in zip((first, second), fronts, strict=True) for point in front]
    drawn = redrawn([(run, point.adapter) for run, point in points], first.objectives, first.config.seed)
    if not len(drawn):
        raise RunError(
            f"{first.folder} and {second.folder} were not measured on the same prompts, so that nothing says what is "
            "noise; give both runs the same data.prompts and evaluation"
        )
    reference, count = fronts[0].reference_point, len(fronts[0])
    found = compare_draws(drawn[:, :count], drawn[:, count:], reference)
    return {
        "objectives": list(first.objectives),
        "reference_point": reference.tolist(),
        "hypervolume": [hypervolume(front.values, reference) for front in fronts],
        "difference": found.difference,
        "interval": [found.low, found.high],
        "p": found.p,
        "significant": bool(found.significant),
    }
