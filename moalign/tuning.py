"""Supervised fine-tuning from a config to a run folder: one adapter per seed, to mix references of (SALSA).

config.yaml      the resolved settings
origin.json      digests of the data and the base that the adapters are made from
adapters/seed-0/ PEFT folder + record.json; so for every seed
checkpoints/     the state of what is in training
quarantine/      bad rows that were set aside
metrics.jsonl    a line per logged step and per adapter

It may be killed at any instant and given again.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, PositiveInt, ValidationError, field_validator

from moalign import __version__
from moalign.batches import Completions
from moalign.beginning import begin, placed
from moalign.claims import claim
from moalign.config import AdapterSettings
from moalign.data import load_completions, split_by_prompt, tokenize_texts
from moalign.errors import ConfigError, DataError, RunError
from moalign.files import append_line, digest, read_json, write_json
from moalign.logprobs import Scorer
from moalign.methods.sft import Demonstrations, SftSettings, heldout_losses, train
from moalign.models import BaseModel, adapter_factory, describe, load_base
from moalign.progress import Reporter
from moalign.settings import Settings, explain, read_yaml
from moalign.store import AdapterStore
from moalign.workplace import Workplace

_MADE = ("adapters", "checkpoints")  # what depends on the settings
_INCIDENTAL = {"checkpoint_seconds", "device"}  # settings that do not change what is found
_SPLIT_SEED = 0  # not one of `seeds`: the prompts held out are the same for all of them
_LOG_STEPS = 10


class SftConfig(Settings):
    """A whole fine-tuning. `examples/configs/sft.yaml` is a commented example."""

    base: str
    data: str  # rows of prompt and completion, or of messages
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(default=[0, 1], min_length=1)
    limit: PositiveInt | None = None  # rows read
    holdout: float = Field(default=0.1, ge=0, lt=1)  # share of the prompts kept from training
    max_length: PositiveInt | None = None  # tokens of prompt and response; longer rows are left out and counted
    separator: str = ""  # between prompt and response of plain text
    skip_bad_rows: bool = False
    adapter: AdapterSettings = AdapterSettings()
    settings: SftSettings = SftSettings()
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    device: str = "auto"
    dtype: str = "auto"

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands there twice, and would give the same adapter twice; expected other seeds")
        return seeds

    def to_yaml(self) -> str:
        """The resolved settings, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def load_sft_config(path: str | Path) -> SftConfig:
    """Read a YAML file; paths are taken from where it stands.

    Raises ConfigError with one line: the file, the key, what was expected.
    """
    path = Path(path)
    values = read_yaml(path, "'base' and 'data'")
    for key in ("base", "data"):
        if isinstance(values.get(key), str):
            values[key] = placed(values[key], path.resolve().parent)
    try:
        return SftConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + explain(error, SftConfig)) from None


def run_sft(config: SftConfig, folder: str | Path, reporter: Reporter | None = None) -> dict[str, Path]:
    """Train one adapter per seed of `config`; begin the run in `folder` or continue it. The adapters' folders by key.

    A finished run is left as it is. Raises a UserError with one clear line for whatever the user can mend; the run
    then stays resumable.
    """
    folder, reporter = Path(folder), reporter or Reporter(quiet=True)
    begin(
        folder,
        config,
        config.to_yaml(),
        load=load_sft_config,
        command="moalign sft",
        made=_MADE,
        incidental=_INCIDENTAL,
    )
    store = AdapterStore(folder / "adapters")
    with claim(folder / "claims", "sft") as mine:
        if not mine:
            raise RunError(f"{folder} is being trained by another process; wait for it, or choose another --out")
        with reporter.running():
            _Tuning(folder, config, store, reporter).finish()
    return {key: store.folder / key for key in map(_key, config.seeds)}


def summarise_sft(folders: Mapping[str, Path]) -> dict[str, Any]:
    """What is known of finished adapters: where each is, and its loss on held-out prompts, before and after."""
    records = {key: AdapterStore(folder.parent).record(key) for key, folder in folders.items()}
    return {
        "adapters": {
            key: {"folder": str(folders[key]), "heldout_loss": record["heldout_loss"]}
            for key, record in records.items()
        }
    }


def _key(seed: int) -> str:
    return f"seed-{seed}"


class _Tuning:
    """One run, on its way to all of its adapters."""

    def __init__(self, folder: Path, config: SftConfig, store: AdapterStore, reporter: Reporter):
        self.folder, self.config, self.store, self.reporter = folder, config, store, reporter
        self.checkpoints = folder / "checkpoints"

    def finish(self) -> None:
        """Read, train, measure and store, as far as that has not been done."""
        completions = self._read()
        contents = [list(completions.prompts), list(completions.responses), self.config.separator]
        data_digest = digest(json.dumps(contents))
        self._same_as_before("data", data_digest)
        left = [seed for seed in self.config.seeds if _key(seed) not in self.store]
        if left:
            base = load_base(self.config.base, device=self.config.device, dtype=self.config.dtype)
            self._same_as_before("base", base.digest)
            if not self._made():
                write_json(self.folder / "origin.json", {"data": data_digest, "base": base.digest})
            self._train(left, base, completions, data_digest)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _read(self) -> Completions:
        quarantine = self.folder / "quarantine" / "data.jsonl" if self.config.skip_bad_rows else None
        loaded = load_completions(self.config.data, limit=self.config.limit, quarantine=quarantine)
        if loaded.skipped:
            self.reporter.notice(f"{loaded.skipped} bad rows set aside in {quarantine}")
        return loaded.completions

    def _made(self) -> bool:
        return any((self.folder / name).exists() for name in _MADE)

    def _same_as_before(self, what: str, found: str) -> None:
        """Adapters of one run are made from the same data and base, by content; a path may hold others by now."""
        path = self.folder / "origin.json"
        if path.is_file() and self._made() and read_json(path)[what] != found:
            raise RunError(
                f"the {what} of {self.folder} changed since it was begun; choose another folder with --out, or delete "
                "this one"
            )

    def _train(self, left: list[int], base: BaseModel, completions: Completions, data_digest: str) -> None:
        demonstrations, held = self._tokenised(base, completions)
        checkpoint = self._checkpoint(self.config.seeds)
        if checkpoint.is_file():  # it holds all seeds
            left = self.config.seeds
        else:
            checkpoint = self._checkpoint(left)
        settings = self.config.adapter
        fresh = adapter_factory(base, rank=settings.rank, alpha=settings.alpha, target_modules=settings.target_modules)
        workplace = self._workplace(base, checkpoint)
        adapters = train({seed: fresh(seed) for seed in left}, demonstrations, workplace, self.config.settings)
        losses = heldout_losses(adapters, held, workplace)
        steps = self.config.settings.steps_for(len(demonstrations))
        for seed in left:
            record = self._record(seed, base, data_digest) | {"steps": steps, "heldout_loss": losses[seed]}
            self.store.save(_key(seed), adapters[seed], record, base.name)
            self._log("adapter", adapter=_key(seed), heldout_loss=losses[seed])

    def _tokenised(self, base: BaseModel, completions: Completions) -> tuple[Demonstrations, Demonstrations]:
        """Token ids of the rows that fit: those to train on, and those held out."""
        config, total = self.config, len(completions)
        both = tokenize_texts(
            completions.prompts, completions.responses, base.tokenizer, config.separator, base.eos_ids
        )
        every = Demonstrations(*both)
        longest = min(config.max_length or base.context, base.context)
        kept = [i for i, length in enumerate(every.lengths) if length <= longest]
        if not kept:
            raise DataError(
                f"{config.data}: all {total} rows are longer than {longest} tokens, the shortest has "
                f"{min(every.lengths)}; raise max_length as far as the base model reads, or use shorter texts"
            )
        if len(kept) < total:
            self.reporter.notice(f"{total - len(kept)} of {total} rows are longer than {longest} tokens and left out")
        sides = split_by_prompt([completions.prompts[i] for i in kept], config.holdout, _SPLIT_SEED)
        own, held = (every.select([kept[i] for i in side]) for side in sides)
        return own, held

    def _checkpoint(self, seeds: Sequence[int]) -> Path:
        return self.checkpoints / f"{digest(*map(str, seeds))[:12]}.safetensors"

    def _workplace(self, base: BaseModel, checkpoint: Path) -> Workplace:
        def on_step(step: int, steps: int, numbers: dict[str, float]) -> None:
            self.reporter.bar("training", step, steps, f"loss {numbers['loss']:.3f}")
            if step % _LOG_STEPS == 0 or step == steps:
                self._log("step", step=step, **numbers)

        return Workplace(
            scorer=Scorer.of(base.model),
            pad_id=base.pad_id,
            objectives=(),
            data={},
            seed=_SPLIT_SEED,
            checkpoint=checkpoint,
            checkpoint_seconds=self.config.checkpoint_seconds,
            on_step=on_step,
            notice=self.reporter.notice,
        )

    def _record(self, seed: int, base: BaseModel, data_digest: str) -> dict[str, Any]:
        packages = ("torch", "transformers", "peft")
        return {
            "base": describe(base),
            "method": "sft",
            "settings": self.config.settings.model_dump(mode="json"),
            "seed": seed,
            "data": data_digest,
            "parents": [],
            "versions": {"moalign": __version__, **{name: version(name) for name in packages}},
        }

    def _log(self, kind: str, **values: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **values})
        append_line(self.folder / "metrics.jsonl", line)
