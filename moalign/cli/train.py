"""Commands that train."""

from pathlib import Path
from typing import Annotated

import typer

from moalign.cli.shell import AsJson, RunFolder, describe_run, reporter, show


def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="what to train")],
    out: Annotated[Path | None, typer.Option(help="the run folder; runs/<config's name> if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Train and measure one adapter per preference. Stops and resumes: give the same command again."""
    from moalign.config import load_config
    from moalign.report import save_report
    from moalign.summary import summarise
    from moalign.sweep import run_sweep

    folder = out or Path("runs") / config.stem
    run = run_sweep(load_config(config), folder, reporter())
    path = save_report(run)
    summary = summarise(run)
    show(summary, as_json, lambda: describe_run(summary, folder, path))


def fill(
    run: RunFolder,
    budget: Annotated[int | None, typer.Option(min=0, help="branches to train at most; 0 blends only")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the gaps of a front: blend where blends cover them, train only where they do not. Stops and resumes."""
    from moalign.fill import run_fill
    from moalign.report import save_report
    from moalign.runs import Run
    from moalign.tables import describe_gaps

    opened = Run.open(run)
    allowed = 2 * len(opened.objectives) if budget is None else budget
    found = run_fill(opened, allowed, reporter())
    save_report(opened)
    show(found, as_json, lambda: describe_gaps(found))


def demo(
    objectives: Annotated[int, typer.Option(min=2, max=4, help="how many of helpful, brief, warm, careful")] = 2,
    out: Annotated[Path | None, typer.Option(help="the run folder; runs/demo if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a whole front on this machine in minutes: a help desk that can be helpful, brief, warm or careful."""
    from moalign.demo.show import demonstrate

    folder = out or Path("runs") / ("demo" if objectives == 2 else f"demo{objectives}")
    result = demonstrate(folder, objectives, reporter())
    summary = result.summary

    def describe() -> None:
        describe_run(summary, folder, result.report)
        typer.echo(result.texts_and_next_steps())

    show(summary, as_json, describe)


def sft(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="what to train, and on which answers")],
    out: Annotated[Path | None, typer.Option(help="the run folder; runs/<config's name> if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Train one adapter per seed to imitate answers, all at once: the ends of a soup. Stops and resumes."""
    from moalign.tuning import load_sft_config, run_sft, summarise_sft

    folders = run_sft(load_sft_config(config), out or Path("runs") / config.stem, reporter())
    summary = summarise_sft(folders)

    def describe() -> None:
        for found in summary["adapters"].values():
            loss = found["heldout_loss"]
            change = f"  held-out loss {loss['before']:.3f} -> {loss['after']:.3f} nats per token" if loss else ""
            typer.echo(found["folder"] + change)

    show(summary, as_json, describe)


def reward_model(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="what to train, and on which ratings")],
    out: Annotated[Path | None, typer.Option(help="the run folder; runs/<config's name> if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a reward model with a head per attribute on rated answers; rows may lack attributes. Stops and resumes."""
    from moalign.rewards.card import head_lines
    from moalign.rewards.training import load_reward_config, run_reward_model, summarise_reward_model

    model = run_reward_model(load_reward_config(config), out or Path("runs") / config.stem, reporter())
    summary = summarise_reward_model(model)
    show(summary, as_json, lambda: typer.echo("\n".join([str(model), *head_lines(summary["heads"])])))
