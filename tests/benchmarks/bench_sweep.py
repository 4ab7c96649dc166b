"""What an 11-point MODPO sweep over two objectives costs, against what a user would run instead.

    python tests/benchmarks/bench_sweep.py [--quick] [--threads 2] [--steps 200]

Compared, on the same base, pairs (in the same order), batch size, LoRA, optimiser and schedule:

- moalign: one forward and one backward pass per step, prompts shared by chosen and rejected, preferences side by side
  in groups as the sweep forms them. Charged in full: the constants of the data (reference and margins, once) and the
  probe that chooses the group size.
- the authors' schedule: one adapter at a time with plain PEFT and transformers, 4 forward passes and 1 backward pass
  per step (baselines.py). Stated twice: for all 11, and with the two corners as plain DPO (2 forward passes), which
  is how their stage 1 trains a corner.
- TRL's DPOTrainer, 11 runs, with precomputed reference log-probabilities, for which it is charged nothing.

Some steps of each are timed, in turns and on other pairs in each round, and extrapolated to --steps; the first one of
a run is warm-up and left out. For the others one preference per primary objective stands for all of them, because a
preference's weights do not change the cost of a step; ours is timed in all of its groups. First, the loss of the
authors' steps and of ours is compared for one preference: they are the same numbers. The data: helpful and harmless
pairs of people on a 3 M story model where ../shared has them, and random words on a random model of that shape
everywhere. Memory is the peak of a side above what was resident before it began; the ratios are medians of the rounds,
in wall time and, beside it, in processor time, which other work on the machine disturbs less.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from baselines import AuthorsSchedule, make_trl_trainer
from common import Step, arguments, begin, print_json, print_table, time_steps
from transformers import PreTrainedModel
from workloads import Workload, prepare_workload, real_config, synthetic_config

from moalign.planning import Plan

OURS = "moalign"
AUTHORS = "authors, 4 forwards and 1 backward"
AUTHORS_CORNERS = "authors, corners as DPO"
TRL = "TRL DPOTrainer x 11"


def main() -> None:
    """Print the ratios for each data set that is there."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--steps", type=int, default=200, help="of each preference, to extrapolate to (default 200)")
    parser.add_argument("--timed", type=int, help="steps that are timed in each round (default 6; quick: 2)")
    parser.add_argument("--rounds", type=int, help="turns of all sides (default 5; quick: 1)")
    parser.add_argument("--group-size", type=int, help="instead of the size that the machine is found to like")
    parser.add_argument("--only", choices=["real", "synthetic"], help="one data set instead of both")
    options = parser.parse_args()
    options.timed = options.timed or (2 if options.quick else 6)
    options.rounds = options.rounds or (1 if options.quick else 5)
    begin(options)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("real", "synthetic"):
            if options.only in (None, name) and (workload := _workload(name, Path(folder, name), options)):
                found[name] = compare(workload, Path(folder, name), options)
    print_json({"benchmark": "sweep", "steps": options.steps, "threads": options.threads, **found})


def _workload(name: str, folder: Path, options: argparse.Namespace) -> Workload | None:
    folder.mkdir()
    if name == "real":
        config = real_config(options.timed, limit=200 if options.quick else None)
    else:
        config = synthetic_config(folder, options.timed, pairs=200 if options.quick else 1600)
    if config is None:
        print("\nno ../shared: the real pairs are left out")
        return None
    return prepare_workload(name, config, folder / "run", options.group_size)


def compare(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Time all sides in turns and print what they cost."""
    base = workload.bare_base()
    difference = _loss_difference(workload, base, folder, options.timed)
    rounds: dict[str, list[Step]] = defaultdict(list)
    for workload.seed in range(options.rounds):
        for side, step in _one_round(workload, base, folder, options.timed).items():
            rounds[side].append(step)
    fixed = _fixed(workload)
    whole = {side: [step * options.steps for step in steps] for side, steps in rounds.items()}
    whole[OURS] = [step + fixed for step in whole[OURS]]
    rows, found = [], {}
    for side, sums in whole.items():
        wall = [theirs.wall / mine.wall for theirs, mine in zip(sums, whole[OURS], strict=True)]
        cpu = [theirs.cpu / mine.cpu for theirs, mine in zip(sums, whole[OURS], strict=True)]
        peak = max(step.peak_mib for step in rounds[side])
        step, total = median(step.wall for step in rounds[side]), median(step.wall for step in sums)
        spread = f"{min(wall):.2f} to {max(wall):.2f}"
        rows.append([side, step, total, f"{median(wall):.2f}", spread, f"{median(cpu):.2f}", peak])
        found[side] = {"ratio": median(wall), "ratio_cpu": median(cpu), "seconds_per_step": step, "peak_mib": peak}
    data = ", ".join(f"{len(pairs)} {objective} pairs" for objective, pairs in workload.data.items())
    print_table(
        f"{workload.name}: {data}; groups of {workload.group_size}; {options.steps} steps x {len(workload.plans)}",
        ["", "s per step of all", "s in all", "times ours", "range", "in cpu time", "peak MiB"],
        rows,
    )
    print(
        f"  ours includes {workload.precompute.seconds:.2f} s for the constants of the data and "
        f"{workload.planning.seconds:.2f} s to choose the group size\n"
        f"  largest difference between our loss and the authors', step by step: {difference:.1e}"
    )
    return {
        "group_size": workload.group_size,
        "loss_difference": difference,
        "precompute_seconds": workload.precompute.seconds,
        "planning_seconds": workload.planning.seconds,
        **found,
    }


def _fixed(workload: Workload) -> Step:
    """What a sweep pays once, however many steps it takes."""
    costs = (workload.precompute, workload.planning)
    return Step(sum(c.seconds for c in costs), sum(c.cpu for c in costs), workload.precompute.peak_mib)


def _loss_difference(workload: Workload, base: PreTrainedModel, folder: Path, steps: int) -> float:
    """The largest difference of the loss of one preference over the steps of one short run."""
    plan = inner_plan(workload, workload.prepared.run.objectives[0])
    mine: list[float] = []
    theirs: list[float] = []
    workload.train([plan], steps, lambda _step, _steps, numbers: mine.append(numbers["loss"]))
    AuthorsSchedule(workload, base, plan, folder).train(steps, theirs.append)
    return max(abs(a - b) for a, b in zip(mine, theirs, strict=True))


def inner_plan(workload: Workload, primary: str) -> Plan:
    """A preference with two weights, trained on the pairs of this objective."""
    return next(p for p in workload.plans if p.primary == primary and 0 < p.preference.weights[primary] < 1)


def _one_round(workload: Workload, base: PreTrainedModel, folder: Path, steps: int) -> dict[str, Step]:
    """What one step of all preferences takes each side, one after the other."""
    nothing = Step(0.0, 0.0, 0.0)
    ours = our_step(workload, steps)
    full, dpo, trl, corners = nothing, nothing, nothing, nothing
    for primary in workload.data:
        count = workload.count(primary)
        margin = authors_step(workload, base, primary, folder, steps, margin=True)
        plain = authors_step(workload, base, primary, folder, steps, margin=False)
        full, dpo, corners = full + margin * count, dpo + margin * (count - 1), corners + plain
        trl += _trl_step(workload, base, primary, folder, steps) * count
    return {OURS: ours, AUTHORS: full, AUTHORS_CORNERS: dpo + corners, TRL: trl}


def our_step(workload: Workload, steps: int) -> Step:
    """One step of all preferences, in the groups of the sweep."""
    found = Step(0.0, 0.0, 0.0)
    for group in workload.groups:
        found += time_steps(lambda on_step, group=group: workload.train(group, steps + 1, on_step))
    return found


def authors_step(
    workload: Workload, base: PreTrainedModel, primary: str, folder: Path, steps: int, *, margin: bool
) -> Step:
    """One step of one preference."""
    schedule = AuthorsSchedule(workload, base, inner_plan(workload, primary), folder, margin=margin)
    return time_steps(lambda on_step: schedule.train(steps + 1, on_step))


def _trl_step(workload: Workload, base: PreTrainedModel, primary: str, folder: Path, steps: int) -> Step:
    def run(on_step) -> None:
        make_trl_trainer(workload, base, primary, steps + 1, folder, on_step).train()

    return time_steps(run)


if __name__ == "__main__":
    main()
