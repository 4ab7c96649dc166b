"""What all commands share: the application, how it ends, and how results are printed."""

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


def reporter() -> "Reporter":
    """Bars and lines for people, on standard error."""
    from moalign.progress import Reporter

    quieten()
    return Reporter()


def quieten() -> None:
    """Keep the libraries' own bars and hints out of ours; downloads from a hub still show theirs."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def show(value: dict[str, Any], as_json: bool, describe: Callable[[], None]) -> None:
    """Print a result as one JSON object, or let it be described."""
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False))
    else:
        describe()


def describe_run(summary: dict[str, Any], folder: Path, report_path: Path | None) -> None:
    """Print a run's summary as tables."""
    from moalign.tables import describe

    describe(summary, folder, report_path)
