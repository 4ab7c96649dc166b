"""Completions of many policies in one batch, scored once: what an online method learns from."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from moalign.bank import AdapterBank
from moalign.batches import Prompt
from moalign.files import digest
from moalign.generation import generate
from moalign.logprobs import Reference
from moalign.memory import in_parts
from moalign.models import BaseModel

Score = Callable[[Sequence[Prompt], Sequence[str]], Float[np.ndarray, "n m"]]


@dataclass(frozen=True)
class Environment:
    """Prompts to answer, and how answers are made and scored: what an online method needs beside its adapters.

    `score` gives the objectives of n texts, NaN where one has none; within `reference()` the base is the reference
    policy.
    """

    base: BaseModel
    prompts: Sequence[Prompt]
    prompt_ids: Sequence[list[int]]
    score: Score
    max_new_tokens: int
    reference: Reference = nullcontext
    notice: Callable[[str], None] = lambda _: None
    _at_once: dict[str, int] = field(default_factory=dict)  # how many sequences have been found to fit in memory

    def parted(self, validation: int, seed: int) -> tuple[list[int], list[int]]:
        """Places of the training and of the validation prompts.

        Validation prompts are held out of the training ones while they are at most a third of all; with fewer prompts
        than that both are drawn from the same.
        """
        order = np.random.default_rng([seed, 1]).permutation(len(self.prompts)).tolist()
        if not validation:
            return sorted(order), []
        if 3 * validation <= len(order):
            return sorted(order[validation:]), sorted(order[:validation])
        return sorted(order), sorted(order[:validation])


@dataclass(frozen=True)
class Rollouts:
    """g completions of each of p prompts by each of k policies, all from one batch, with their m rewards.

    `responses` are token ids in the order policy, prompt, completion; `rewards` are never summed here.

    >>> one = Rollouts(("a",), [7], [[3, 2], [4]], np.zeros((1, 1, 2, 1)), np.array([[[False, True]]]))
    >>> one.group(0, 0), one.lengths.tolist()
    ([[3, 2], [4]], [[[2, 1]]])
    """

    keys: tuple[str, ...]
    prompts: list[int]  # places in the environment's prompts
    responses: list[list[int]]
    rewards: Float[np.ndarray, "k p g m"]
    truncated: Bool[np.ndarray, "k p g"]  # EOS did not come in time

    def group(self, policy: int, place: int) -> list[list[int]]:
        """The g completions of one prompt by one policy."""
        size = self.rewards.shape[2]
        start = (policy * len(self.prompts) + place) * size
        return self.responses[start : start + size]

    @property
    def lengths(self) -> Int[np.ndarray, "k p g"]:
        """Tokens of each completion, EOS included."""
        return np.array([len(response) for response in self.responses]).reshape(self.truncated.shape)


def roll_out(
    environment: Environment,
    bank: AdapterBank,
    keys: Sequence[str],
    prompts: Sequence[int],
    completions: int,
    stream: str,
    rows: Mapping[str, Float[Tensor, " k"]] | None = None,
) -> Rollouts:
    """Let each policy of the bank answer each prompt `completions` times: one `generate` call for all of them.

    A completion is drawn by its own random numbers, named by `stream`, its prompt and its place in the group, the same
    for every policy: it does not depend on what else is in the batch. A batch that does not fit in memory is halved.
    A key is an adapter of the bank, or the name of one of `rows`, mixtures of them.
    """
    rows = rows or {key: bank.one_hot([key])[0] for key in keys}
    base, size = environment.base, len(prompts) * completions
    work = [(key, p, c) for key in keys for p in prompts for c in range(completions)]

    def answer(part: Sequence[tuple[str, int, int]]) -> list[list[int]]:
        return generate(
            base,
            bank,
            torch.stack([rows[key] for key, _, _ in part]),
            [environment.prompt_ids[p] for _, p, _ in part],
            seeds=[int(digest(f"{stream}/{p}/{c}")[:15], 16) for _, p, c in part],
            max_new_tokens=environment.max_new_tokens,
        )

    known = environment._at_once
    most = known.get("most", len(work))
    responses = in_parts(work, answer, most, environment.notice, lambda size: known.update(most=size))
    texts = [text.strip() for text in base.tokenizer.batch_decode(responses, skip_special_tokens=True)]
    rewards = environment.score([environment.prompts[p] for _, p, _ in work], texts)
    shape = (len(keys), len(prompts), completions)
    ended = np.array([response[-1] in base.eos_ids for response in responses])
    assert len(responses) == len(keys) * size
    return Rollouts(tuple(keys), list(prompts), responses, rewards.reshape(*shape, -1), ~ended.reshape(shape))
