"""From a run folder to its report page."""

from dataclasses import replace
from pathlib import Path

from moalign.blends import measure_blends, read_blends
from moalign.dashboards import Band, Blend, Gain, Report, Sample, write_report
from moalign.following import HistoryReader
from moalign.frontiers import ParetoSet, attainment_bands
from moalign.gains import redrawn
from moalign.mapping import calibrated
from moalign.preference import Preference
from moalign.preparation import prepare
from moalign.progress import Reporter
from moalign.runs import BASE, Run
from moalign.summary import oracle_values, summarise

_TEXTS = 12  # prompts per point on the page


def save_report(run: Run) -> Path:
    """Write report.html of a run as it is now; its path."""
    path = run.folder / "report.html"
    history = HistoryReader(run.folder, run.objectives).read()
    write_report(path, replace(run_report(run), history=history))
    return path


def measure_between(run: Run, between: int, reporter: Reporter) -> None:
    """Measure mixtures between neighbouring points, for the curve of blends."""
    from moalign.measuring import open_evaluator

    with reporter.running():
        prepared = prepare(run, reporter.notice)
        measure_blends(
            run, open_evaluator(prepared, reporter), between, lambda done, all_: reporter.bar("blends", done, all_)
        )


def run_report(run: Run) -> Report:
    """All that the report of a run as it is now tells, but its training. Raises RunError before the first point."""
    front, summary = run.front(), summarise(run)
    numbers = {name: value for name, value in summary.items() if isinstance(value, float)}
    tau = {f"kendall_tau {name}": value for name, value in summary["kendall_tau"].items()}
    matched, _ = oracle_values(run, front)
    promoted = {point.adapter for point in front}
    blends = [record for record in read_blends(run) if record["adapter"] not in promoted]
    return Report(
        title=run.folder.resolve().name,
        front=front,
        indicators={**numbers, **tau},
        base=run.base_point(),
        blends=[_blend(record) for record in blends],
        oracle=matched,
        samples=_samples(run, [BASE, *(point.adapter for point in front)]),
        facts=_facts(run),
        gains=[_gain(record) for record in summary["gains"]],
        band=front_band(run, front),
        calibration=calibrated(run) if any(point.row for point in front) or blends else None,
    )


def front_band(run: Run, front: ParetoSet) -> Band | None:
    """Where the front would lie with other prompts, for two objectives; None where texts of its points are missing."""
    drawn = redrawn([(run, point.adapter) for point in front], run.objectives, run.config.seed)
    if len(run.objectives) != 2 or len(front) < 2 or not len(drawn):
        return None
    outer, inner = attainment_bands(list(drawn), (0.05, 0.95))
    return Band(outer, inner, "in 90 % of all samples of the prompts")


def _blend(record: dict) -> Blend:
    return Blend(record["row"], Preference.of(record["preference"]), record["values"], record["standard_errors"])


def _gain(record: dict) -> Gain:
    interval = (record["interval"][0], record["interval"][1])
    values = (record["base"], record["value"], record["difference"])
    return Gain(record["objective"], Preference.of(record["preference"]), *values, interval)


def _samples(run: Run, keys: list[str]) -> list[Sample]:
    """The first response of each point to each of a few prompts, the same prompts for all."""
    found = []
    for key in keys:
        seen: set[str] = set()
        for row in run.samples(key):
            prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
            if prompt not in seen and len(seen) < _TEXTS:
                seen.add(prompt)
                found.append(Sample(key, prompt, row["response"], row["scores"]))
    return found


def _facts(run: Run) -> dict[str, str]:
    config, settings = run.config, run.config.method_settings
    return {
        "base model": Path(config.base).name or config.base,
        "method": config.method,
        **settings.facts,
        "adapter": f"LoRA, rank {config.adapter.rank}, alpha {config.adapter.alpha:g}",
        "evaluation": f"{config.evaluation.samples} responses to each of at most {config.evaluation.prompts} prompts",
        "seed": str(config.seed),
    }
