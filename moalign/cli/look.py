"""Commands that look at what was trained."""

from pathlib import Path
from typing import Annotated

import typer

from moalign.cli.shell import AsJson, RunFolder, describe_run, reporter, show


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
        measure_between(opened, blends, reporter())
    path = save_report(opened)
    show({"report": str(path)}, as_json, lambda: typer.echo(f"wrote {path}"))


def indicators(run: RunFolder, as_json: AsJson = False) -> None:
    """Print hypervolume, utility, distance from the oracle, and every point."""
    from moalign.runs import Run
    from moalign.summary import summarise

    summary = summarise(Run.open(run))
    show(summary, as_json, lambda: describe_run(summary, run, None))


def explore(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port; 0 takes a free one")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="MOALIGN_API_KEY", help="asked of every browser; the environment hides it")
    ] = None,
) -> None:
    """Show a run in the browser, also while a sweep writes it; `serve` shows it with texts written live."""
    from moalign.dashboards.explorer.app import explore_run
    from moalign.runs import Run

    explore_run(Run.open(run), host=host, port=port, api_key=api_key, say=lambda line: typer.echo(line, err=True))


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

    show(found, as_json, describe)
