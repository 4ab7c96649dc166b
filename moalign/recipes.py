"""One trade-off of a run as a plain PEFT folder that says what it is made of: the `merge` command, and its Python twin.

out/
  adapter_config.json, adapter_model.safetensors   what PEFT, vLLM, SGLang and LoRAX load
  record.json                                      the recipe and the digest of the weights, as an AdapterStore reads it
  README.md                                        the same for people, as a model card
"""

import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from moalign import __version__
from moalign.adapters import Adapter, LowRank
from moalign.cards import card, differs
from moalign.config import ObjectiveSettings
from moalign.direction import Direction
from moalign.errors import AdapterError, ConfigError, unknown
from moalign.files import atomic_write_text, flush, read_json, storing
from moalign.frontiers import ParetoPoint
from moalign.merging import MERGES, compress, distance, options_of, uniform
from moalign.objectives import OBJECTIVES
from moalign.preference import Preference
from moalign.runs import Run
from moalign.serving.plan import Plan, Planner
from moalign.store import RECORD_FILE, AdapterStore


@dataclass(frozen=True)
class Blend:
    """Adapters merged into one, and what that cost.

    `error` is the part of the merge's delta that a smaller rank lost, ||D - D_r||_F / ||D||_F, of all layers together,
    and `layers` by layer: 0 and nothing where none was cut. `distance` is ||D - S||_F / ||S||_F from the exact soup S,
    where the method averages factors, else None.
    """

    adapter: Adapter
    error: float = 0.0
    layers: Mapping[str, float] | None = None
    distance: float | None = None

    @property
    def rank(self) -> int:
        """The largest rank of a layer."""
        return max(layer.rank for layer in self.adapter.layers.values())

    @property
    def worst(self) -> dict[str, Any] | None:
        """The name and the error of the layer that lost most; None where nothing was lost."""
        lost = [{"name": name, "error": error} for name, error in (self.layers or {}).items() if error]
        return max(lost, key=lambda each: each["error"], default=None)


@dataclass(frozen=True)
class Merged:
    """A folder that `merge_run` wrote, or found there with the same recipe; errors as in `Blend`.

    `differs` says what makes it another adapter than the exact soup that the plan's predictions are of; empty if
    nothing does.
    """

    folder: Path
    plan: Plan
    method: str
    rank: int
    error: float
    worst_layer: dict[str, Any] | None
    distance: float | None
    differs: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return {
            "folder": str(self.folder),
            "method": self.method,
            "rank": self.rank,
            "error": self.error,
            "worst_layer": self.worst_layer,
            "distance_from_soup": self.distance,
            "differs": list(self.differs),
            "plan": self.plan.as_dict(),
        }


def merge_run(
    run: Run,
    wish: Preference | Direction,
    out: str | Path,
    *,
    rank: int | None = None,
    method: str = "soup",
    options: Mapping[str, float] = MappingProxyType({}),
    policy: str | None = None,
) -> Merged:
    """Write what a plan mixes for a wish as one adapter, of at most the given rank; the folder appears whole or not.

    The plan is that of the server for the same wish and policy; `options` are the numbers that the method takes, such
    as the density of "ties". The folder has one rank and one whole alpha, as every server reads them; an adapter that
    has them, and stands alone with weight 1, is written bit for bit unless options would change it. A folder that holds
    the same recipe already is left as it is.

    Raises ConfigError for an unknown method or option, for a plan that is no single mixture (one adapter per lane, a
    direction that the prompt has to state, or nothing but the base) and for a folder that holds something else;
    RunError for a run without adapters; AdapterError for adapters that the method cannot merge.
    """
    if method not in MERGES:
        raise ConfigError(unknown("merge method", method, MERGES))
    given = options_of(method, MERGES[method], options)
    plan = Planner.of(run).plan(wish, policy)
    row = single_row(run, plan)
    command = ["moalign", "merge", str(run.folder), "--prefer", _exactly(wish), "--out", str(out)]
    command += [] if rank is None else ["--rank", str(rank)]
    command += [] if method == "soup" else ["--method", method]
    command += [part for name, value in given.items() for part in ("--option", f"{name}={value!r}")]
    command += [] if policy is None else ["--policy", policy]
    return write_blend(run, plan, Path(out), shlex.join(command), row=row, rank=rank, method=method, options=given)


def single_row(run: Run, plan: Plan) -> dict[str, float]:
    """The one mixture that a plan is. Raises ConfigError, with the way out, where it is something else."""
    if plan.direction is not None:
        said = run.config.method_settings.wording(run.objectives).render(plan.direction)
        raise ConfigError(
            f"policy {plan.policy!r} states a direction in the prompt, and no merge holds it: take the adapter as it "
            f"is (moalign export) and let each prompt say {said!r}"
        )
    mixture, *others = plan.rows
    if others:
        raise ConfigError(
            f"policy {plan.policy!r} combines the outputs of {len(plan.rows)} mixtures, which no one adapter does; ask "
            "for policy 'interpolate' or 'soup'"
        )
    row = {key: weight for key, weight in mixture.items() if weight}
    if not row:
        raise ConfigError(f"policy {plan.policy!r} answers this with the base model itself: there is nothing to merge")
    return row


def blend(
    run: Run, row: Mapping[str, float], method: str, options: Mapping[str, float], rank: int | None = None
) -> Blend:
    """The adapters of a row merged, and cut to the rank where one is given; a lone one, without options, is not."""
    keys = sorted(row)  # an order that no plan decides: DARE's draws depend on it
    adapters, weights = [run.store.load(key) for key in keys], [row[key] for key in keys]
    apart = None
    if weights == [1.0] and not options:
        whole = adapters[0]
    else:
        whole = MERGES[method](adapters, weights, **options)
        if method == "factors":
            apart = distance(whole, MERGES["soup"](adapters, weights))
    if rank is None:
        return Blend(whole, distance=apart)
    cut = compress(whole, rank)
    return Blend(cut.adapter, cut.error, cut.layers, apart)


def write_blend(
    run: Run,
    plan: Plan,
    out: Path,
    command: str,
    *,
    row: Mapping[str, float],
    rank: int | None,
    method: str = "soup",
    options: Mapping[str, float] = MappingProxyType({}),
) -> Merged:
    """Merge a row into the folder `out`, in the `plain` form; one with that recipe is left as it is.

    `command` is what the record says that it came by. Raises ConfigError for a folder that holds something else.
    """
    recipe = recipe_of(run, row, method, options, rank)
    if not holds(out, recipe):
        found = plain(blend(run, row, method, options, rank))
        _write_folder(run, out, found, {"recipe": recipe, "command": command, **_facts(run, plan, row)})
    merged = read_json(out / RECORD_FILE)["merged"]
    width, error, worst, apart = (merged[name] for name in ("rank", "error", "worst_layer", "distance_from_soup"))
    return Merged(out, plan, method, width, error, worst, apart, differs(recipe, merged))


def plain(found: Blend) -> Blend:
    """The same deltas with one rank and one whole-numbered alpha in all layers; factors change only where they must."""
    adapter = uniform(found.adapter, found.rank)
    alpha = next(iter(adapter.layers.values())).scale * found.rank
    if alpha != round(alpha) or alpha < 1:  # then alpha = r, and the scale goes into B
        layers = {name: LowRank(each.A, each.B * each.scale, 1.0) for name, each in adapter.layers.items()}
        adapter = Adapter(layers, adapter.target_modules, adapter.fan_in_fan_out)
    return replace(found, adapter=adapter)


def recipe_of(
    run: Run, row: Mapping[str, float], method: str, options: Mapping[str, float], rank: int | None
) -> dict[str, Any]:
    """What a merge's weights are determined by: the parents' weights by digest, shares, method, options and rank."""
    parents = {key: {"weight": row[key], "sha256": run.store.record(key).get("sha256")} for key in row}
    return {"parents": parents, "merge": method, "options": dict(options), "rank": rank}


def holds(out: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether a folder is there with this recipe. Raises ConfigError if it is there with anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if out.is_dir() and (out / RECORD_FILE).is_file() and read_json(out / RECORD_FILE).get("recipe") == recipe:
        return True
    raise ConfigError(f"{out} exists and holds something else; choose another folder, or delete it")


def _facts(run: Run, plan: Plan, row: Mapping[str, float]) -> dict[str, Any]:
    """What is known of a mixture beside its weights: parents and what they were measured at, objectives, data, base."""
    records = [run.store.record(key) for key in row]
    points = {point.adapter: point for point in run.front() if point.row is None}
    bases = [record["base"] for record in records if "base" in record]
    if any(base["digest"] != bases[0]["digest"] for base in bases):
        raise AdapterError(f"the adapters {', '.join(row)} were trained on different base models; merge those of one")
    return {
        "base": {**(bases[0] if bases else {}), "name": base_name(run)},
        "method": run.config.method,
        "preference": None if plan.preference is None else plan.preference.weights,
        "parents": list(row),
        "measured": {key: _measured(points[key]) for key in row if key in points},
        "plan": plan.as_dict(),
        "objectives": {name: _settings(run.config.objectives[name]) for name in run.objectives},
        "data": _common(record.get("data") for record in records),
        "seed": run.config.seed,
        "versions": {"moalign": __version__, **{name: version(name) for name in ("torch", "peft")}},
    }


def _write_folder(run: Run, out: Path, found: Blend, record: Mapping[str, Any]) -> None:
    """Write adapter, record and card beside `out`, and rename them in together."""
    out = out.absolute()
    record = {
        **record,
        "merged": {
            "rank": found.rank,
            "error": found.error,
            "worst_layer": found.worst,
            "distance_from_soup": found.distance,
        },
    }
    beside = out.parent / f".{out.name}.{uuid4().hex[:8]}"
    try:
        with storing(out):
            beside.mkdir(parents=True)
        AdapterStore(beside).save(out.name, found.adapter, record, base_name(run))
        atomic_write_text(beside / out.name / "README.md", card(out.name, record))
        with storing(out):
            flush(beside / out.name)
            _move_in(beside / out.name, out, record["recipe"])
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _move_in(beside: Path, out: Path, recipe: Mapping[str, Any]) -> None:
    try:
        beside.rename(out)  # an empty folder gives way
    except OSError:
        if not holds(out, recipe):  # else another process was first
            raise


def base_name(run: Run) -> str:
    """The base as someone else would load it: a name of a hub as it is, a folder by its absolute path."""
    return str(Path(run.config.base).resolve()) if Path(run.config.base).is_dir() else run.config.base


def _exactly(wish: Preference | Direction) -> str:
    return ",".join(f"{name}={number!r}" for name, number in wish.items)


def _measured(point: ParetoPoint) -> dict[str, Any]:
    """What a point says of itself, without how it came about."""
    found = point.as_dict()
    return {key: found[key] for key in ("preference", "values", "intervals")}


def _settings(objective: ObjectiveSettings) -> dict[str, Any]:
    """What was set, and a built-in type's defaults: units are among them."""
    given = objective.model_dump(mode="json", exclude_none=True)
    own = fields(OBJECTIVES[given["type"]]) if given.get("type") in OBJECTIVES else ()
    return given | {f.name: f.default for f in own if f.name not in given and f.default not in (MISSING, None)}


def _common(values: Iterable[Any]) -> Any:
    """The value that all have, or all values where they differ."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different
