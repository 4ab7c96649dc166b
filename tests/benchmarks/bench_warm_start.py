"""What reaching the same hypervolume costs: warm starts along the simplex, against the MODPO authors' schedule.

    python tests/benchmarks/bench_warm_start.py [--quick] [--threads 2]

The demo's 11 preferences are swept several times: from scratch with all, a half and a quarter of the demo's steps, and
with warm starts (the corners in full, every other preference from the corners' soup with a share of the steps). Each
run's hypervolume is measured against the same reference point, on the same prompts and random numbers, and its training
steps are timed. The authors train from scratch, one adapter at a time: they are charged the time of our run from
scratch times what one of their steps costs in ours, measured here on the demo's base as bench_sweep.py does
(4 forward passes and 1 backward pass; the demo's objectives are rules, for which their code would run only 2 forward
passes, so that ratio is stated too). We are charged for the constants of the data and for choosing the group size.

For each share of the hypervolume that the longest run from scratch reaches, the cheapest way to it is compared: theirs
among the runs from scratch, ours among all, in straight lines between the runs. So theirs may stop early as well.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench_sweep import authors_step, our_step
from common import Step, arguments, begin, print_json, print_table
from workloads import Workload, prepare_workload

from moalign.demo.show import BASE_FOLDER, OBJECTIVES, demo_config
from moalign.sweep import run_sweep


def main() -> None:
    """Print every run and the ratios."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--timed", type=int, help="steps timed in each round for the cost of a step (default 8)")
    parser.add_argument("--rounds", type=int, help="turns of both sides for the cost of a step (default 5)")
    options = parser.parse_args()
    options.timed = options.timed or (2 if options.quick else 8)
    options.rounds = options.rounds or (1 if options.quick else 5)
    begin(options)
    if not (BASE_FOLDER / "config.json").is_file():
        print(f"no demo base in {BASE_FOLDER}: make it with python -m moalign.demo.build")
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options)


@dataclass(frozen=True)
class Swept:
    """One sweep: how it was trained, what it took, what it reached."""

    name: str
    warm: bool
    preference_steps: int
    seconds: float
    hypervolume: float


class TrainingClock:
    """Stands where the sweep's reporter does, and adds up the time between the steps of training."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = self._last = 0.0

    @contextmanager
    def running(self) -> Iterator["TrainingClock"]:
        yield self

    def bar(self, name: str, done: int, total: int, _detail: str = "") -> None:
        if not name.startswith("training"):
            return
        now = time.perf_counter()
        if done == 1:
            self._start = now
        elif done == total:  # the first step has no beginning: it counts as the mean of the others
            self.seconds += (now - self._start) * total / (total - 1)

    def say(self, *_: object) -> None:
        """Not of interest here, as is all that follows."""

    notice = landed = say


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Sweep in all ways, and print what each share of the hypervolume costs."""
    workload = prepare_workload("demo", _config(folder / "cost", options), folder / "cost", None)
    ratios = _cost_ratios(workload, folder, options)
    fixed = workload.precompute.seconds + workload.planning.seconds
    runs = [_sweep(folder / str(number), workload, options, **way) for number, way in enumerate(_ways(options.quick))]
    print_table(
        f"demo, 11 preferences, groups of {workload.group_size}",
        ["", "steps of all", "s to train", "s as the authors", "hypervolume"],
        [
            [
                run.name,
                run.preference_steps,
                run.seconds,
                "" if run.warm else f"{run.seconds * ratios[4]:.0f}",
                f"{run.hypervolume:.4f}",
            ]
            for run in runs
        ],
    )
    best = max((run for run in runs if not run.warm), key=lambda run: run.preference_steps).hypervolume
    rows, found = [], {}
    for share in (0.95, 0.98, 1.0):
        theirs = cheapest(share * best, [(run.seconds, run.hypervolume) for run in runs if not run.warm])
        ours = cheapest(share * best, [(run.seconds, run.hypervolume) for run in runs])
        warm = cheapest(share * best, [(run.seconds, run.hypervolume) for run in runs if run.warm])
        times = {passes: _over(theirs, ratios[passes], ours, fixed) for passes in ratios}
        rows.append([f"{share:.0%}", theirs * ratios[4], ours + fixed, warm + fixed, times[4], times[2]])
        found[f"{share:g}"] = {"ratio": times[4], "ratio_2_forwards": times[2]}
    print_table(
        "to a share of the hypervolume of the longest run from scratch",
        ["", "authors s", "ours s", "ours s, warm", "times", "times, 2 forwards"],
        rows,
    )
    print(
        f"  ours includes {workload.precompute.seconds:.1f} s for the constants of the data and "
        f"{workload.planning.seconds:.1f} s to choose the group size"
    )
    print_json(
        {
            "benchmark": "warm_start",
            "threads": options.threads,
            "step_ratio": ratios[4],
            "step_ratio_2_forwards": ratios[2],
            "fixed_seconds": fixed,
            "runs": [vars(run) for run in runs],
            "to_share_of_hypervolume": found,
        }
    )


def _over(theirs: float, ratio: float, ours: float, fixed: float) -> float:
    return theirs * ratio / (ours + fixed)


def _ways(quick: bool) -> list[dict[str, float]]:
    """Shares of the demo's steps for runs from scratch and for corners, and of these for warm starts."""
    if quick:
        return [{"share": 1.0}, {"share": 1.0, "warm_share": 0.2}]
    cold = [{"share": share} for share in (0.25, 0.5, 1.0)]
    warm = [(1.0, 0.4), (1.0, 0.2), (1.0, 0.1), (0.5, 0.2), (0.5, 0.1)]
    return cold + [{"share": share, "warm_share": warm_share} for share, warm_share in warm]


def _config(folder: Path, options: argparse.Namespace, share: float = 1.0, warm_share: float | None = None, **more):
    """The demo's config with another number of steps and another kind of start."""
    names = OBJECTIVES[:2]
    demo = demo_config(folder, names)
    steps = demo.method_settings.steps
    start = {"warm_start": False} if warm_share is None else {"warm_start": True, "warm_share": warm_share}
    settings = {**demo.settings, "steps": max(3, round(share * steps) // (20 if options.quick else 1)), **start}
    evaluation = {**demo.evaluation.model_dump(), **({"prompts": 8, "samples": 2} if options.quick else {})}
    return demo_config(folder, names, settings=settings, evaluation=evaluation, **more)


def _cost_ratios(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[int, float]:
    """What a step of all preferences costs the authors, in ours: with 4 forward passes, and with 2."""
    base = workload.bare_base()
    found: dict[int, list[float]] = {4: [], 2: []}
    rows = []
    for workload.seed in range(options.rounds):
        ours = our_step(workload, options.timed)
        for passes, ratios in found.items():
            theirs = Step(0.0, 0.0, 0.0)
            for primary in workload.data:
                step = authors_step(workload, base, primary, folder, options.timed, margin=passes == 4)
                theirs += step * workload.count(primary)
            ratios.append(theirs.wall / ours.wall)
            rows.append([f"{passes} forwards", theirs.wall, ours.wall, ratios[-1], theirs.cpu / ours.cpu])
            rows[-1] += [theirs.peak_mib, ours.peak_mib]
    columns = ["authors", "s per step of all", "ours", "times", "in cpu time", "peak MiB", "ours, MiB"]
    print_table("what a step costs on the demo's base", columns, rows)
    return {passes: median(ratios) for passes, ratios in found.items()}


def _sweep(
    folder: Path, workload: Workload, options: argparse.Namespace, share: float, warm_share: float | None = None
) -> Swept:
    config = _config(folder, options, share, warm_share, group_size=workload.group_size)
    clock = TrainingClock()
    run = run_sweep(config, folder, clock)  # type: ignore[arg-type]
    steps = sum(run.store.record(point.adapter)["steps"] for point in run.front())
    start = "from scratch" if warm_share is None else f"warm, {warm_share:.0%} of these between the corners"
    name = f"{config.method_settings.steps} steps, {start}"
    return Swept(name, warm_share is not None, steps, clock.seconds, run.front().hypervolume())


def cheapest(wanted: float, runs: list[tuple[float, float]]) -> float:
    """The least cost at which runs of (cost, hypervolume) reach a hypervolume, straight between them; else infinity.

    >>> cheapest(1.5, [(10.0, 1.0), (20.0, 2.0)])
    15.0
    """
    before: tuple[float, float] | None = None
    for cost, volume in sorted(runs):
        if volume >= wanted:
            if before is None:
                return cost
            return before[0] + (cost - before[0]) * (wanted - before[1]) / (volume - before[1])
        if before is None or volume > before[1]:
            before = cost, volume
    return float("inf")


if __name__ == "__main__":
    main()
