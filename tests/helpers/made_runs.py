"""Run folders made by hand: points with round numbers, for what is read from a run and not trained in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moalign.adapters import Adapter
from moalign.config import parse_config
from moalign.frontiers import ParetoPoint
from moalign.preference import Preference
from moalign.runs import Run

# Preference (warm, brief) and values: a square of 1 x 1 with one point inside; hypervolume .75 above (0, 0).
THREE = {"w": ((1.0, 0.0), (1.0, 0.25)), "m": ((0.5, 0.5), (0.75, 0.5)), "b": ((0.0, 1.0), (0.25, 1.0))}


def point(key: str, weights: tuple[float, float], values: tuple[float, float], **changes: Any) -> ParetoPoint:
    """A point over warm and brief, with errors of 0.1."""
    names = ("warm", "brief")
    return ParetoPoint(
        adapter=key,
        method="modpo",
        preference=Preference.of(dict(zip(names, weights, strict=True))),
        values=dict(zip(names, values, strict=True)),
        standard_errors=dict.fromkeys(names, 0.1),
        intervals={name: (value - 0.2, value + 0.2) for name, value in zip(names, values, strict=True)},
        **{"kl_to_reference": 1.0, "length": 3.0, **changes},
    )


def made_run(
    folder: Path,
    base: Path | str = "org/base",
    points: Mapping[str, Any] = THREE,
    adapters: Mapping[str, Adapter] | None = None,
    **settings: Any,
) -> Run:
    """A run over warm and brief whose points, and adapters if given, are these; the reference point is (0, 0)."""
    objectives = {"warm": {"type": "tiny_world:warm"}, "brief": {"type": "length"}}
    run = Run.create(folder, parse_config({"base": str(base), "objectives": objectives, **settings}))
    run.fix_reference(point("base", (0.5, 0.5), (0.25, 0.25)), {"warm": 0.0, "brief": 0.0})
    for key, (weights, values) in points.items():
        run.add_point(point(key, weights, values))
    for key, adapter in (adapters or {}).items():
        run.store.save(key, adapter, {"seed": 0}, str(base))
    return run
