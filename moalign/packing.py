"""Laying out prompts and responses as token batches, each prompt read once."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from moalign.batches import Tokens
from moalign.errors import DataError


def pack_shared(prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]], pad: int) -> Tokens:
    """Lay out each prompt once, its responses behind it, padded on the right.

    With at most one response per prompt the mask is the usual one, Bool[b, t]; otherwise it is Bool[b, 1, t, t]: a
    token sees the prompt and its own response up to itself. An empty response has the log-probability 0. Raises
    DataError for an empty prompt: nothing would predict the response's first token.
    """
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(
                f"prompt {number} of the batch has no tokens, so nothing predicts its response's first token; "
                "expected a prompt that is not empty, or a tokenizer that begins every text with a BOS token"
            )
    length = max(len(p) + sum(map(len, group)) for p, group in zip(prompts, responses, strict=True))
    size = len(prompts)
    ids = torch.full((size, length), pad)
    positions = torch.zeros(size, length, dtype=torch.long)
    part = torch.full((size, length), -1)  # 0 the prompt, 1.. its responses, -1 padding
    gather: list[tuple[int, int, int, int]] = []
    owner = 0
    for row, (prompt, group) in enumerate(zip(prompts, responses, strict=True)):
        start = len(prompt)
        ids[row, :start] = torch.tensor(prompt)
        positions[row, :start] = torch.arange(start)
        part[row, :start] = 0
        for number, response in enumerate(group):
            stop = start + len(response)
            ids[row, start:stop] = torch.tensor(response)
            positions[row, start:stop] = torch.arange(len(prompt), len(prompt) + len(response))
            part[row, start:stop] = number + 1
            before = [len(prompt) - 1, *range(start, stop - 1)][: len(response)]
            gather += [(row, place, token, owner) for place, token in zip(before, response, strict=True)]
            owner += 1
            start = stop
    columns = torch.tensor(gather, dtype=torch.long).reshape(-1, 4).T
    return Tokens(ids, positions, _mask(part), columns[0], columns[1], columns[2], columns[3], responses=owner)


def _mask(part: Int[Tensor, "b t"]) -> Tensor:
    if part.max() <= 1:
        return part >= 0
    seen = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)
    causal = torch.ones(part.shape[1], part.shape[1], dtype=torch.bool).tril()
    # Padding sees itself only: a row of the mask without a single True would be NaN.
    return (seen & causal)[:, None]
