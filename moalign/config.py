"""The sweep's settings: one YAML file, every key known, every path resolved.

A key that nobody reads is an error that names its near neighbour. Paths are taken relative to the file they stand in.
"""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from moalign.errors import ConfigError, unknown
from moalign.front_settings import ExplorerSettings, FillSettings
from moalign.methods import METHODS
from moalign.settings import Settings, explain, read_yaml


class ObjectiveSettings(BaseModel):
    """One objective: how it is scored, where its preferences come from, or both.

    Without `type` it is learned from its pairs, as the implicit reward of a DPO adapter. Without pairs or scores, its
    pairs are made by scoring the responses of the others. Keys beyond these belong to the objective's type.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str | None = None
    pairs: str | None = None
    scores: str | None = None
    column: str | int | None = None  # of `scores`, when it is not a mapping by objective; else the type's own

    @model_validator(mode="after")
    def _has_a_source(self) -> "ObjectiveSettings":
        if self.pairs and self.scores:
            raise ValueError("give either 'pairs' or 'scores', not both")
        if self.column is not None and not (self.scores or self.type):
            raise ValueError("'column' is a column of 'scores', which is not given")
        if not (self.type or self.pairs or self.scores):
            raise ValueError("needs 'type' (how to score it), or 'pairs' or 'scores' (what to learn it from)")
        if self.extras and not self.type:
            raise ValueError(unknown("key", next(iter(self.extras)), ["type", "pairs", "scores", "column"]))
        return self

    @property
    def extras(self) -> dict[str, Any]:
        """The settings of the objective's own type."""
        column = {} if self.column is None or self.scores else {"column": self.column}
        return {**column, **(self.model_extra or {})}


class PreferenceSettings(Settings):
    """Which preferences to train: exactly one of these."""

    lattice: PositiveInt | None = None  # all multiples of 1/lattice; 10 gives 11 points for two objectives
    corners: Literal[True] | None = None
    riesz: PositiveInt | None = None  # that many well-spread points, for many objectives
    points: list[dict[str, float]] | None = Field(default=None, alias="list")

    @model_validator(mode="after")
    def _exactly_one(self) -> "PreferenceSettings":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of lattice, corners, riesz, list")
        return self


class SampleSettings(Settings):
    """Responses drawn from the base model, for objectives that are scored and have no pairs."""

    prompts: str
    per_prompt: int = Field(default=16, ge=2)


class DataSettings(Settings):
    """What is common to all data of the sweep."""

    responses: SampleSettings | str | None = None  # the pool that objectives without pairs of their own are judged on
    train_prompts: str | None = None  # for rollouts; otherwise the prompts of the pairs, scores or responses
    prompts: str | None = None  # to evaluate on; otherwise the held-out prompts
    holdout: float = Field(default=0.1, ge=0, lt=1)  # share of the prompts kept from training
    limit: PositiveInt | None = None  # rows read of each source
    pairs_per_prompt: PositiveInt = 8  # drawn from scored responses
    labels: Literal["observed", "bradley_terry"] = "observed"  # of pairs made from scores
    max_length: PositiveInt | None = None  # tokens of prompt and response; longer pairs are left out and counted
    separator: str = ""  # between prompt and response of plain text
    skip_bad_rows: bool = False


class AdapterSettings(Settings):
    """The LoRA adapters, as PEFT names their settings."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0  # the scale is alpha / rank
    target_modules: str | list[str] = "all-linear"


class EvaluationSettings(Settings):
    """How each adapter is measured."""

    prompts: PositiveInt = 64  # at most
    samples: PositiveInt = 4  # responses per prompt
    max_new_tokens: PositiveInt = 128
    temperature: PositiveFloat = 1.0  # of the texts; KL is of the policy at 1, and exact only there
    batch_size: PositiveInt = 256  # sequences generated at once


class SweepConfig(Settings):
    """A whole sweep. `examples/configs/` holds commented examples."""

    base: str
    objectives: dict[str, ObjectiveSettings] = Field(min_length=2)
    preferences: PreferenceSettings = PreferenceSettings(lattice=10)
    explorer: str | ExplorerSettings = "grid"
    method: str = "modpo"
    settings: dict[str, Any] = Field(default_factory=dict)  # of the method
    adapter: AdapterSettings = AdapterSettings()
    data: DataSettings = DataSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    reference_point: dict[str, FiniteFloat] | None = None  # of the hypervolume; otherwise two deviations below the base
    fill: FillSettings = FillSettings()
    oracle: str | None = None  # package.module:function that lists every answer to a prompt
    seed: int = 0
    group_size: PositiveInt | Literal["auto"] = "auto"  # preferences trained side by side
    memory_gb: PositiveFloat | None = None  # for activations; otherwise 60 % of what is free
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    device: str = "auto"
    dtype: str = "auto"
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] = Field(default_factory=list)
    folder: str | None = None  # where functions and classes of your own are looked for too; that of the config

    @model_validator(mode="after")
    def _names_agree(self) -> "SweepConfig":
        if self.method not in METHODS:
            raise ValueError(unknown("method", self.method, METHODS))
        for name in self.objectives:
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(
                    f"objective {name!r} needs another name: letters, digits, - and _ only, since it becomes part of "
                    "folder names and of NAME=WEIGHT"
                )
        for name in self.reference_point or {}:
            if name not in self.objectives:
                raise ValueError("reference_point: " + unknown("objective", name, self.objectives))
        if self.reference_point and len(self.reference_point) < len(self.objectives):
            missing = sorted(set(self.objectives) - set(self.reference_point))
            raise ValueError(f"reference_point lacks {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _explorer_has_adapters(self) -> "SweepConfig":
        explorer = self.explorer_settings
        if explorer.adaptive and METHODS[self.method].adapters != "each":
            raise ValueError(
                f"explorer {explorer.type!r} asks for adapters one after another, and method {self.method!r} trains "
                "none for single preferences; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _can_score_at_once(self) -> "SweepConfig":
        learned = [name for name, settings in self.objectives.items() if settings.type is None]
        if METHODS[self.method].together and learned:
            raise ValueError(
                f"method {self.method!r} trains all mixtures at once, and objective {learned[0]!r} has no 'type' to "
                "score with before its corner is trained; give it one, or use method 'soup'"
            )
        return self

    @property
    def explorer_settings(self) -> ExplorerSettings:
        """Who says which preferences are trained."""
        return ExplorerSettings(type=self.explorer) if isinstance(self.explorer, str) else self.explorer

    @property
    def own_folder(self) -> Path | None:
        """Where functions and classes of the user's own are looked for, beside what is installed."""
        return None if self.folder is None else Path(self.folder)

    @property
    def method_settings(self) -> Any:
        """The method's own settings, checked."""
        return METHODS[self.method].Settings.model_validate(self.settings)

    def to_yaml(self) -> str:
        """The resolved settings, defaults included."""
        values = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        values["settings"] = self.method_settings.model_dump(mode="json")
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


# Settings that change where or how fast a sweep runs, and not what it finds.
_INCIDENTAL = {"fill", "group_size", "memory_gb", "checkpoint_seconds", "device", "trackers", "folder"}


def differing(one: SweepConfig, other: SweepConfig) -> list[str]:
    """The names of the settings in which two sweeps differ, incidental ones aside."""
    first, second = (yaml.safe_load(config.to_yaml()) for config in (one, other))
    names = dict.fromkeys([*first, *second])
    return [name for name in names if name not in _INCIDENTAL and first.get(name) != second.get(name)]


def load_config(path: str | Path) -> SweepConfig:
    """Read a YAML file. Raises ConfigError with one line: the file, the key, what was expected."""
    path = Path(path)
    return parse_config(_resolve(read_yaml(path, "'base' and 'objectives'"), path.resolve().parent), str(path))


def parse_config(values: dict[str, Any], where: str = "config") -> SweepConfig:
    """Check settings given as a mapping; `where` names their origin in errors."""
    try:
        config = SweepConfig.model_validate(values)
        at = "settings."
        _ = config.method_settings
    except ValidationError as error:
        model = METHODS[values.get("method", "modpo")].Settings if "at" in locals() else SweepConfig
        raise ConfigError(f"{where}: " + explain(error, model, locals().get("at", ""))) from None
    return config


def _resolve(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make every path absolute that exists beside the config; names of a hub stay as they are."""

    def path(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, colon, split = value.partition(":")
        found = folder / Path(name).expanduser()
        return str(found.resolve()) + colon + split if found.exists() else value

    def local(value: Any) -> Any:
        return str((folder / Path(value).expanduser()).resolve()) if isinstance(value, str) else value

    values = {"folder": str(folder)} | values
    if "base" in values:
        values["base"] = path(values["base"])
    if isinstance(values.get("objectives"), dict):
        values["objectives"] = {
            name: {key: path(item) if key in ("pairs", "scores", "model") else item for key, item in entry.items()}
            if isinstance(entry, dict)
            else entry
            for name, entry in values["objectives"].items()
        }
    data = values.get("data")
    if isinstance(data, dict):
        files = ("responses", "prompts", "train_prompts")
        data = {key: path(item) if key in files else item for key, item in data.items()}
        if isinstance(data.get("responses"), dict):
            data["responses"] = {key: path(item) for key, item in data["responses"].items()}
        values["data"] = data

    def adapters(settings: Any) -> Any:
        # Adapters are folders and no names of a hub; the same path, whether it is there or the run has its copy by now.
        if not isinstance(settings, dict):
            return settings
        found = {key: local(item) if key == "start" else item for key, item in settings.items()}
        if isinstance(found.get("reference"), dict):
            found["reference"] = {local(name): weight for name, weight in found["reference"].items()}
        return found | ({"settings": adapters(found["settings"])} if "settings" in found else {})

    return values | ({"settings": adapters(values["settings"])} if "settings" in values else {})
