"""Log-probabilities of responses: sums over their tokens, EOS included, in nats.

Two savings, both exact. A prompt is read once for all of its responses: the chosen and the rejected one stand behind
it in one sequence, and an attention mask keeps them from seeing each other. And the logits over the vocabulary are
never stored: the logarithm of their sum of exponentials, and its gradient, are accumulated over pieces of the
vocabulary, as flash attention does over keys.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from moalign.bank import AdapterBank, Row
from moalign.batches import Tokens
from moalign.packing import pack_shared

# Makes a context within which the model is the reference policy: nothing to do for the base, rows for a soup.
Reference = Callable[[], AbstractContextManager[None]]

_PIECE = 2**24  # logits that exist at one time, as float32: 64 MiB
_ROWS = 2**9  # tokens whose logits over the whole vocabulary exist at one time, where they must
_TOKENS_PER_PASS = 2**12  # without gradients; more does not fit a CPU's cache and costs a third in time


class _TargetLogProb(torch.autograd.Function):
    """log softmax(h W^T)[target] for n tokens, with d/dh = W[target] - softmax(h W^T) W kept from the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, matrix: Tensor, target: Tensor) -> Tensor:
        count, wanted = len(hidden), hidden.requires_grad
        top = hidden.new_full((count,), -torch.inf, dtype=torch.float32)
        total, own = torch.zeros_like(top), torch.zeros_like(top)
        mean = hidden.new_zeros(hidden.shape, dtype=torch.float32) if wanted else None
        size = max(256, _PIECE // max(count, 1))
        for start in range(0, len(matrix), size):
            piece = matrix[start : start + size]
            logits = linear(hidden, piece).float()
            # The target's own logit is rounded as all others are: in bfloat16 it could else exceed their sum.
            place = target - start
            here = (place >= 0) & (place < len(piece))
            own = torch.where(here, logits.gather(1, place.clamp(0, len(piece) - 1)[:, None])[:, 0], own)
            higher = torch.maximum(top, logits.amax(1))
            weights = torch.exp(logits - higher[:, None])
            keep = torch.exp(top - higher)
            total = total * keep + weights.sum(1)
            if mean is not None:
                mean = mean * keep[:, None] + weights.to(piece.dtype) @ piece
            top = higher
        if mean is not None:
            ctx.save_for_backward((matrix[target] - mean / total[:, None]).to(hidden.dtype))
        return own - top - total.log()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[0][:, None].to(slope.dtype) * slope, None, None


def target_logprobs(
    hidden: Float[Tensor, "n d"], matrix: Float[Tensor, "v d"], target: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """log softmax(hidden matrix^T)[target], float32, without ever holding the logits of all n tokens.

    Gradients flow to `hidden`; the output matrix is frozen.
    """
    return _TargetLogProb.apply(hidden, matrix.detach(), target)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Scorer:
    """Log-probabilities under one model.

    `head` is the backbone and the output matrix where the logits are their plain product (`find_head`); None for an
    architecture that scales or caps its logits, whose own logits are then used. `shares_prompt` says whether the
    architecture takes an attention mask of ours, and so may read a prompt once for two responses, in sequences of at
    most `window` tokens (beyond a sliding window, the mask would have to be another one in some layers).
    """

    model: PreTrainedModel
    head: tuple[nn.Module, Tensor] | None
    shares_prompt: bool

    @property
    def window(self) -> float:
        """The length up to which every layer sees every token."""
        config = self.model.config.get_text_config()
        limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        return min((float(limit) for limit in limits if limit), default=float("inf"))

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Scorer":
        """Find out by trying: seven tokens, two layouts, two ways to the logits."""
        head = find_head(model)
        return cls(model, head, _takes_mask(cls(model, head, False)))

    def pack(self, prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]], pad: int) -> Tokens:
        """Lay out responses[i], any number of them, behind prompts[i]; response number = order of appearance."""
        longest = max(len(p) + sum(map(len, group)) for p, group in zip(prompts, responses, strict=True))
        if self.shares_prompt and longest <= self.window:
            return pack_shared(prompts, responses, pad)
        flat = [(prompt, [response]) for prompt, group in zip(prompts, responses, strict=True) for response in group]
        return pack_shared([prompt for prompt, _ in flat], [group for _, group in flat], pad)

    def logprobs(self, tokens: Tokens) -> Float[Tensor, " responses"]:
        """Sum of log-probabilities of each response's tokens, float32, differentiable."""
        each = self.token_logprobs(tokens)
        return each.new_zeros(tokens.responses).index_add(0, tokens.owner.to(each.device), each)

    def token_logprobs(self, tokens: Tokens) -> Float[Tensor, " n"]:
        """Log-probability of every response token, in the order of `tokens.target`, float32, differentiable."""
        tokens = tokens.to(self.model.device)
        features, matrix = self._features(tokens)
        if matrix is not None:
            return target_logprobs(features, matrix, tokens.target)
        return torch.cat([_pick(piece, ids) for piece, ids in _pieces(features, tokens.target)])

    def _features(self, tokens: Tokens) -> tuple[Float[Tensor, "n d"], Float[Tensor, "v d"] | None]:
        """What predicts each response token: hidden states and the output matrix, or logits and None."""
        inputs = {"input_ids": tokens.ids, "position_ids": tokens.positions, "attention_mask": tokens.attention_mask}
        if self.head is None or self._head_is_adapted():
            return self.model(**inputs, use_cache=False).logits[tokens.sequence, tokens.place], None
        backbone, matrix = self.head
        hidden = backbone(**inputs, use_cache=False).last_hidden_state[tokens.sequence, tokens.place]
        return hidden, matrix.to(hidden.dtype)

    @torch.no_grad()
    def divergence(
        self,
        prompts: Sequence[list[int]],
        responses: Sequence[Sequence[list[int]]],
        pad: int,
        bank: AdapterBank | None,
        rows: Row | None,
        reference: Reference = nullcontext,
        plain: Sequence[list[int]] | None = None,
    ) -> tuple[Float[Tensor, " responses"], Float[Tensor, " responses"]]:
        """log pi/pi_ref of each response, and its share of KL(pi || pi_ref), in nats per sequence.

        Within `reference()` the model is pi_ref: by default the base itself. Without a bank pi is the base. `plain` are
        the prompts as pi_ref reads them, where it does not read those of pi.

        Both estimate the KL without bias when the responses are drawn from pi. The second sums the exact divergence of
        every next-token distribution along the response, sum_t KL(pi(.|x,y_<t) || pi_ref(.|x,y_<t)): the first one's
        expectation given the past (Rao-Blackwell), so that it is never negative and varies far less.
        """
        log_ratio, kl = torch.zeros(2, sum(map(len, responses)))
        for taken, places, tokens, mine in self._passes(prompts, responses, pad, rows):
            tokens, asked = tokens.to(self.model.device), tokens
            if plain is not None:
                asked = self.pack([plain[i] for i in taken], [responses[i] for i in taken], pad)
            with reference():
                theirs, matrix = self._features(asked.to(self.model.device))
            with bank.rows(mine) if bank is not None else nullcontext():
                policy, adapted = self._features(tokens)
            parts = torch.zeros(2, tokens.responses, device=policy.device)
            for own, other, target, owner in _pieces(policy, theirs, tokens.target, tokens.owner):
                log_p, log_q = _log_softmax(own, adapted), _log_softmax(other, matrix)
                gap = log_p - log_q
                parts[0].index_add_(0, owner, gap.gather(1, target[:, None])[:, 0])
                parts[1].index_add_(0, owner, (log_p.exp() * gap).sum(1))
            log_ratio[places], kl[places] = parts.cpu()
        return log_ratio, kl

    def _head_is_adapted(self) -> bool:
        """Whether a bank sits on the output layer itself, which then is more than its matrix."""
        head = self.model.get_output_embeddings()
        return head is not None and bool(head._forward_hooks)

    @torch.no_grad()
    def batched(
        self,
        prompts: Sequence[list[int]],
        responses: Sequence[Sequence[list[int]]],
        pad: int,
        *,
        bank: AdapterBank | None = None,
        rows: Row | None = None,
    ) -> Float[Tensor, " responses"]:
        """`logprobs` of any number of responses without gradients, in passes of similar length.

        `rows` has one row per prompt; without a bank the base model scores. The result is in order of appearance.
        """
        found = torch.zeros(sum(map(len, responses)))
        for _, places, tokens, mine in self._passes(prompts, responses, pad, rows):
            with bank.rows(mine) if bank is not None else nullcontext():
                found[places] = self.logprobs(tokens).cpu()
        return found

    def _passes(
        self, prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]], pad: int, rows: Row | None
    ) -> Iterator[tuple[list[int], Tensor, Tokens, Row]]:
        """Cut the work into passes: the prompts, their responses' places in the result, the tokens, and a row for each
        sequence."""
        lengths = [len(p) + sum(map(len, group)) for p, group in zip(prompts, responses, strict=True)]
        starts = np.cumsum([0, *map(len, responses)])
        rows = torch.zeros(len(prompts), 1) if rows is None else rows
        # Sorted by row as well, so that a pass sees few adapters and mostly takes the bank's cheap path.
        which = rows.argmax(1).tolist()
        order = sorted((i for i in range(len(prompts)) if responses[i]), key=lambda i: (which[i], -lengths[i]))
        while order:
            longest = max(lengths[i] for i in order[: max(1, _TOKENS_PER_PASS // 64)])
            count = max(1, _TOKENS_PER_PASS // longest)
            taken, order = order[:count], order[count:]
            tokens = self.pack([prompts[i] for i in taken], [responses[i] for i in taken], pad)
            shared = len(tokens.ids) == len(taken)
            repeats = torch.tensor([1 if shared else len(responses[i]) for i in taken])
            places = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in taken])
            yield taken, torch.tensor(places), tokens, rows[taken].repeat_interleave(repeats, dim=0)


def _pieces(features: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Stretches of tokens, so that float32 logits exist for a few hundred at a time and never for all."""
    return zip(*(tensor.split(_ROWS) for tensor in (features, *others)), strict=True)


def _log_softmax(features: Tensor, matrix: Tensor | None) -> Tensor:
    logits = features if matrix is None else linear(features, matrix)
    return logits.float().log_softmax(1)


def _pick(logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.float()
    return logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(1)


def find_head(model: PreTrainedModel) -> tuple[nn.Module, Tensor] | None:
    """The backbone and the output matrix Float[v, d], if ``logits == hidden @ matrix.T`` and nothing more.

    Some architectures scale or cap their logits after the head; three tokens through both tell.
    """
    backbone, head = model.get_decoder(), model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None or backbone is model:
        return None
    ids = torch.tensor([[1, 2, 3]], device=model.device)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        found = linear(backbone(input_ids=ids).last_hidden_state, head.weight)
    # The same products in the same order: any other step, however small on these three tokens, shows.
    same = torch.allclose(expected.float(), found.float(), rtol=1e-6, atol=1e-6)
    return (backbone, head.weight) if same else None


def _takes_mask(plain: Scorer) -> bool:
    """Whether a shared prompt gives what two separate sequences give; architectures differ in the masks they take."""
    prompt, first, other, second = [1, 2, 3], [4, 5, 1], [5, 1, 2], [3, 2]
    with torch.no_grad():
        expected = plain.logprobs(pack_shared([prompt, prompt], [[first], [second]], pad=0))
        shared = pack_shared([prompt], [[first, second]], pad=0)
        in_line = replace(shared, positions=torch.arange(shared.ids.shape[1])[None])
        try:
            found = plain.logprobs(shared)
            after_other = plain.logprobs(pack_shared([prompt], [[other, second]], pad=0))
            elsewhere = plain.logprobs(in_line)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
    # Two checks to the bit, which no precision and no flat logits can blur: what is masked counts exactly nothing,
    # and the positions that we give are those that count.
    exact = bool(found[1] == after_other[1]) and bool(found[1] != elsewhere[1])
    near = 1e-3 if plain.model.dtype in (torch.float32, torch.float64) else 2e-2
    return exact and torch.allclose(expected, found, rtol=near, atol=near)
