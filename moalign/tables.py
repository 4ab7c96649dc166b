"""A run's summary as tables on a terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_MEANING = {
    "hypervolume": "volume that the front dominates above the reference point",
    "normalised_hypervolume": "the same as a share of the box up to the best value of each objective",
    "expected_utility": "mean over preferences of the best point for each",
    "mip": "mean inner product: over points, preference . values",
    "sparsity": "mean squared gap between neighbours on the front; lower is denser",
    "igd_plus": "distance from the oracle's front that is left; lower is better",
    "hypervolume_ratio": "of the best possible at each point's own KL",
    "hypervolume_ratio_at_beta": "of the optimum at the run's beta",
}


def describe(summary: dict[str, Any], folder: Path, report_path: Path | None) -> None:
    """Print the points, the indicators, and where the report is."""
    console = _console()
    console.print(_points(summary))
    for name, meaning in _MEANING.items():
        if summary[name] is not None:
            console.print(f"  {name:<26}{summary[name]:>9.4f}   [dim]{meaning}[/]")
    point = ", ".join(
        f"{name} {value:.3f}" for name, value in zip(summary["objectives"], summary["reference_point"], strict=True)
    )
    console.print(f"  [dim]reference point: {escape(point)}[/]")
    if summary["accuracy"]:
        console.print(_accuracy(summary))
    if report_path is not None:
        console.print(f"  report: {report_path}")


def describe_gaps(found: dict[str, Any]) -> None:
    """Print what `moalign fill` found between adapters, and what came of it."""
    console, table = _console(), _table()
    for name in ("between", "size", "gain expected", "gain measured", "noise", ""):
        table.add_column(name, justify="left" if name in ("between", "") else "right", no_wrap=True)
    for gap in found["gaps"]:
        told = "covered by a blend" if gap["covered_by_blend"] else "trained" if gap["trained"] else "left open"
        gains = (f"{gap[name]:.4f}" for name in ("gain_expected", "gain_measured", "noise"))
        table.add_row(escape(" and ".join(gap["between"])), f"{gap['size']:.2f}", *gains, told)
    if found["gaps"]:
        console.print(table)
    before, after = found["hypervolume_before"], found["hypervolume_after"]
    trained, kept = found["adapters_trained"], len(found["adapters_kept"])
    by = f"blends and {trained} branches, of which {kept} adapters were kept" if trained else "blends alone"
    console.print(f"  hypervolume {before:.4f} -> {after:.4f}, by {by}")


def describe_merge(found: dict[str, Any]) -> None:
    """Print what a merged folder is made of, what it is predicted to attain, and what the rank cost."""
    console, plan = _console(), found["plan"]
    (row,) = (lane["row"] for lane in plan["lanes"])
    parts = [f"{weight:.4g} of {escape(key)}" for key, weight in row.items()]
    console.print(
        f"{found['method']}: {', '.join(parts)}" if len(parts) > 1 or found["differs"] else escape(next(iter(row)))
    )
    for name, one in plan["predicted"].items():
        console.print(f"  {escape(name)} {_value(one['value'], one['standard_error'])} ({plan['source']})")
    if found["differs"] and plan["predicted"]:
        console.print(
            f"  these are values of the exact soup; this adapter was {escape(' and '.join(found['differs']))}"
        )
    worst = found["worst_layer"]
    lost = f"{_percent(found['error'])} of the change of the weights is lost" if worst else "nothing is lost"
    most = f", at most {_percent(worst['error'])} of {escape(worst['name'])}" if worst else ""
    console.print(f"rank {found['rank']}: {lost}{most}")
    if found["distance_from_soup"] is not None:
        console.print(f"{_percent(found['distance_from_soup'])} of the exact soup's length away from it")
    console.print(f"wrote {escape(found['folder'])}")


def describe_export(found: dict[str, Any]) -> None:
    """Print what was written for another server."""
    console = _console()
    for each in found["adapters"]:
        lost = f", {_percent(each['error'])} lost" if each["error"] else ""
        console.print(f"{escape(each['name'])}: rank {each['rank']}{lost}")
    for name, text in found["directions"].items():
        console.print(f"{escape(name)} is told in the prompt: {escape(text)}")
    console.print(f"wrote {escape(found['folder'])}: see {escape(', '.join(found['files']))}")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width; 80 would cut the tables
    return console


def _points(summary: dict[str, Any]) -> Table:
    table = _table()
    table.add_column("preference", no_wrap=True)
    known = any(point["kl_to_oracle"] is not None for point in summary["points"])
    for name in (*summary["objectives"], "kl", *(["kl to oracle"] if known else []), "front"):
        table.add_column(escape(name), justify="right", no_wrap=True)
    base = summary["base"]
    rows = ([{**base, "on_front": None}] if base else []) + summary["points"]
    for point in rows:
        trained, oracle = point["on_front"] is not None, point["kl_to_oracle"]
        table.add_row(
            escape(_weights(point["preference"])) if trained else "base",
            *(_value(point["values"][name], point["standard_errors"][name]) for name in summary["objectives"]),
            _number(point["kl_to_reference"]),
            *([_number(oracle) if trained else ""] if known else []),
            {True: "yes", False: "no", None: ""}[point["on_front"]],
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _accuracy(summary: dict[str, Any]) -> Table:
    """Held-out pairs that a policy ranks as their labels do, before (the base) and after (each preference)."""
    by_adapter = {point["adapter"]: point["preference"] for point in summary["points"]}
    names = list(next(iter(summary["accuracy"].values())))
    table = _table()
    table.title = "held-out pairs ranked as their labels say: by implicit reward (by likelihood)"
    table.add_column("preference", no_wrap=True)
    for name in names:
        table.add_column(escape(name), justify="right", no_wrap=True)
    for key, values in summary["accuracy"].items():
        cells = (f"{values[name]['reward']:.3f} ({values[name]['likelihood']:.3f})" for name in names)
        table.add_row(escape(_weights(by_adapter.get(key, {}))) or "base (before)", *cells)
    return table


def _value(value: float, error: float | None) -> str:
    """One prompt has no standard error over prompts."""
    return f"{value:+.3f}" if error is None else f"{value:+.3f} ±{error:.3f}"


def _table() -> Table:
    return Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2), title_justify="left")


def _weights(preference: dict[str, float]) -> str:
    return ",".join(f"{name}={weight:.3g}" for name, weight in preference.items() if weight > 0)
