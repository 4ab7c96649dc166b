"""The house stands: imports go down only, files and functions stay short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"moalign": "moalign", "objectives": "moalign.objectives", "frontiers": "moalign.frontiers"} | {
    "dashboards": "moalign.dashboards"
}

# The one list of what stands where. A package's name stands for all of its modules.
FLOORS = {
    "ground": ["batches", "direction", "errors", "files", "history", "preference"],
    "first": ["frontiers", "losses", "objectives", "weighting"],
    "second": [
        "adapters",
        "bank",
        "bank_layer",
        "bank_layout",
        "beginning",
        "cache",
        "claims",
        "conditioning",
        "data",
        "front_settings",
        "generation",
        "logprobs",
        "memory",
        "merging",
        "models",
        "packing",
        "rollouts",
        "row_plan",
        "settings",
        "store",
        "workplace",
    ],
    "third": [
        "blends",
        "branches",
        "cards",
        "comparing",
        "config",
        "enumeration",
        "evaluation",
        "exploration",
        "exporting",
        "fill",
        "following",
        "gains",
        "grouping",
        "mapping",
        "measuring",
        "methods",
        "planning",
        "preparation",
        "prepared",
        "progress",
        "recipes",
        "reference",
        "rewards",
        "runs",
        "serving",
        "standing",
        "summary",
        "sweep",
        "talking",
        "targets",
        "trackers",
        "training",
        "tuning",
    ],
    "roof": ["cli", "dashboards", "demo", "exploring", "integrations", "report", "tables", "testing"],
}
HEIGHT = {name: height for height, names in enumerate(FLOORS.values()) for name in names}
# What a pure core does not touch: settings, files, logs, and (for the numpy floor) torch.
IMPURE = {"logging", "pathlib", "moalign.config", "moalign.files", "moalign.runs"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, as an import names it."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(tree: ast.Module) -> Iterator[str]:
    """The dotted names that a module imports anywhere, functions included; `from a import b` gives a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def part(name: str) -> str:
    """The part of the house that a dotted name belongs to: moalign.data.load -> data."""
    return name.split(".")[1]


def test_every_module_stands_on_exactly_one_floor_and_every_entry_is_a_module() -> None:
    names = [name for floor in FLOORS.values() for name in floor]
    assert len(names) == len(set(names))
    assert {part(name) for name in MODULES if name != "moalign"} == set(names)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "moalign"])
def test_imports_go_down_only(name: str) -> None:
    """The package itself is left out: its front door names things of every floor, and loads them when asked."""
    for other in imported(parsed(MODULES[name])):
        if other in MODULES and other != "moalign":
            assert HEIGHT[part(other)] <= HEIGHT[part(name)], f"{name} imports {other}, which stands above it"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "moalign" and HEIGHT.get(part(name)) == 1])
def test_the_first_floor_knows_no_settings_and_no_logs(name: str) -> None:
    """Objectives may read files, as reward models do, and weighters may be the user's own; the rest are pure."""
    forbidden = {"moalign.config", "moalign.runs"} if part(name) in ("objectives", "weighting") else IMPURE
    assert not forbidden & set(imported(parsed(MODULES[name])))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("moalign.frontiers")])
def test_frontiers_are_numpy_alone(name: str) -> None:
    """But for one explorer, whose Gaussian process is botorch's; it loads torch where it asks, and not before."""
    tree = parsed(MODULES[name])
    if name == "moalign.frontiers.explorers.hypervolume":
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    tops = {other.partition(".")[0] for other in imported(tree)}
    assert not tops & {"torch", "botorch", "gpytorch", "transformers", "peft"}
    assert "moalign.batches" not in set(imported(parsed(MODULES[name])))  # it brings torch


@pytest.mark.parametrize("name", MODULES)
def test_files_stay_below_300_lines_and_functions_below_50(name: str) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, f"{MODULES[name]} is too long"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 50, f"{node.name} in {MODULES[name]} has {length} lines"
