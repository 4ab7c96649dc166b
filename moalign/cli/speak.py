"""Commands that let a trade-off speak, here or elsewhere."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moalign.cli.shell import AsJson, RunFolder, quieten, show

if TYPE_CHECKING:
    from moalign.direction import Direction
    from moalign.preference import Preference

Prefer = Annotated[str, typer.Option(metavar="NAME=W,...", help="the trade-off, such as helpful=0.7,brief=0.3")]
Policy = Annotated[
    str | None,
    typer.Option(help="from a trade-off to a mixture: nearest, interpolate, soup, calibrated, direction or decode"),
]


def generate(
    run: RunFolder,
    prompt: Annotated[str, typer.Argument(help="what to ask; - reads it from standard input")],
    prefer: Prefer,
    seed: Annotated[int, typer.Option(help="same seed, same weights, same text")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="at most so many tokens")] = 128,
    temperature: Annotated[
        float, typer.Option(min=0, help="1 is the model's own distribution, 0 takes the likeliest token")
    ] = 1.0,
    best_of: Annotated[int, typer.Option(min=1, help="the best of so many answers, by the objectives' own scores")] = 1,
    spread: Annotated[
        float, typer.Option(min=0, max=180, help="dpa: ask within so many degrees of the direction")
    ] = 0.0,
    policy: Policy = None,
    as_json: AsJson = False,
) -> None:
    """Answer a prompt with the trade-off that you ask for."""
    from moalign.runs import Run
    from moalign.serving.plan import Planner
    from moalign.talking import Speaker

    opened, preference = Run.open(run), _wish(prefer)
    Planner.of(opened).plan(preference, policy)  # a mistake in these need not wait for the base model
    asked = sys.stdin.read().strip() if prompt == "-" else prompt
    quieten()
    said = Speaker.load(opened).say(
        asked,
        preference,
        seed=seed,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        best_of=best_of,
        spread=spread,
        policy=policy,
    )
    show(said, as_json, lambda: typer.echo(said["text"]))


def serve(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port; 0 takes a free one")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="MOALIGN_API_KEY", help="asked of every request; the environment hides it")
    ] = None,
    policy: Policy = None,
    slots: Annotated[int, typer.Option(min=1, help="texts that are written at once")] = 32,
    queue: Annotated[int, typer.Option(min=1, help="requests that may wait; more get 429")] = 128,
    max_tokens: Annotated[int, typer.Option(min=1, help="the most that a request may ask for")] = 1024,
    seconds: Annotated[float, typer.Option(min=1, help="the most that a request may take")] = 300.0,
    drain: Annotated[float, typer.Option(min=0, help="seconds for texts to end in, once told to stop")] = 30.0,
    explorer: Annotated[bool, typer.Option("--explorer/--no-explorer", help="show the run at /explore")] = True,
) -> None:
    """Answer OpenAI's API, each request by the trade-off that it asks for, all in one batch; /explore is its page."""
    from moalign.dashboards.explorer.app import mount_explorer
    from moalign.runs import Run
    from moalign.serving.limits import Limits
    from moalign.serving.server import serve_run

    opened = Run.open(run)
    quieten()
    limits = Limits(slots=slots, queue=queue, max_tokens=max_tokens, seconds=seconds)
    serve_run(
        opened,
        host=host,
        port=port,
        api_key=api_key,
        limits=limits,
        policy=policy,
        drain_seconds=drain,
        say=lambda line: typer.echo(line, err=True),
        extend=mount_explorer if explorer else None,
    )


def merge(
    run: RunFolder,
    prefer: Prefer,
    out: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write; what it holds is never replaced")],
    rank: Annotated[int | None, typer.Option(min=1, help="recompress to this rank; exact if not given")] = None,
    method: Annotated[
        str, typer.Option(help="soup, which is exact; or slerp, ties, dare, bone, extrapolate, factors")
    ] = "soup",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="of the method, such as density=0.3; may be repeated"),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="from a trade-off to a mixture: nearest, interpolate, soup or calibrated")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the adapter of a trade-off as one plain PEFT folder, with a card that says what it is made of."""
    from moalign.preference import named_numbers
    from moalign.recipes import merge_run
    from moalign.runs import Run
    from moalign.tables import describe_merge

    opened, preference = Run.open(run), _wish(prefer)
    quieten()
    options = named_numbers(",".join(option or []), "NAME=NUMBER, such as density=0.3")
    found = merge_run(opened, preference, out, rank=rank, method=method, options=options, policy=policy)
    show(found.as_dict(), as_json, lambda: describe_merge(found.as_dict()))


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="the folder to write")],
    to: Annotated[str, typer.Option(metavar="SERVER", help="vllm, sglang or lorax")],
    rank: Annotated[int | None, typer.Option(min=1, help="the largest rank; that of the adapters if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Write every adapter of a run, by name, as other servers load them."""
    from moalign.exporting import export_run
    from moalign.runs import Run
    from moalign.tables import describe_export

    opened = Run.open(run)
    quieten()
    found = export_run(opened, out, to=to, rank=rank)
    show(found.as_dict(), as_json, lambda: describe_export(found.as_dict()))


def _wish(prefer: str) -> "Preference | Direction":
    """Weights below 0 make it a direction, which only some runs can follow."""
    from moalign.direction import Direction
    from moalign.preference import Preference

    return Direction.parse(prefer) if "=-" in prefer.replace(" ", "") else Preference.parse(prefer)
