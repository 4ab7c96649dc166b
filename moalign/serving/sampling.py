"""From logits to the next token of each text, by its own settings and its own stream of random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from moalign.generation import inverted
from moalign.serving.text import token_text

_COLDEST = 1e-30  # a temperature below it would make infinities of logits; at it, the likeliest token is drawn
_ROUNDING = 1e-6  # of a sum of probabilities: .5 and .3 reach .8
_LIKELY = 256  # tokens, which nearly every nucleus is among: all of a vocabulary take long to sort


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
    rows = [row for row, each in enumerate(samplings) if each.temperature > 0]
    if not rows:
        return logits.argmax(-1)
    if len(rows) == len(logits):
        return _drawn(logits.float(), samplings, uniforms)
    tokens = logits.argmax(-1)
    tokens[rows] = _drawn(logits[rows].float(), [samplings[row] for row in rows], [uniforms[row] for row in rows])
    return tokens


def _drawn(logits: Float[Tensor, "b v"], samplings: Sequence[Sampling], uniforms: Sequence[float]) -> Int[Tensor, " b"]:
    temperature = torch.tensor([max(each.temperature, _COLDEST) for each in samplings], device=logits.device)
    scores = logits / temperature[:, None]
    cut = [row for row, each in enumerate(samplings) if each.top_p < 1]
    if cut:
        scores[cut] = nucleus(scores[cut], torch.tensor([samplings[row].top_p for row in cut], device=logits.device))
    return inverted(scores, torch.tensor(uniforms, dtype=torch.float64, device=logits.device))


def nucleus(scores: Float[Tensor, "b v"], top_p: Float[Tensor, " b"], likely: int = _LIKELY) -> Float[Tensor, "b v"]:
    """The scores, with -inf for all but the fewest likeliest tokens whose probability reaches top_p (2019, 1904.09751).

    The likeliest token always stays; of equal ones, where not all are needed, the first. top_p is below 1. Among the
    `likely` first ones is looked before all are sorted: each row by itself, so that it is the same in any batch.

    >>> nucleus(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([0.6])).exp()[0].tolist()[2]
    0.0
    """
    count = min(likely, scores.shape[1])
    ordered = scores.topk(count).values
    probability = (ordered - scores.logsumexp(-1, keepdim=True)).exp()
    before = probability.cumsum(-1, dtype=torch.float64) - probability
    needed = (before < top_p[:, None] - _ROUNDING).sum(-1, keepdim=True).clamp_min(1)
    least = ordered.gather(1, needed - 1)
    found = scores.masked_fill(scores < least, -torch.inf)
    equal, wanted = scores == least, needed - (ordered > least).sum(-1, keepdim=True)
    if (equal.sum(-1, keepdim=True) > wanted).any():
        found.masked_fill_(equal & (equal.cumsum(-1) > wanted), -torch.inf)
    more = (needed[:, 0] == count) & (count < scores.shape[1])
    if more.any():
        found[more] = nucleus(scores[more], top_p[more], scores.shape[1])
    return found


def logprobs_of(
    logits: Float[Tensor, " v"], token: int, count: int, tokenizer: PreTrainedTokenizerBase
) -> TokenLogprob:
    """The log-probability of a token and those of the `count` likeliest."""
    values = logits.float().log_softmax(-1)
    best = values.topk(min(count, len(values)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    top = tuple((*token_text(tokenizer, each), value) for each, value in pairs)
    return TokenLogprob(*token_text(tokenizer, token), float(values[token]), top)
