"""A sequence-classification model of any architecture, in two parts: what reads a text, and the linear heads on it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from moalign.errors import BaseModelError, ConfigError
from moalign.models import check_device, check_folder, model_digest
from moalign.rewards.heads import Heads


@dataclass(frozen=True)
class Encoder:
    """What gives a text its features: all of the model but its last linear layer, which is kept aside.

    `longest` is how many tokens it reads.
    """

    name: str
    digest: str
    model: PreTrainedModel  # its last layer is the identity, so that its "logits" are the features
    head: nn.Linear
    place: str  # of the head in the model
    tokenizer: PreTrainedTokenizerBase
    longest: int

    @property
    def has_bias(self) -> bool:
        """Whether the architecture's head has one; that of most causal models has none."""
        return self.head.bias is not None

    def __call__(self, inputs: Sequence[list[int]]) -> Float[Tensor, "b d"]:
        """The features of some inputs, padded on the right, as the objective pads them."""
        ids, mask = self._padded(inputs)
        return self.model(input_ids=ids, attention_mask=mask).logits

    def _padded(self, inputs: Sequence[list[int]]) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
        width = max(1, max(map(len, inputs)))
        ids = torch.full((len(inputs), width), self.model.config.get_text_config().pad_token_id)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(inputs):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
            mask[row, : len(tokens)] = 1
        return ids.to(self.model.device), mask.to(self.model.device)

    def save(self, folder: Path, heads: Heads) -> Float[np.ndarray, " m"]:
        """Write model, heads and tokenizer as a transformers folder; what is to be added to its rewards, head by head.

        That is 0 where the architecture's head has a bias, and else the heads' own biases, which have no place in it.
        The encoder is as it was afterwards.
        """
        with torch.no_grad():
            self.head.weight.copy_(torch.as_tensor(heads.weight))
            if self.has_bias:
                self.head.bias.copy_(torch.as_tensor(heads.bias))
        self.model.set_submodule(self.place, self.head)
        try:
            self.model.save_pretrained(folder)
        finally:
            self.model.set_submodule(self.place, nn.Identity())
        self.tokenizer.save_pretrained(folder)
        return np.zeros_like(heads.bias) if self.has_bias else heads.bias.copy()


def load_encoder(
    name: str, heads: Sequence[str], *, max_length: int | None, device: str, dtype: str, seed: int
) -> Encoder:
    """Load a base (a folder or a hub name) with a linear layer of `heads` on it.

    Where the architecture puts layers of its own between the base and the heads, they are drawn by `seed`. A base
    without a padding token gets its EOS, or its unknown token, as one. A `max_length` above what the base reads is
    allowed where its positions are plain rotary ones, which have no end; the saved model then reads that much. Raises
    BaseModelError if the base cannot be found or used, ConfigError for another device or a length it cannot read.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    check_device(device)
    check_folder(name)
    labels = dict(enumerate(heads))
    names = {"id2label": labels, "label2id": {head: number for number, head in labels.items()}}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        config = AutoConfig.from_pretrained(name, num_labels=len(heads), problem_type="regression", **names)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                name,
                config=config,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # the heads of a base that is a reward model already
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(f"cannot load base model {name!r}: {str(error).splitlines()[0]}") from error
    _check_whole(name, model, report["missing_keys"])
    _set_padding(name, model, tokenizer)
    longest = _reach(name, model, tokenizer, max_length)
    place = _head_place(name, model, len(heads))
    head = model.get_submodule(place)
    assert isinstance(head, nn.Linear)
    model.set_submodule(place, nn.Identity())
    # Without dropout, so that a step is a function of its number alone.
    model = model.to(device).eval().requires_grad_(False)
    return Encoder(name, model_digest(name, model), model, head.to(device), place, tokenizer, longest)


def features_of(
    encoder: Callable[[Sequence[list[int]]], Float[Tensor, "b d"]], inputs: Sequence[list[int]]
) -> list[Float[np.ndarray, " d"]]:
    """The features of some inputs that are read at once, without gradients."""
    with torch.inference_mode():
        return list(encoder(inputs).double().cpu().numpy())


def _check_whole(name: str, model: PreTrainedModel, missing: Any) -> None:
    """A pooler is the task's own and may be new; the rest of the base must be there."""
    prefix = model.base_model_prefix + "."
    lost = sorted(key for key in missing if key.startswith(prefix) and "pooler" not in key)
    if lost:
        raise BaseModelError(
            f"base model {name!r} lacks {len(lost)} of its weights, such as {lost[0]}, which would be random; expected "
            "a whole encoder or causal language model"
        )


def _set_padding(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token_id is None:
        token = tokenizer.eos_token or tokenizer.unk_token
        if token is None:
            raise BaseModelError(
                f"base model {name!r} names no padding, EOS or unknown token; set pad_token in its "
                "tokenizer_config.json"
            )
        tokenizer.pad_token = token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _reach(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wanted: int | None) -> int:
    """How many tokens are read at most; what the saved folder says of it is made to agree."""
    config = model.config.get_text_config()
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    limit = min(number for number in limits if number is not None)
    if wanted is None or wanted <= limit:
        return wanted or limit
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "default":
        raise ConfigError(
            f"max_length is {wanted}, but base model {name!r} reads {limit} tokens, and its positions cannot be "
            f"carried on; expected at most {limit}"
        )
    tokenizer.model_max_length = config.max_position_embeddings = wanted
    return wanted


def _head_place(name: str, model: PreTrainedModel, count: int) -> str:
    """The last linear layer outside the base, of as many outputs as there are heads."""
    places = [
        place
        for place, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == count
        and not place.startswith(model.base_model_prefix + ".")
    ]
    if not places:
        kind = json.loads(model.config.to_json_string()).get("model_type")
        raise BaseModelError(
            f"base model {name!r} ({kind}) has no linear layer to put heads on; expected an encoder or a causal "
            "language model that transformers can load for sequence classification"
        )
    return places[-1]
