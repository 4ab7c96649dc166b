"""Any sequence-classification model as an objective: one of its heads reads prompt and response."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from moalign.batches import Completions, Prompt
from moalign.errors import ConfigError, ObjectiveError, unknown
from moalign.files import file_digest
from moalign.objectives.base import fingerprint

if TYPE_CHECKING:  # importing transformers takes seconds, which rules need not pay
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a saved model is made of; a README beside it does not change its scores.
_CONTENTS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_REMEMBERED = 4096  # texts whose logits are kept: those of one batch of rollouts, for the model's other heads


@dataclass(frozen=True)
class RewardModel:
    """One head of a sequence-classification model, times `scale`.

    score(x, y) = scale * logits(x, y)[column]

    `model` is a folder or a hub name; `column` is the head's number, or its label in the model's id2label; a negative
    `scale` turns a head whose high value is bad. The score is the logit itself, in the model's own unit.

    A conversational prompt goes through the model's chat template if it has one; otherwise, and for plain text, prompt,
    `separator` and response are joined (the messages of a conversation by blank lines). The empty response is scored
    like any other. Inputs are padded on the right, and read one by one where the model has no padding token, since it
    could not tell padding from text. Raises ObjectiveError if the model cannot be loaded, has no such head, or an input
    is longer than it reads: nothing is ever cut. The model is loaded when it is first needed; objectives of one model
    share it, and what one of them has just had it read, the others do not have it read again.

    >>> RewardModel("safe", "models/guard", column="toxic", scale=-1.0).name
    'safe'
    """

    name: str
    model: str
    column: int | str = 0
    scale: float = 1.0
    separator: str = ""
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"objective {self.name!r}: batch_size is {self.batch_size}; expected at least 1")
        if self.scale == 0:
            raise ConfigError(f"objective {self.name!r}: scale is 0, so every score would be 0")

    @cached_property
    def fingerprint(self) -> str:
        """The model's files (or the commit of a hub name) and every setting but the batch size."""
        folder = Path(self.model).is_dir()
        content = self._files if folder else {self.model: str(self._classifier.config._commit_hash)}
        settings = {"column": self.column, "scale": self.scale, "separator": self.separator}
        return fingerprint("reward_model", content=content, **settings)

    def score(self, completions: Completions) -> Float[np.ndarray, " n"]:
        """scale * logit for each completion."""
        inputs = [
            input_ids(self._tokenizer, prompt, response, self.separator)
            for prompt, response in zip(completions.prompts, completions.responses, strict=True)
        ]
        self._check_lengths(inputs)
        return self.scale * self._shared.logits(inputs, self.batch_size)[:, self._column]

    def _check_lengths(self, inputs: list[list[int]]) -> None:
        limits = (self._tokenizer.model_max_length, getattr(self._classifier.config, "max_position_embeddings", None))
        limit = min(number for number in limits if number is not None)
        longest = max(map(len, inputs), default=0)
        if longest > limit:
            over = sum(len(ids) > limit for ids in inputs)
            raise ObjectiveError(
                f"objective {self.name!r}: {over} of {len(inputs)} inputs are longer than the {limit} tokens that "
                f"{self.model} reads (the longest has {longest}), and none is cut; shorten prompts or responses, or "
                "use a reward model that reads more"
            )

    @cached_property
    def _files(self) -> dict[str, str]:
        """Digests of a folder's files by name; none for a hub name."""
        files = sorted({file for pattern in _CONTENTS for file in Path(self.model).glob(pattern)})
        return {file.name: file_digest(file) for file in files}

    @cached_property
    def _shared(self) -> "_Classifier":
        # By content, so that a folder with new weights is another model.
        key = json.dumps(self._files or self.model)
        found = _LOADED.get(key)
        if found is None:
            found = _LOADED[key] = _Classifier(self.name, self.model)
        return found

    @property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        return self._shared.tokenizer

    @property
    def _classifier(self) -> "PreTrainedModel":
        return self._shared.model

    @property
    def _column(self) -> int:
        # transformers fills id2label in: LABEL_0, LABEL_1, ... where the model's author named none.
        labels = {str(label): int(number) for number, label in (self._classifier.config.id2label or {}).items()}
        if isinstance(self.column, str):
            if self.column not in labels:
                raise ObjectiveError(unknown(f"column of objective {self.name!r} ({self.model})", self.column, labels))
            return labels[self.column]
        if not 0 <= self.column < len(labels):
            raise ObjectiveError(
                f"objective {self.name!r}: column is {self.column}, but {self.model} has {len(labels)} (0 is the first)"
            )
        return self.column


def input_ids(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt, response: str, separator: str) -> list[int]:
    """Prompt and response as a reward model reads them.

    A conversation goes through the chat template if there is one; else its messages are joined by blank lines. Plain
    text is joined by `separator`.
    """
    if not isinstance(prompt, str) and tokenizer.chat_template is not None:
        messages = [*prompt, {"role": "assistant", "content": response}]
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if not isinstance(prompt, str):
        prompt = "".join(message["content"] + "\n\n" for message in prompt)
    return tokenizer(prompt + separator + response, verbose=False)["input_ids"]


class _Classifier:
    """A loaded model with its tokenizer, and the logits of what it read last."""

    def __init__(self, objective: str, name: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.tokenizer: PreTrainedTokenizerBase = _load(objective, AutoTokenizer, name)
        model = _load(objective, AutoModelForSequenceClassification, name, use_safetensors=True)
        config = model.config.get_text_config()
        if config.pad_token_id is None:
            config.pad_token_id = self.tokenizer.pad_token_id
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model: PreTrainedModel = model.to(device).eval().requires_grad_(False)
        self._known: dict[tuple[int, ...], Float[np.ndarray, " h"]] = {}

    def logits(self, inputs: Sequence[list[int]], batch_size: int) -> Float[np.ndarray, "n h"]:
        """The logits of all heads for each input; each distinct one is read once."""
        keys = [tuple(ids) for ids in inputs]
        found = {key: self._known[key] for key in keys if key in self._known}
        missing = sorted(dict.fromkeys(key for key in keys if key not in found), key=len)  # little padding
        size = batch_size if self.model.config.get_text_config().pad_token_id is not None else 1
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            ids, mask = self._padded(batch)
            with torch.inference_mode():
                logits = self.model(input_ids=ids, attention_mask=mask).logits
            found.update(zip(batch, logits.double().cpu().numpy(), strict=True))
        self._known = dict(list({**self._known, **found}.items())[-_REMEMBERED:])
        return np.array([found[key] for key in keys]).reshape(len(keys), len(self.model.config.id2label or {}))

    def _padded(self, inputs: Sequence[tuple[int, ...]]) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
        width = max(1, max(map(len, inputs)))
        pad = self.model.config.get_text_config().pad_token_id or 0
        ids = torch.full((len(inputs), width), pad)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(inputs):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids.to(self.model.device), mask.to(self.model.device)


def _load(objective: str, factory: Any, name: str, **options: Any) -> Any:
    try:
        return factory.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise ObjectiveError(
            f"objective {objective!r}: cannot load {name!r} ({str(error).splitlines()[0]}); expected a "
            "folder or hub name with config.json, tokenizer and .safetensors weights (pickled ones are not loaded)"
        ) from error


# Alive as long as an objective holds them.
_LOADED: WeakValueDictionary[str, _Classifier] = WeakValueDictionary()
