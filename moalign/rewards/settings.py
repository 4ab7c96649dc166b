"""The settings of `moalign reward-model`. `examples/configs/reward_model.yaml` is a commented example."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, FiniteFloat, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, model_validator

from moalign.beginning import placed
from moalign.config import AdapterSettings
from moalign.errors import ConfigError
from moalign.settings import Settings, explain, read_yaml


class HeadSettings(Settings):
    """One head: the attribute of the data that it learns, times `scale`."""

    column: str
    scale: FiniteFloat = 1.0  # negative for an attribute whose high value is bad

    @model_validator(mode="after")
    def _moves(self) -> "HeadSettings":
        if self.scale == 0:
            raise ValueError("scale is 0, so every label would be 0")
        return self


class SourceSettings(Settings):
    """One source of scored responses."""

    scores: str  # rows of prompt, response and a mapping `scores`
    columns: list[str] | None = Field(default=None, min_length=1)  # numeric fields, where there is no such mapping
    names: dict[str, str] = Field(default={})  # from the source's own name of an attribute to one of another


class FineTuning(Settings):
    """How base (or adapters on it) and heads are trained together, once the heads have been solved for."""

    epochs: PositiveFloat = 2.0
    steps: PositiveInt | None = None  # instead of epochs
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 5e-5
    weight_decay: NonNegativeFloat = 0.01
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of the steps
    max_gradient_norm: PositiveFloat = 1.0
    validation: float = Field(default=0.1, gt=0, lt=1)  # share of the prompts not held out, to choose the epoch on

    def steps_for(self, rows: int) -> int:
        """Steps over so many rows."""
        return self.steps or max(1, round(self.epochs * self.epoch_of(rows)))

    def epoch_of(self, rows: int) -> int:
        """Steps that read each row once; the last incomplete batch is left out."""
        return max(1, rows // self.batch_size)


class RewardModelConfig(Settings):
    """A whole reward model."""

    base: str  # an encoder or a causal language model
    data: list[SourceSettings] = Field(min_length=1)
    heads: dict[str, HeadSettings] = Field(default={})  # by name; otherwise every attribute of the data
    train: Literal["heads", "lora", "all"] = "all"
    penalty: NonNegativeFloat | None = None  # of the heads' weights; otherwise, for each head, the best across folds
    finetune: FineTuning | None = None  # for `train: lora` and `train: all`
    adapter: AdapterSettings | None = None  # for `train: lora`
    holdout: float = Field(default=0.2, ge=0, lt=1)  # share of the prompts that the report is about
    max_length: PositiveInt | None = None  # tokens of prompt and response; longer rows are left out and counted
    limit: PositiveInt | None = None  # rows read of each source
    separator: str = ""  # between prompt and response of plain text
    skip_bad_rows: bool = False
    batch_size: PositiveInt = 32  # texts read at once, where nothing is learnt
    seed: int = Field(default=0, ge=0, lt=2**63)
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        """A source by its path alone; heads by their names, or by name and column."""
        if not isinstance(values, dict):
            return values
        data, heads = values.get("data"), values.get("heads")
        if isinstance(data, str | dict):
            data = [data]
        if isinstance(data, list):
            data = [{"scores": item} if isinstance(item, str) else item for item in data]
        if isinstance(heads, list):
            twice = next((name for name in heads if heads.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"heads: {twice!r} stands there twice; expected other names")
            heads = {str(name): str(name) for name in heads}
        if isinstance(heads, dict):
            heads = {name: {"column": item} if isinstance(item, str) else item for name, item in heads.items()}
        return {**values, **({"data": data} if data else {}), **({"heads": heads} if heads else {})}

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "RewardModelConfig":
        if self.train == "heads" and self.finetune is not None:
            raise ValueError("'train: heads' leaves the base as it is and reads no 'finetune'; expected 'train: all'")
        if self.train != "lora" and self.adapter is not None:
            raise ValueError(f"'train: {self.train}' reads no 'adapter'; expected 'train: lora'")
        if self.train == "all" and self.dtype != "float32":
            raise ValueError(f"'train: all' learns in float32, and dtype is {self.dtype}; expected heads or lora")
        for source in self.data:
            if len(set(source.names.values())) < len(source.names):
                raise ValueError(f"names of {source.scores} gives two attributes one name; expected different ones")
        return self

    @property
    def tuning(self) -> FineTuning | None:
        """How more than the heads is trained; None when the base stays as it is."""
        return None if self.train == "heads" else self.finetune or FineTuning()

    def to_yaml(self) -> str:
        """The resolved settings, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def load_reward_config(path: str | Path) -> RewardModelConfig:
    """Read a YAML file; paths are taken from where it stands.

    Raises ConfigError with one line: the file, the key, what was expected.
    """
    path = Path(path)
    values = read_yaml(path, "'base' and 'data'")
    folder = path.resolve().parent
    if isinstance(values.get("base"), str):
        values["base"] = placed(values["base"], folder)
    try:
        config = RewardModelConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + explain(error, RewardModelConfig)) from None
    sources = [source.model_copy(update={"scores": placed(source.scores, folder)}) for source in config.data]
    return config.model_copy(update={"data": sources})
