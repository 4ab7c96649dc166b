"""A whole run as other servers load it: the `export` command, and its Python twin.

out/
  export.json            what is exported from where; says that the folder is ours to complete
  <name>/                a PEFT folder per named point, with its record and card
  README.md, serve.sh    the commands of the server, and what to know
  lora_modules.json ...  the list of adapters, for scripts of one's own
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moalign.direction import Direction
from moalign.errors import ConfigError, unknown
from moalign.files import atomic_write_text, digest, read_json, write_json
from moalign.frontiers import ParetoPoint
from moalign.merging.compression import at_least_one
from moalign.recipes import base_name, write_blend
from moalign.runs import Run
from moalign.serving.names import served_names
from moalign.serving.plan import Planner
from moalign.talking import converses
from moalign.targets import TARGETS, Listing

_SETTINGS = "export.json"
_LONGEST = 120  # bytes of a folder's name


@dataclass(frozen=True)
class ExportedAdapter:
    """One adapter as written: its folder's name in the export, its rank in every layer, and what a cut lost of it."""

    name: str
    folder: str
    rank: int
    error: float


@dataclass(frozen=True)
class Exported:
    """An export as written: its adapters in the order of the front.

    `files` are those of the target, beside the adapters; `directions` the text that each prompt has to hold by name,
    for a run whose one adapter reads directions.
    """

    folder: Path
    to: str
    base: str
    adapters: tuple[ExportedAdapter, ...]
    directions: Mapping[str, str]
    files: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """The largest rank of an adapter."""
        return max(each.rank for each in self.adapters)

    def as_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return {
            "folder": str(self.folder),
            "to": self.to,
            "base": self.base,
            "rank": self.rank,
            "adapters": [vars(each) for each in self.adapters],
            "directions": dict(self.directions),
            "files": list(self.files),
        }


def export_run(run: Run, out: str | Path, *, to: str, rank: int | None = None) -> Exported:
    """Write every named point of a run as a PEFT folder, and what the target server reads to load them all.

    Each adapter has one rank and one integer alpha in all layers. A point that is a mixture becomes the exact soup;
    with `rank`, whatever is larger is cut to it, and the error is in the record. A run whose adapter reads directions
    (DPA) becomes that one adapter: the directions belong into the prompts. The same call again writes only what is
    missing.

    Raises ConfigError for an unknown target, a rank below 1 or above what the target takes, and a folder that holds
    something else; RunError for a run without adapters.
    """
    if to not in TARGETS:
        raise ConfigError(unknown("target", to, TARGETS))
    if rank is not None:
        at_least_one(rank)
    out, planner, points = Path(out), Planner.of(run), served_names(run)
    _claim_folder(out, {"run": str(run.folder.resolve()), "base": base_name(run), "rank": rank, "to": to})
    command = ["moalign", "export", str(run.folder), "--to", to, str(out)]
    command += [] if rank is None else ["--rank", str(rank)]
    adapters = []
    for name, (source, row) in _wanted(points).items():
        plan, folder = planner.named(source), out / _folder_name(name)
        made = write_blend(run, plan, folder, shlex.join(command), row=row, rank=rank)
        adapters.append(ExportedAdapter(name, folder.name, made.rank, made.error))
    export = Exported(out, to, base_name(run), tuple(adapters), _directions(run, points))
    files = TARGETS[to](_listing(export, converses(run)))
    for name, content in files.items():
        atomic_write_text(out / name, content)
        if name.endswith(".sh"):
            (out / name).chmod(0o755)
    return replace(export, files=tuple(files))


def _claim_folder(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder ours before anything is written there, or see that it is ours, for the same export."""
    path = out / _SETTINGS
    if path.is_file():
        if (other := read_json(path)) == settings:
            return
        raise ConfigError(f"{out} holds another export, {_described(other)}; choose another folder, or delete it")
    if out.exists() and (not out.is_dir() or any(not _left_behind(item.name) for item in out.iterdir())):
        raise ConfigError(f"{out} exists and holds something else than an export; choose another folder")
    write_json(path, settings)


def _left_behind(name: str) -> bool:
    """Whether an export that was killed before it had its folder left this there."""
    return name.startswith(f".{_SETTINGS}.")


def _described(settings: Mapping[str, Any]) -> str:
    """What export.json says, in one line; other settings than ours may stand there."""
    cut = f", of rank {settings['rank']} at most" if settings.get("rank") else ""
    return f"of {settings.get('run')} on {settings.get('base')} for {settings.get('to')}{cut}"


def _wanted(points: Mapping[str, ParetoPoint]) -> dict[str, tuple[str, dict[str, float]]]:
    """By the name of the export: a served name, and its mixture."""
    wanted: dict[str, tuple[str, dict[str, float]]] = {}
    for name, point in points.items():
        row = {key: weight for key, weight in point.mixture.items() if weight}
        # Many directions are of one adapter: it goes by its key.
        wanted.setdefault(name if point.direction is None else next(iter(row)), (name, row))
    return wanted


def _folder_name(name: str) -> str:
    """The name itself, unless many objectives make it longer than a file system takes."""
    return name if len(name.encode()) <= _LONGEST else f"{name[: _LONGEST // 8]}-{digest(name)[:8]}"


def _directions(run: Run, points: Mapping[str, ParetoPoint]) -> dict[str, str]:
    """By name, what a prompt says for a point that has a direction."""
    told = {name: Direction.of(point.direction) for name, point in points.items() if point.direction is not None}
    if not told:
        return {}
    wording = run.config.method_settings.wording(run.objectives)
    return {name: wording.render(direction) for name, direction in told.items()}


def _listing(export: Exported, chats: bool) -> Listing:
    return Listing(
        export.base,
        export.rank,
        {each.name: each.folder for each in export.adapters},
        {each.name: each.error for each in export.adapters},
        export.directions,
        chats,
    )
