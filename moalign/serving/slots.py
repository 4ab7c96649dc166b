"""Keys and values of many sequences that begin, grow and end on their own, as a transformers model reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from moalign.errors import BaseModelError
from moalign.models import BaseModel


@dataclass(frozen=True)
class Window:
    """Which slots a forward pass reads and writes, and what it needs to know of each token.

    Tokens stand at the right of a [b, t] batch, so that the last one of every sequence is in the last column; what is
    left of them is padding, at position -1. `length` is how far back the longest sequence reaches.
    """

    first: int
    positions: Int[Tensor, "b t"]
    rows: Int[Tensor, " n"]  # of all tokens that are no padding: their slots
    columns: Int[Tensor, " n"]  # and their positions
    real: tuple[Tensor, Tensor] | None  # where these stand in the batch; None if there is no padding
    length: int

    def mask(self, dtype: torch.dtype) -> Float[Tensor, "b 1 t l"]:
        """0 where a token may look, itself and what came before it in its slot, and the lowest number elsewhere."""
        seen = torch.arange(self.length, device=self.positions.device) <= self.positions[:, None, :, None]
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


class Slots:
    """A static cache of `count` slots, [slot, head, position, width] for each layer; passed as `past_key_values`.

    Every slot has a length of its own: what lies beyond it is never looked at. A forward pass takes neighbouring slots,
    so that it reads them in place. Storage grows by doubling, up to `context` positions.
    """

    def __init__(self, count: int, context: int):
        self.count, self.context = count, context
        self._capacity = 0
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._window: Window | None = None

    def window(self, first: int, starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Window:
        """A pass over slots `first`, `first` + 1, ..., which hold `starts` tokens already and get `lengths` more."""
        t, furthest = max(lengths), max(start + more for start, more in zip(starts, lengths, strict=True))
        self._reserve(furthest)
        if t == 1:  # as every text that is written, a token at a time: nothing to work out
            columns = torch.tensor(starts, device=device)
            positions, rows, real = columns[:, None], torch.arange(first, first + len(starts), device=device), None
        else:
            from_right = torch.arange(t) - (t - torch.tensor(lengths)[:, None])
            positions = torch.where(from_right >= 0, torch.tensor(starts)[:, None] + from_right, -1)
            places = (positions >= 0).nonzero(as_tuple=True)
            rows, columns = (places[0] + first).to(device), positions[places].to(device)
            real = None if len(columns) == positions.numel() else (places[0].to(device), places[1].to(device))
            positions = positions.to(device)
        self._window = found = Window(first, positions, rows, columns, real, furthest)
        return found

    def update(
        self, keys: Float[Tensor, "b h t d"], values: Float[Tensor, "b h t d"], layer: int, *_: object, **__: object
    ) -> tuple[Float[Tensor, "b h l d"], Float[Tensor, "b h l d"]]:
        """Write a layer's new keys and values, and give all that the window's slots hold: what attention asks for."""
        window = self._window
        assert window is not None, "a forward pass without a window"
        while len(self._layers) <= layer:
            self._layers.append((_empty(keys, self.count, self._capacity), _empty(values, self.count, self._capacity)))
        stop = window.first + len(keys)
        for store, new in zip(self._layers[layer], (keys, values), strict=True):
            by_token = new.transpose(1, 2)
            store[window.rows, :, window.columns] = (
                by_token.flatten(0, 1) if window.real is None else by_token[window.real]
            )
        k, v = self._layers[layer]
        return k[window.first : stop, :, : window.length], v[window.first : stop, :, : window.length]

    def get_seq_length(self, _layer: int = 0) -> int:
        """Models ask for it where they are given no positions; the engine gives them."""
        return 0 if self._window is None else self._window.length

    def swap(self, a: int, b: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for store in self._stores():
            store[[a, b], :, :length] = store[[b, a], :, :length]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a slot to another."""
        for store in self._stores():
            store[target, :, :length] = store[source, :, :length]

    def clear(self, slot: int) -> None:
        """Forget a slot that may hold NaN, which would reach through the mask: 0 times NaN is NaN."""
        for store in self._stores():
            store[slot] = 0

    def _stores(self) -> list[Tensor]:
        return [store for pair in self._layers for store in pair]

    def _reserve(self, length: int) -> None:
        if length <= self._capacity:
            return
        before, self._capacity = self._capacity, min(max(length, 2 * self._capacity, 64), self.context)
        for layer, pair in enumerate(self._layers):  # one at a time, so that only one is held twice
            wider = _empty(pair[0], self.count, self._capacity), _empty(pair[1], self.count, self._capacity)
            for store, old in zip(wider, pair, strict=True):
                store[:, :, :before] = old
            self._layers[layer] = wider


def next_logits(
    model: PreTrainedModel, slots: Slots, first: int, starts: Sequence[int], tokens: Sequence[list[int]]
) -> Float[Tensor, "b v"]:
    """Append tokens to neighbouring slots, which hold `starts` already, and predict what comes after the last of each.

    Whatever a text is batched with, its own slot, positions and mask are the same.
    """
    window = slots.window(first, starts, [len(new) for new in tokens], model.device)
    t = window.positions.shape[1]
    ids = torch.tensor([[0] * (t - len(new)) + new for new in tokens], device=model.device)
    return model(
        input_ids=ids,
        attention_mask=window.mask(model.dtype),
        position_ids=window.positions.clamp_min(0),
        past_key_values=slots,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]


def readable(base: BaseModel) -> int:
    """Tokens of prompt and text that can be served: the model's context, or what is narrower of it.

    That is its attention window, since slots hold whole texts: within it that makes no difference. And it is the length
    up to which LongRoPE turns by its short factors: beyond it a longer text would turn all that are read with it.
    """
    config = base.model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    windowed = kinds is None or any(kind != "full_attention" for kind in kinds)
    widths = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size") if windowed]
    turns = getattr(config, "rope_parameters", None) or {}
    for each in [turns, *turns.values()]:  # those of all layers, or of each kind of layer
        if isinstance(each, dict) and each.get("rope_type") == "longrope":
            widths.append(each.get("original_max_position_embeddings"))
    return min([base.context, *(width for width in widths if width)])


def check_architecture(base: BaseModel) -> None:
    """Raise BaseModelError unless texts in slots are read as they are alone.

    Two sequences of unlike lengths, read in two parts beside each other, must give the logits of the plain model: what
    an architecture does that slots and masks do not carry (state-space layers, biases by distance) shows here, at the
    start, and not in the answers.
    """
    model, vocabulary, t = base.model, base.model.config.get_text_config().vocab_size, min(readable(base), 9)
    texts = torch.randint(vocabulary, (2, t), generator=torch.Generator().manual_seed(0)).tolist()
    texts[1] = texts[1][: t - 3]
    try:
        with torch.inference_mode():
            slots = Slots(2, 16)
            next_logits(model, slots, 0, [0, 0], [text[:-1] for text in texts])
            found = next_logits(model, slots, 0, [t - 1, t - 4], [text[-1:] for text in texts])
            alone = [model(input_ids=torch.tensor([text], device=model.device)).logits[0, -1] for text in texts]
            off = max(float((a - b).abs().max()) / float(a.std()) for a, b in zip(alone, found, strict=True))
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise BaseModelError(
            f"base model {base.name}, of type {model.config.model_type!r}, cannot be served in slots "
            f"({type(error).__name__}); expected a decoder with plain attention layers"
        ) from error
    if off > (0.01 if model.dtype == torch.float32 else 0.3):
        raise BaseModelError(
            f"base model {base.name}, of type {model.config.model_type!r}, reads otherwise in slots than alone (its "
            f"logits are off by {off:.2g} of their spread); expected a decoder with plain attention layers"
        )


def _empty(like: Float[Tensor, "b h t d"], count: int, capacity: int) -> Float[Tensor, "s h c d"]:
    """Zeros, not whatever is in memory: see `clear`."""
    return torch.zeros(count, like.shape[1], capacity, like.shape[3], dtype=like.dtype, device=like.device)
