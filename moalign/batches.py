"""The batches that walk through the house; each field carries its shape.

Letters: b sequences, t tokens, m objectives, n completions or pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Messages = list[dict[str, str]]  # [{"role": "user", "content": "Hello"}]
Prompt = str | Messages


@dataclass(frozen=True)
class Completions:
    """n texts to be scored: what was asked, and what was answered.

    >>> len(Completions(prompts=["2+2?", "3+3?"], responses=["4", "6"]))
    2
    """

    prompts: Sequence[Prompt]
    responses: Sequence[str]

    def __post_init__(self) -> None:
        assert len(self.prompts) == len(self.responses), "one prompt per response"

    def __len__(self) -> int:
        return len(self.responses)


@dataclass(frozen=True)
class PreferencePairs:
    """n pairs of one objective: of two responses to a prompt, `chosen` was preferred.

    `probability[i]` is the probability that `chosen[i]` wins: 1 for an observed choice, sigma(r_c - r_r) for
    Bradley-Terry labels of known scores. `source[i]` says where the pair came from, such as "train.jsonl:17".

    >>> pairs = PreferencePairs(["Hi"], ["Hello, how are you?"], ["What?"], np.ones(1), ["train.jsonl:1"])
    >>> len(pairs.select([0]))
    1
    """

    prompts: Sequence[Prompt]
    chosen: Sequence[str]
    rejected: Sequence[str]
    probability: Float[np.ndarray, " n"]
    source: Sequence[str]

    def __post_init__(self) -> None:
        sizes = {
            len(self.prompts),
            len(self.chosen),
            len(self.rejected),
            len(self.probability),
            len(self.source),
        }
        assert len(sizes) == 1, f"all fields of PreferencePairs must have one length, got {sizes}"

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, indices: Sequence[int]) -> "PreferencePairs":
        """The pairs at `indices`, in that order."""
        return PreferencePairs(
            [self.prompts[i] for i in indices],
            [self.chosen[i] for i in indices],
            [self.rejected[i] for i in indices],
            self.probability[np.asarray(indices, dtype=int)],
            [self.source[i] for i in indices],
        )


@dataclass(frozen=True)
class TokenPairs:
    """n pairs as token ids; responses end in EOS. Lists, because no two have the same length.

    >>> TokenPairs(prompt=[[5, 6]], chosen=[[7, 2]], rejected=[[8, 9, 2]]).lengths
    [7]
    """

    prompt: Sequence[list[int]]
    chosen: Sequence[list[int]]
    rejected: Sequence[list[int]]

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each pair when the prompt is read once."""
        return [len(p) + len(c) + len(r) for p, c, r in zip(self.prompt, self.chosen, self.rejected, strict=True)]


@dataclass(frozen=True)
class Tokens:
    """b padded sequences of t tokens that hold n response tokens of a number of responses.

    One sequence may hold several responses to one prompt: `positions` and `attention_mask` then say who sees whom.
    Response token i is `target[i]`, and is predicted at `ids[sequence[i], place[i]]`, the token before it; it belongs
    to response `owner[i]`.

    >>> Tokens(  # one prompt of tokens 5 6, one response 7 2
    ...     ids=torch.tensor([[5, 6, 7, 2]]),
    ...     positions=torch.tensor([[0, 1, 2, 3]]),
    ...     attention_mask=torch.ones(1, 4, dtype=torch.bool),
    ...     sequence=torch.tensor([0, 0]),
    ...     place=torch.tensor([1, 2]),
    ...     target=torch.tensor([7, 2]),
    ...     owner=torch.tensor([0, 0]),
    ...     responses=1,
    ... ).responses
    1
    """

    ids: Int[Tensor, "b t"]
    positions: Int[Tensor, "b t"]
    attention_mask: Bool[Tensor, "b t"] | Bool[Tensor, "b 1 t t"]
    sequence: Int[Tensor, " n"]
    place: Int[Tensor, " n"]
    target: Int[Tensor, " n"]
    owner: Int[Tensor, " n"]
    responses: int

    def to(self, device: torch.device) -> "Tokens":
        """The same batch on another device."""
        fields = (getattr(self, name).to(device) for name in list(self.__dataclass_fields__)[:-1])
        return Tokens(*fields, responses=self.responses)
