"""A reward model of several heads from a config to a run folder: regression on scored responses, labels masked.

config.yaml      the resolved settings
origin.json      digests of the data and the base that the model is made from
model/           what the objective `reward_model` reads: a transformers folder, with record.json and a card
checkpoints/     the state of what is in training
quarantine/      bad rows that were set aside
metrics.jsonl    a line per logged step and per epoch

It may be killed at any instant and given again.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float

from moalign import __version__
from moalign.batches import Completions
from moalign.beginning import begin
from moalign.claims import claim
from moalign.config import AdapterSettings
from moalign.errors import DataError, RunError
from moalign.files import append_line, atomic_write_bytes, flush, read_json, storing, write_json
from moalign.memory import in_parts, release
from moalign.objectives import RewardModel
from moalign.objectives.reward_model import input_ids
from moalign.progress import Reporter
from moalign.rewards.adapter import merge, put_on
from moalign.rewards.card import card
from moalign.rewards.data import Labelled, Sides, read_labelled, split_labelled
from moalign.rewards.encoder import Encoder, features_of, load_encoder
from moalign.rewards.fitting import Fit, Rows, Surroundings
from moalign.rewards.heads import Heads, solve_heads
from moalign.rewards.metrics import agreement
from moalign.rewards.settings import RewardModelConfig, load_reward_config

MODEL, RECORD = "model", "record.json"
_MADE = (MODEL, "checkpoints")  # what depends on the settings
_INCIDENTAL = {"checkpoint_seconds", "device", "batch_size"}  # settings that do not change what is found
_LOG_STEPS = 10
_READ_TOGETHER = 2048  # rows that all heads score in turn; the objective remembers what it has read of as many


def run_reward_model(config: RewardModelConfig, folder: str | Path, reporter: Reporter | None = None) -> Path:
    """Make the reward model of `config`; begin the run in `folder` or continue it. The folder of the model.

    A finished run is left as it is. Raises a UserError with one clear line for whatever the user can mend; the run
    then stays resumable.
    """
    folder, reporter = Path(folder), reporter or Reporter(quiet=True)
    begin(
        folder,
        config,
        config.to_yaml(),
        load=load_reward_config,
        command="moalign reward-model",
        made=_MADE,
        incidental=_INCIDENTAL,
    )
    with claim(folder / "claims", "reward-model") as mine:
        if not mine:
            raise RunError(f"{folder} is being trained by another process; wait for it, or choose another --out")
        with reporter.running():
            _Making(folder, config, reporter).finish()
    return folder / MODEL


def summarise_reward_model(model: Path) -> dict[str, Any]:
    """What is known of a finished reward model: where it is, and how each head does on held-out rows."""
    record = read_json(model / RECORD)
    return {"model": str(model), "rows": record["rows"], "heads": record["heads"]}


@dataclass(frozen=True)
class _Saved:
    """What was made, apart from the model itself, which is in its folder by now."""

    base: dict[str, str]
    max_length: int
    data: Labelled  # rows that fit
    sides: Sides
    overlong: int
    heads: Heads  # in the labels' units
    offset: Float[np.ndarray, " m"]  # to be added to the saved model's rewards
    steps: int | None  # behind the weights that were kept; None where only heads were solved for


class _Making:
    """One run, on its way to its model."""

    def __init__(self, folder: Path, config: RewardModelConfig, reporter: Reporter):
        self.folder, self.config, self.reporter = folder, config, reporter
        self.checkpoints, self.beside = folder / "checkpoints", folder / f".{MODEL}"

    def finish(self) -> None:
        """Read, fit, save, and measure what was saved, as far as that has not been done."""
        data = read_labelled(self.config, self.folder / "quarantine", self.reporter.notice)
        self._same_as_before("data", data.digest)
        if not (self.folder / MODEL).exists():
            shutil.rmtree(self.beside, ignore_errors=True)
            saved = self._make(data)
            release()  # the saved model is read next, and need not find room beside this one
            record = self._record(saved, data.digest, self._measure(saved))
            write_json(self.beside / RECORD, record)
            (self.beside / "README.md").write_text(card(record), encoding="utf-8")
            flush(self.beside)
            with storing(self.folder / MODEL):
                self.beside.rename(self.folder / MODEL)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _same_as_before(self, what: str, found: str) -> None:
        """One model is made from the same data and base, by content; a path may hold others by now."""
        path = self.folder / "origin.json"
        made = any((self.folder / name).exists() for name in _MADE)
        if path.is_file() and made and read_json(path).get(what, found) != found:
            raise RunError(
                f"the {what} of {self.folder} changed since it was begun; choose another folder with --out, or delete "
                "this one"
            )

    def _make(self, data: Labelled) -> _Saved:
        config = self.config
        encoder = load_encoder(
            config.base,
            data.heads,
            max_length=config.max_length,
            device=config.device,
            dtype=config.dtype,
            seed=config.seed,
        )
        self._same_as_before("base", encoder.digest)
        if not self.checkpoints.exists():
            write_json(self.folder / "origin.json", {"data": data.digest, "base": encoder.digest})
        fitting, inputs = self._that_fit(data, encoder)
        sides = split_labelled(fitting, config.holdout, config.tuning.validation if config.tuning else 0.0)
        heads, steps = self._fit(encoder, fitting, inputs, sides)
        with storing(self.beside):
            offset = encoder.save(self.beside, heads)
        base = {"name": encoder.name, "digest": encoder.digest, "architecture": type(encoder.model).__name__}
        return _Saved(base, encoder.longest, fitting, sides, len(data) - len(fitting), heads, offset, steps)

    def _that_fit(self, data: Labelled, encoder: Encoder) -> tuple[Labelled, list[list[int]]]:
        """The rows that are not too long, and their token ids."""
        texts = zip(data.prompts, data.responses, strict=True)
        inputs = [input_ids(encoder.tokenizer, *pair, self.config.separator) for pair in texts]
        kept = [i for i, ids in enumerate(inputs) if len(ids) <= encoder.longest]
        if not kept:
            raise DataError(
                f"all {len(inputs)} rows are longer than {encoder.longest} tokens, the shortest has "
                f"{min(map(len, inputs))}; raise max_length as far as the base model reads, or use shorter texts"
            )
        if len(kept) < len(inputs):
            self.reporter.notice(
                f"{len(inputs) - len(kept)} of {len(inputs)} rows are longer than {encoder.longest} tokens and left out"
            )
        return data.select(kept), [inputs[i] for i in kept]

    def _fit(
        self, encoder: Encoder, data: Labelled, inputs: Sequence[list[int]], sides: Sides
    ) -> tuple[Heads, int | None]:
        """The heads in the labels' units, and the steps of training behind them; the encoder is trained in place."""
        own = data.labels[sides.training]
        mean, deviation = np.nanmean(own, axis=0), np.nanstd(own, axis=0)
        training, validation = (
            Rows([inputs[i] for i in side], (data.labels[side] - mean) / deviation) for side in sides[:2]
        )
        features = self._features(encoder, training.inputs)
        heads = solve_heads(features, training.labels, data.select(sides.training).prompt_keys, self.config.penalty)
        steps, tuning = None, self.config.tuning
        if tuning is not None:
            if self.config.train == "all":
                encoder.model.requires_grad_(True)
            else:
                put_on(encoder.model, self.config.adapter or AdapterSettings(), self.config.seed)
            fit = Fit(encoder, heads, tuning, self.config.seed, self._surroundings())
            steps = fit.run(training, validation)
            heads = fit.heads
            if self.config.train == "lora":
                merge(encoder.model)
        return Heads(heads.weight * deviation[:, None], heads.bias * deviation + mean, heads.penalty), steps

    def _features(self, encoder: Encoder, inputs: Sequence[list[int]]) -> Float[np.ndarray, "n d"]:
        """The features of all inputs; what was read before a stop is not read again."""
        order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
        found: list[Float[np.ndarray, " d"]] = []
        while (path := self.checkpoints / f"features-{len(found)}.safetensors").is_file():
            found += list(safetensors.torch.load_file(path)["features"].double().numpy())
        kept, clock, size = len(found), time.monotonic(), self.config.batch_size

        def halved(smaller: int) -> None:
            nonlocal size
            size = smaller

        while len(found) < len(order):
            part = [inputs[i] for i in order[len(found) : len(found) + size]]
            found += in_parts(part, lambda some: features_of(encoder, some), size, self.reporter.notice, halved)
            self.reporter.bar("reading", len(found), len(order))
            if len(found) == len(order) or time.monotonic() - clock >= self.config.checkpoint_seconds:
                tensors = {"features": torch.tensor(np.array(found[kept:]), dtype=torch.float32)}
                path = self.checkpoints / f"features-{kept}.safetensors"
                atomic_write_bytes(path, safetensors.torch.save(tensors))
                kept, clock = len(found), time.monotonic()
        return np.array(found)[np.argsort(order)]

    def _surroundings(self) -> Surroundings:
        def on_step(step: int, steps: int, numbers: dict[str, float]) -> None:
            self.reporter.bar("training", step, steps, f"loss {numbers['loss']:.3f}")
            if step % _LOG_STEPS == 0 or step == steps:
                self._log("step", step=step, **numbers)

        return Surroundings(
            folder=self.checkpoints,
            checkpoint_seconds=self.config.checkpoint_seconds,
            batch_size=self.config.batch_size,
            notice=self.reporter.notice,
            on_step=on_step,
            on_epoch=lambda epoch, loss: self._log("epoch", epoch=epoch, validation_loss=loss),
        )

    def _measure(self, saved: _Saved) -> list[dict[str, Any] | None]:
        """Each head on the held-out rows, as the objective scores them from the saved folder."""
        held = saved.data.select(saved.sides.heldout)
        heads = [
            RewardModel(name, str(self.beside), number, 1.0, self.config.separator, self.config.batch_size)
            for number, name in enumerate(held.heads)
        ]
        parts = []
        for start in range(0, len(held), _READ_TOGETHER):
            rows = slice(start, start + _READ_TOGETHER)
            texts = Completions(held.prompts[rows], held.responses[rows])
            parts.append(np.stack([head.score(texts) for head in heads], axis=1))
        rewards = np.concatenate(parts) + saved.offset if parts else held.labels
        return [agreement(rewards[:, j], held.labels[:, j], held.prompt_keys) for j in range(len(heads))]

    def _record(self, saved: _Saved, data: str, found: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
        labels, packages = saved.data.labels[saved.sides.training], ("torch", "transformers")
        config = self.config.model_dump(mode="json", include={"train", "penalty", "seed", "separator"})
        return {
            "method": "reward_model",
            "base": saved.base,
            "data": data,
            "settings": config | {"finetune": self.config.tuning and self.config.tuning.model_dump(mode="json")},
            "max_length": saved.max_length,
            "steps": saved.steps,
            "rows": dict(zip(Sides._fields, map(len, saved.sides), strict=True)) | {"overlong": saved.overlong},
            "heads": {
                name: {
                    "offset": float(saved.offset[j]),
                    "label_mean": float(np.nanmean(labels[:, j])),
                    "label_deviation": float(np.nanstd(labels[:, j])),
                    "labels": int((~np.isnan(labels[:, j])).sum()),
                    "penalty": float(saved.heads.penalty[j]),
                    "heldout": found[j],
                }
                for j, name in enumerate(saved.data.heads)
            },
            "versions": {"moalign": __version__, **{name: version(name) for name in packages}},
        }

    def _log(self, kind: str, **values: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **values})
        append_line(self.folder / "metrics.jsonl", line)
