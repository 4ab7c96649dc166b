"""A run folder: everything a sweep knows, on disk, readable at any instant.

config.yaml            the resolved settings
adapters/<key>/        PEFT folder + record.json
points/<key>.json      what the adapter was measured to attain
samples/<key>.jsonl    the texts it was measured on
blends/<key>.json      mixtures of adapters that were measured
reference.json         the base model's own point and the hypervolume's reference point, fixed once
plan.json              which preferences train side by side, fixed once
asked/<n>.json         the preferences that an explorer asked for, wave by wave
fill/                  the ranges, rounds, branches and offers of `moalign fill`
oracle.npz             reference probabilities and scores of every answer, where they can be enumerated
cache/                 scores and log-probabilities by content
checkpoints/           the state of what is in training
metrics.jsonl          a line per logged step and per landed point
report.html
"""

import io
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from moalign.config import SweepConfig, differing, load_config
from moalign.errors import RunError
from moalign.files import append_line, atomic_write_bytes, atomic_write_text, read_json, write_json
from moalign.frontiers import ParetoPoint, ParetoSet
from moalign.store import AdapterStore

_MADE = ("adapters", "checkpoints", "oracle.npz", "plan.json", "reference.json")  # what depends on the settings

BASE = "base"  # the key under which the base model's own samples stand


@dataclass(frozen=True)
class Run:
    """One run folder and its settings. Use `Run.create` for a sweep and `Run.open` for everything after it."""

    folder: Path
    config: SweepConfig

    @classmethod
    def create(cls, folder: Path, config: SweepConfig) -> "Run":
        """Begin or continue a run. Raises RunError if the folder holds a run with other settings.

        Other settings replace those of a run that nothing has come of yet: they mend what stopped it.
        """
        path = folder / "config.yaml"
        if path.is_file():
            names = differing(load_config(path), config)
            if not names:
                return cls(folder, config)
            if any((folder / name).exists() for name in _MADE):
                raise RunError(
                    f"{folder} holds a run with other settings ({', '.join(names)} differ); choose another folder with "
                    "--out, or delete this one"
                )
        elif folder.is_dir() and not all(_may_be_there(item.name) for item in folder.iterdir()):
            raise RunError(f"{folder} is not empty and holds no run (no config.yaml); choose another folder with --out")
        atomic_write_text(path, config.to_yaml())
        return cls(folder, config)

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open a run that a sweep began. Raises RunError if there is none."""
        folder = Path(folder)
        if not (folder / "config.yaml").is_file():
            around = sorted(p.parent.name for p in folder.parent.glob("*/config.yaml"))
            hint = f" (runs beside it: {', '.join(around)})" if around else ""
            raise RunError(f"{folder} is not a run folder: it has no config.yaml{hint}")
        return cls(folder, load_config(folder / "config.yaml"))

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives, in the order of every vector of this run."""
        return tuple(self.config.objectives)

    @cached_property
    def store(self) -> AdapterStore:
        """The adapters."""
        return AdapterStore(self.folder / "adapters")

    @property
    def cache(self) -> Path:
        """Where scores and log-probabilities are kept by content."""
        return self.folder / "cache"

    # The base model's point and the reference point are written together, before anything is trained.
    def fix_reference(self, base: ParetoPoint, reference_point: Mapping[str, float]) -> None:
        """Store the base model's own point and the reference point of every hypervolume of this run."""
        write_json(self.folder / "reference.json", {"base": base.as_dict(), "reference_point": dict(reference_point)})

    def base_point(self) -> ParetoPoint | None:
        """The base model as measured, once it is."""
        path = self.folder / "reference.json"
        return ParetoPoint.from_dict(read_json(path)["base"]) if path.is_file() else None

    def add_point(self, point: ParetoPoint) -> None:
        """Store what an adapter attains."""
        write_json(self.folder / "points" / f"{point.adapter}.json", point.as_dict())

    def has_point(self, key: str) -> bool:
        """Whether an adapter has been measured."""
        return (self.folder / "points" / f"{key}.json").is_file()

    def front(self) -> ParetoSet:
        """The set of points as it is on disk now. Raises RunError before the base model has been measured."""
        path = self.folder / "reference.json"
        if not path.is_file():
            raise RunError(f"{self.folder} has no measured points yet; run its sweep first")
        reference = read_json(path)["reference_point"]
        corner = np.array([reference[name] for name in self.objectives])
        # Corners first, then by weight: an order that does not depend on which landed first.
        points = [ParetoPoint.from_dict(read_json(p)) for p in sorted((self.folder / "points").glob("[!.]*.json"))]
        points.sort(key=lambda p: (p.preference.vector(self.objectives).tolist(), p.adapter))
        return ParetoSet(self.objectives, corner, points)

    def write_samples(self, key: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Store the texts behind a point."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        atomic_write_text(self.folder / "samples" / f"{key}.jsonl", text)

    def samples(self, key: str) -> list[dict[str, Any]]:
        """The texts behind a point; none if there are none."""
        path = self.folder / "samples" / f"{key}.jsonl"
        if not path.is_file():
            return []
        # Not splitlines(): a text may hold U+2028 and its like, which JSON leaves as they are.
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays under a name, atomically and without pickle."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        atomic_write_bytes(self.folder / f"{name}.npz", buffer.getvalue())

    def log(self, kind: str, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        append_line(self.folder / "metrics.jsonl", json.dumps({"time": round(time.time(), 3), "kind": kind, **values}))


def _may_be_there(name: str) -> bool:
    """Whether a new run's folder may hold this: the demo's inputs, and what a kill or another worker leaves beside."""
    return name == "inputs" or name.startswith(".config.yaml.")
