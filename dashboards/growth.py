"""How the front grew: hypervolume over the steps of training, and over the adapters that landed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from moalign.dashboards.charts import Chart, Line
from moalign.dashboards.wording import number
from moalign.frontiers.hypervolume import hypervolume
from moalign.history import Course, History, Landing

_VOLUMES = 40  # along the steps of training, each of which has to be computed
_WINDOW = 10  # steps over which noisy rewards are averaged
_EXACT = 4  # objectives up to which a volume is quick to compute


def volume_over_adapters(history: History, asked: Sequence[str], current: str = "") -> Chart:
    """The hypervolume of all points so far, as they landed; that of adapter `current` is marked.

    `asked` says what each of the history's points was asked for. The axis counts adapters where every point is one, and
    else points: mixtures of few adapters may be many.
    """
    landings = list(enumerate(history.landings, 1))
    known = [(float(i), landing, text) for (i, landing), text in zip(landings, asked, strict=True) if _known(landing)]
    title = "Hypervolume over adapters"
    if not known:
        return Chart(title, "adapters", "hypervolume", note="No adapter has been measured yet.")
    apart = all(landing.trained == i for i, landing in landings)
    across = "adapters trained" if apart else "points measured"
    return Chart(title, across, "hypervolume", (_line(known),), current=current)


def volume_over_steps(history: History, asked: Sequence[str], current: str = "") -> Chart:
    """The hypervolume of what all adapters were rewarded with until each step, where rewards were logged.

    Else that of the points, over the steps that were taken until each of them landed.
    """
    title, steps, volumes = "Hypervolume over steps", *_training_volumes(history)
    if steps:
        remark = f"Of mean rewards on training prompts, each over {_WINDOW} steps: some of it is chance."
        line = Line("hypervolume", steps, volumes)
        return Chart(title, "step of each adapter", "hypervolume", (line,), remark=remark)
    known = [
        (float(landing.steps), landing, text)
        for landing, text in zip(history.landings, asked, strict=True)
        if _known(landing) and landing.steps
    ]
    if len({steps for steps, _, _ in known}) < 2:
        why = "All points landed after the same step" if known else "No point has landed after a step that was logged"
        return Chart(title, "steps", "hypervolume", note=f"{why}: there is no course over steps to show.")
    return Chart(title, "training steps of all groups", "hypervolume", (_line(known),), current=current)


def _known(landing: Landing) -> bool:
    return landing.volume is not None


def _line(known: list[tuple[float, Landing, str]]) -> Line:
    return Line(
        "hypervolume",
        tuple(place for place, _, _ in known),
        tuple(float(landing.volume or 0.0) for _, landing, _ in known),
        hover=tuple(f"{text}: hypervolume {number(landing.volume)}" for _, landing, text in known),
        keys=tuple(landing.adapter for _, landing, _ in known),
    )


def _training_volumes(history: History) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Steps, and the volume of what all adapters' batches were rewarded with by then."""
    # A round of DPA asks for all directions at once: the mean of its rewards is no point of the front.
    courses = [trace.course for trace in history.traces if trace.unit == "step" and "rewards" in trace.course.numbers]
    reference = np.array(history.reference_point, dtype=float)
    if not courses or len(history.objectives) > _EXACT or not len(reference):
        return (), ()
    last = max(int(course.step[-1]) for course in courses)
    steps = np.unique(np.linspace(1, last, min(last, _VOLUMES)).round())
    means = np.stack([_running_means(course, steps) for course in courses])
    volumes = [hypervolume(values, reference) for values in means.transpose(1, 0, 2)]
    return tuple(steps.tolist()), tuple(volumes)


def _running_means(course: Course, at: Float[np.ndarray, " s"]) -> Float[np.ndarray, "s m"]:
    """The mean of the last rewards at each of these steps; NaN before the first."""
    rewards = course.numbers["rewards"]
    known = ~np.isnan(rewards).any(axis=1)
    values = rewards[known]
    sums = np.vstack([np.zeros((1, rewards.shape[1])), values.cumsum(axis=0)])
    ends = np.searchsorted(course.step[known], at, side="right")
    starts = np.maximum(ends - _WINDOW, 0)
    counts = np.where(ends > starts, ends - starts, 1)[:, None]
    return np.where((ends > starts)[:, None], (sums[ends] - sums[starts]) / counts, np.nan)
