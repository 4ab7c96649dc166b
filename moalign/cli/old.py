"""The command line. Exit codes: 0 done, 2 the user's mistake (one clear line), 1 ours."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign import __version__
from moalign.errors import UserError

if TYPE_CHECKING:
    from moalign.progress import Reporter

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="the run folder that a sweep made")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object")]


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error."""
    try:
        app()
    except UserError as error:
        typer.echo(f"moalign: {error}", err=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            typer.echo("moalign: stopped; the same command goes on from here", err=True)
        raise


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    """Train a Pareto set of LoRA adapters, look at it, and talk to any point of it."""


@app.command()
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
    run = run_sweep(load_config(config), folder, _reporter())
    path = save_report(run)
    summary = summarise(run)
    _print(summary, as_json, lambda: _describe(summary, folder, path))


@app.command()
def report(
    run: RunFolder,
    blends: Annotated[int, typer.Option(min=0, help="measure so many mixtures between neighbours first")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write report.html: the front, its uncertainty, and texts to read."""
    from moalign.report import measure_between, save_report
    from moalign.runs import Run

    opened = Run.open(run)
    if blends:
        measure_between(opened, blends, _reporter())
    path = save_report(opened)
    _print({"report": str(path)}, as_json, lambda: typer.echo(f"wrote {path}"))


@app.command()
def indicators(run: RunFolder, as_json: AsJson = False) -> None:
    """Print hypervolume, utility, distance from the oracle, and every point."""
    from moalign.runs import Run
    from moalign.summary import summarise

    summary = summarise(Run.open(run))
    _print(summary, as_json, lambda: _describe(summary, run, None))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="the one run folder")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="the other, with the same objectives and prompts")],
    as_json: AsJson = False,
) -> None:
    """Say whether one front has more hypervolume than another, or whether it is the draw of the prompts."""
    from moalign.comparing import compare_runs
    from moalign.runs import Run

    found = compare_runs(Run.open(first), Run.open(second))

    def describe() -> None:
        low, high = found["interval"]
        typer.echo(
            f"hypervolume {found['hypervolume'][0]:.4f} and {found['hypervolume'][1]:.4f}: difference "
            f"{found['difference']:+.4f}, 95 % {low:+.4f} to {high:+.4f}, p = {found['p']:.3f}"
        )

    _print(found, as_json, describe)


@app.command()
def generate(
    run: RunFolder,
    prompt: Annotated[str, typer.Argument(help="what to ask; - reads it from standard input")],
    prefer: Annotated[str, typer.Option(metavar="NAME=W,...", help="the trade-off, such as helpful=0.7,brief=0.3")],
    seed: Annotated[int, typer.Option(help="same seed, same weights, same text")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="at most so many tokens")] = 128,
    temperature: Annotated[float, typer.Option(min=0.01, help="1 is the model's own distribution")] = 1.0,
    best_of: Annotated[int, typer.Option(min=1, help="the best of so many answers, by the objectives' own scores")] = 1,
    spread: Annotated[
        float, typer.Option(min=0, max=180, help="dpa: ask within so many degrees of the direction")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Answer a prompt with the trade-off that you ask for."""
    from moalign.direction import Direction
    from moalign.preference import Preference
    from moalign.runs import Run
    from moalign.talking import Speaker

    # Weights below 0 make it a direction, which only some runs can follow.
    preference = Direction.parse(prefer) if "=-" in prefer.replace(" ", "") else Preference.parse(prefer)
    opened = Run.open(run)
    preference.vector(opened.objectives)
    asked = sys.stdin.read().strip() if prompt == "-" else prompt
    _quieten()
    said = Speaker.load(opened).say(
        asked,
        preference,
        seed=seed,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        best_of=best_of,
        spread=spread,
    )
    _print(said, as_json, lambda: typer.echo(said["text"]))


@app.command()
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
    found = run_fill(opened, allowed, _reporter())
    save_report(opened)
    _print(found, as_json, lambda: describe_gaps(found))


@app.command()
def demo(
    objectives: Annotated[int, typer.Option(min=2, max=4, help="how many of helpful, brief, warm, careful")] = 2,
    out: Annotated[Path | None, typer.Option(help="the run folder; runs/demo if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a whole front on this machine in minutes: a help desk that can be helpful, brief, warm or careful."""
    from moalign.demo.show import demonstrate

    folder = out or Path("runs") / ("demo" if objectives == 2 else f"demo{objectives}")
    result = demonstrate(folder, objectives, _reporter())
    summary = result.summary

    def describe() -> None:
        _describe(summary, folder, result.report)
        typer.echo(result.texts_and_next_steps())

    _print(summary, as_json, describe)


@app.command()
def sft(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="what to train, and on which answers")],
    out: Annotated[Path | None, typer.Option(help="the run folder; runs/<config's name> if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Train one adapter per seed to imitate answers, all at once: the ends of a soup. Stops and resumes."""
    from moalign.tuning import load_sft_config, run_sft, summarise_sft

    folders = run_sft(load_sft_config(config), out or Path("runs") / config.stem, _reporter())
    summary = summarise_sft(folders)

    def describe() -> None:
        for found in summary["adapters"].values():
            loss = found["heldout_loss"]
            change = f"  held-out loss {loss['before']:.3f} -> {loss['after']:.3f} nats per token" if loss else ""
            typer.echo(found["folder"] + change)

    _print(summary, as_json, describe)


@app.command("reward-model")
def reward_model(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="what to train, and on which ratings")],
    out: Annotated[Path | None, typer.Option(help="the run folder; runs/<config's name> if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a reward model with a head per attribute on rated answers; rows may lack attributes. Stops and resumes."""
    from moalign.rewards.card import head_lines
    from moalign.rewards.training import load_reward_config, run_reward_model, summarise_reward_model

    model = run_reward_model(load_reward_config(config), out or Path("runs") / config.stem, _reporter())
    summary = summarise_reward_model(model)
    _print(summary, as_json, lambda: typer.echo("\n".join([str(model), *head_lines(summary["heads"])])))


def _reporter() -> "Reporter":
    from moalign.progress import Reporter

    _quieten()
    return Reporter()


def _quieten() -> None:
    """Keep the libraries' own bars and hints out of ours; downloads from a hub still show theirs."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _print(value: dict[str, Any], as_json: bool, describe: Callable[[], None]) -> None:
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False))
    else:
        describe()


def _describe(summary: dict[str, Any], folder: Path, report_path: Path | None) -> None:
    from moalign.tables import describe

    describe(summary, folder, report_path)
