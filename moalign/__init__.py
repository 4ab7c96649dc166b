"""moalign: a Pareto set of LoRA adapters for objectives that conflict.

The names that a user needs first stand here, and are loaded when they are first used; everything else is imported
from the module that holds it.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moalign.bank import AdapterBank as AdapterBank
    from moalign.comparing import compare_runs as compare_runs
    from moalign.config import load_config as load_config
    from moalign.direction import Direction as Direction
    from moalign.exporting import export_run as export_run
    from moalign.fill import run_fill as run_fill
    from moalign.frontiers import ParetoPoint as ParetoPoint
    from moalign.frontiers import ParetoSet as ParetoSet
    from moalign.mapping import calibrated as calibrated
    from moalign.preference import Preference as Preference
    from moalign.recipes import merge_run as merge_run
    from moalign.report import save_report as save_report
    from moalign.runs import Run as Run
    from moalign.serving.plan import Planner as Planner
    from moalign.serving.server import serve_run as serve_run
    from moalign.summary import summarise as summarise
    from moalign.sweep import run_sweep as run_sweep
    from moalign.talking import Speaker as Speaker

# The wheel nests objectives/, frontiers/ and dashboards/ here; a checkout keeps them beside us.
if not (Path(__file__).parent / "objectives").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

__version__ = "0.1.0"

_HOMES = {
    "AdapterBank": "bank",
    "Direction": "direction",
    "ParetoPoint": "frontiers",
    "ParetoSet": "frontiers",
    "Planner": "serving.plan",
    "Preference": "preference",
    "Run": "runs",
    "Speaker": "talking",
    "calibrated": "mapping",
    "compare_runs": "comparing",
    "export_run": "exporting",
    "load_config": "config",
    "merge_run": "recipes",
    "run_fill": "fill",
    "run_sweep": "sweep",
    "save_report": "report",
    "serve_run": "serving.server",
    "summarise": "summary",
}
__all__ = [
    "AdapterBank",
    "Direction",
    "ParetoPoint",
    "ParetoSet",
    "Planner",
    "Preference",
    "Run",
    "Speaker",
    "calibrated",
    "compare_runs",
    "export_run",
    "load_config",
    "merge_run",
    "run_fill",
    "run_sweep",
    "save_report",
    "serve_run",
    "summarise",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to load: `moalign --help` and a typing error should not wait for it.
    if name not in _HOMES:
        raise AttributeError(f"module 'moalign' has no attribute {name!r}")
    return getattr(import_module(f"moalign.{_HOMES[name]}"), name)
