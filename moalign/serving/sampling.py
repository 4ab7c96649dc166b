"""From logits to the next token of each text, by its own settings and its own stream of random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from moalign.generation import inverted


@dataclass(frozen=True)
class Sampling:
    """How one text is drawn.

    A `temperature` of 0 takes the likeliest token, `top_p` draws from the fewest tokens that hold that much of the
    probability. Same `seed`, same text. The text ends before the first of the `stop` strings. With `top_logprobs` every
    token comes with its log-probability and those of so many likeliest ones; None for no log-probabilities.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was written: its text, its bytes, its log-probability (natural, at temperature 1).

    `top` holds the likeliest in its place as (text, bytes, log-probability), the likeliest first.
    """

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...]


@dataclass(frozen=True)
class Piece:
    """What one step added to a text.

    `choice` says which of a request's texts; `text` may be empty, while a character or a stop string is unfinished;
    `finish` is "stop", "length" or "time" with the last piece; `tokens` counts those written so far, the end included.
    `error` is set where the text could not be finished, and is one clear line.
    """

    choice: int
    text: str
    finish: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: int = 0
    error: str | None = None


def choose(logits: Float[Tensor, "b v"], samplings: Sequence[Sampling], uniforms: Sequence[float]) -> Int[Tensor, " b"]:
    """The next token of each row, by inversion of its uniform number in [0, 1); the likeliest at temperature 0.

    A draw depends on its own row, settings and number alone. Of equal logits the first token is taken.

    >>> row = torch.tensor([[0.0, 1.0, 3.0]])
    >>> [choose(row, [Sampling(1, temperature=t)], [0.01]).item() for t in (0.0, 1.0)]
    [2, 0]
    """
    likeliest = logits.argmax(-1)
    if all(each.temperature == 0 for each in samplings):
        return likeliest
    temperature = torch.tensor([each.temperature or 1.0 for each in samplings], device=logits.device)
    scores = logits.float() / temperature[:, None]
    if any(each.top_p < 1 for each in samplings):
        scores = nucleus(scores, torch.tensor([each.top_p for each in samplings], device=logits.device))
    drawn = inverted(scores, torch.tensor(uniforms, dtype=torch.float64, device=logits.device))
    greedy = torch.tensor([each.temperature == 0 for each in samplings], device=logits.device)
    return torch.where(greedy, likeliest, drawn)


def nucleus(scores: Float[Tensor, "b v"], top_p: Float[Tensor, " b"]) -> Float[Tensor, "b v"]:
    """The scores, with -inf for all but the fewest likeliest tokens whose probability reaches top_p (2019, 1904.09751).

    The likeliest token always stays. A top_p of 1 leaves its row as it is.

    >>> nucleus(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([0.6])).exp()[0].tolist()[2]
    0.0
    """
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1, dtype=torch.float64) - probability
    outside = (before >= top_p[:, None]) & (top_p[:, None] < 1)
    outside[:, 0] = False
    return scores.masked_fill(torch.empty_like(outside).scatter_(1, order, outside), -torch.inf)


def logprobs_of(
    logits: Float[Tensor, " v"], token: int, count: int, tokenizer: PreTrainedTokenizerBase
) -> TokenLogprob:
    """The log-probability of a token and those of the `count` likeliest."""
    values = logits.float().log_softmax(-1)
    best = values.topk(min(count, len(values)))
    top = tuple(
        (*_spelt(int(each), tokenizer), float(value)) for value, each in zip(best.values, best.indices, strict=True)
    )
    return TokenLogprob(*_spelt(token, tokenizer), float(values[token]), top)


def _spelt(token: int, tokenizer: PreTrainedTokenizerBase) -> tuple[str, bytes]:
    text = str(tokenizer.decode([token]))
    return text, text.encode("utf-8", "surrogatepass")
