"""A text while it is written: the sequences it takes, one under each row of its plan, and what was drawn so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.errors import DataError
from moalign.serving.decoding import combine
from moalign.serving.plan import Plan
from moalign.serving.sampling import Sampling
from moalign.serving.text import GrowingText

RowKey = tuple[tuple[str, float], ...]


@dataclass(eq=False)
class Lane:
    """One sequence under one row: `ids` are prompt and text so far, of which its slot holds the first `read`."""

    key: RowKey
    row: Float[Tensor, " k"]
    ids: list[int] = field(default_factory=list)  # none before it has a slot: many of one prompt may wait
    read: int = 0
    slot: int = -1  # while it has one


@dataclass(eq=False)
class Choice:
    """One text: a lane for each row of its plan, all with the same tokens, and what was drawn for it so far."""

    number: int
    prompt: list[int]
    plan: Plan
    sampling: Sampling
    lanes: list[Lane]
    text: GrowingText
    draws: list[float]
    written: list[int] = field(default_factory=list)
    done: bool = False

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are not in its slots yet."""
        return len(self.prompt) - self.lanes[0].read

    @property
    def draw(self) -> float:
        """The uniform number of the next token; any at temperature 0."""
        return self.draws[len(self.written)] if self.draws else 0.0

    def scores(self, logits: Sequence[Float[Tensor, " v"]]) -> Float[Tensor, " v"]:
        """What the next token is drawn from, given the logits of each lane; NaN where there is no such distribution."""
        if len(logits) == 1:
            return logits[0].float()
        try:
            return combine(torch.stack(list(logits)).float().log_softmax(-1), self.plan.shares, self.plan.divergence)
        except DataError:  # experts without a token in common, or that are not finite: this text ends, and no other
            return torch.full_like(logits[0], torch.nan, dtype=torch.float32)


@dataclass(frozen=True)
class Kept:
    """What a free slot still holds: tokens under a row, and when they were left there."""

    key: RowKey
    ids: list[int]
    age: int


def common(a: list[int], b: list[int]) -> int:
    """With how many tokens in common two sequences begin.

    >>> common([1, 2, 3], [1, 2, 4, 5])
    2
    """
    if a[: len(b)] == b:
        return len(b)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
