"""Generating for many rows of the bank in one batch, so that a text depends on its own seed and on nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from moalign.bank import AdapterBank, Row
from moalign.errors import BaseModelError, DataError
from moalign.models import BaseModel


class SeededSampling(LogitsProcessor):
    """Draw each next token by its sequence's own uniform number, whatever else is in the batch.

    The token is the first whose cumulative probability passes u (inversion), so that neighbouring policies with the
    same u mostly agree: differences between adapters are measured on common random numbers.
    """

    def __init__(self, uniforms: Float[Tensor, "b t"], temperature: float):
        self.uniforms = uniforms
        self.temperature = temperature
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only the drawn token possible."""
        scores = scores.float() if self.temperature == 1 else scores.float() / self.temperature
        token = inverted(scores, self.uniforms[:, self.step].to(scores.device))
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def inverted(scores: Float[Tensor, "b v"], uniforms: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The token of each row whose cumulative probability is the first to pass its uniform number in [0, 1).

    >>> inverted(torch.zeros(2, 4), torch.tensor([0.3, 0.99], dtype=torch.float64)).tolist()
    [1, 3]
    """
    # Probabilities in single precision, which is half of the time; their sums need the double one.
    cumulative = torch.softmax(scores, dim=-1).cumsum(-1, dtype=torch.float64)
    # The last sum may fall short of 1 by rounding; scaling u by it keeps the draw inside.
    wanted = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True).clamp_max(scores.shape[-1] - 1)[:, 0]


def uniforms(seeds: Sequence[int], steps: int) -> Float[Tensor, "b t"]:
    """One stream of uniform numbers in [0, 1) per seed."""
    return torch.stack(
        [torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.no_grad()
def generate(
    base: BaseModel,
    bank: AdapterBank | None,
    rows: Row | None,
    prompts: Sequence[list[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
) -> list[list[int]]:
    """One response per prompt, as token ids up to and including EOS (absent if `max_new_tokens` came first).

    `rows` has one row per prompt; None, or no bank, is the base model. A prompt that stands several times with one row
    is read once. Raises BaseModelError for a prompt that
    leaves no room in the model's context, and DataError for an empty one.
    """
    longest = check_room(base, prompts, max_new_tokens)
    ids = torch.full((len(prompts), longest), base.pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,  # the processor has drawn already
        eos_token_id=list(base.eos_ids),
        pad_token_id=base.pad_id,
    )
    sampling = LogitsProcessorList([SeededSampling(uniforms(seeds, max_new_tokens), temperature)])
    cache = _read_once(base, bank, rows, ids, mask)
    with _without_habits(base.model, config), _mixed(bank, rows):
        out = base.model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            generation_config=config,
            logits_processor=sampling,
            past_key_values=cache,
        )
    return [_until_eos(response, base.eos_ids) for response in out[:, longest:].tolist()]


def check_room(base: BaseModel, prompts: Sequence[list[int]], max_new_tokens: int) -> int:
    """The length of the longest prompt. Raises as `generate` does."""
    if not all(prompts):
        raise DataError("a prompt has no tokens, so nothing predicts its response's first token; expected some text")
    longest = max(map(len, prompts))
    limit = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and longest + max_new_tokens > limit:
        raise BaseModelError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the {limit} positions of {base.name}"
        )
    return longest


def _mixed(bank: AdapterBank | None, rows: Row | None) -> AbstractContextManager[None]:
    return bank.rows(rows) if bank is not None and rows is not None else nullcontext()


def _read_once(
    base: BaseModel, bank: AdapterBank | None, rows: Row | None, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"]
) -> DynamicCache | None:
    """Keys and values of all prompts without their last tokens, each (prompt, row) read once; None if nothing is saved.

    The last token is left for `generate`, whose first step is to read what the cache lacks.
    """
    seen = [tuple(each) for each in (ids if rows is None else torch.cat([ids, rows.to(torch.float64)], 1)).tolist()]
    first = {key: place for place, key in reversed(list(enumerate(seen)))}
    config = base.model.config.get_text_config()
    # Beyond a window the cache drops what a later step counts on; a prompt of one token leaves nothing to read.
    windowed = any(getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    if len(first) == len(seen) or windowed or int(mask.sum(1).min()) < 2:
        return None
    places = sorted(first.values())
    own, seen_mask = ids[places, :-1].to(base.device), mask[places, :-1].to(base.device)
    cache = DynamicCache(config=base.model.config)
    positions = (seen_mask.cumsum(1) - 1).clamp_min(0)
    with _mixed(bank, None if rows is None else rows[places]):
        base.model(
            input_ids=own, attention_mask=seen_mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        )
    number = {place: i for i, place in enumerate(places)}
    cache.batch_select_indices(torch.tensor([number[first[key]] for key in seen], device=base.device))
    return cache


@contextmanager
def _without_habits(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Hide the model's own generation_config.json, which fills in what a config leaves open.

    Its top_k or repetition_penalty would make another policy of it than the one whose log-probabilities are taken.
    """
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def _until_eos(ids: list[int], eos: Sequence[int]) -> list[int]:
    for place, token in enumerate(ids):
        if token in eos:
            return ids[: place + 1]
    return ids
