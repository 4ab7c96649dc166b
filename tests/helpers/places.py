"""Workplaces of methods on tiny models: random pairs to learn from, or prompts whose answers are scored."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from moalign.adapters import Adapter
from moalign.batches import TokenPairs
from moalign.logprobs import Scorer
from moalign.models import BaseModel, load_base
from moalign.rollouts import Environment
from moalign.workplace import PairData, Workplace

PAIRED = ("a", "b")  # objectives with pairs
SCORED = ("long", "low")  # objectives that score
PROMPTS = ["one two", "a", "three?", "four and five"]


def pairs(seed: int, count: int = 12) -> TokenPairs:
    """Random prompts, each with two random answers."""
    rng = np.random.default_rng(seed)

    def texts(low: int, high: int) -> list[list[int]]:
        return [rng.integers(3, 96, rng.integers(low, high)).tolist() for _ in range(count)]

    return TokenPairs(texts(2, 6), [[*text, 2] for text in texts(1, 6)], [[*text, 2] for text in texts(1, 6)])


def constants(scorer: Scorer, tokens: TokenPairs, own: int, seed: int) -> PairData:
    """What preparation hands to a method: reference log-ratios, and margins with NaN for the pairs' own objective."""
    both = list(zip(tokens.chosen, tokens.rejected, strict=True))
    chosen, rejected = scorer.batched(tokens.prompt, both, 0).reshape(-1, 2).double().numpy().T
    margins = np.random.default_rng(seed).normal(size=(len(tokens), len(PAIRED)))
    margins[:, own] = np.nan
    return PairData(tokens, np.ones(len(tokens)), margins, chosen - rejected)


def paired(model: Any) -> Workplace:
    """Twelve pairs of each objective."""
    scorer = Scorer.of(model)
    data = {name: constants(scorer, pairs(number), number, 7) for number, name in enumerate(PAIRED)}
    return Workplace(scorer=scorer, pad_id=0, objectives=PAIRED, data=data, seed=5, checkpoint_seconds=0.0)


def score(_: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
    """Length, and how low the letters stand: two numbers that any text has."""
    return np.array([[len(text), -float(np.mean([ord(c) for c in text] or [0])) / 50] for text in responses])


def talkative(folder: Path) -> BaseModel:
    """A model that ends its texts at any of a quarter of its tokens, so that lengths differ."""
    loaded = load_base(str(folder), device="cpu")
    model = copy.deepcopy(loaded.model)
    model.generation_config.eos_token_id = [2, *range(100, 160)]  # type: ignore[union-attr]
    return replace(loaded, model=model)


def scored(base: BaseModel) -> Workplace:
    """Four prompts, whose answers are scored."""
    ids = [base.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    return Workplace(
        scorer=Scorer.of(base.model),
        pad_id=base.pad_id,
        objectives=SCORED,
        data={},
        seed=3,
        environment=Environment(base, PROMPTS, ids, score, max_new_tokens=6),
        checkpoint_seconds=0.0,
    )


def largest_difference(one: Mapping[str, Adapter], other: Mapping[str, Adapter]) -> float:
    """Of any entry of any factor."""
    pairs = [(one[key].layers[name], other[key].layers[name]) for key in other for name in other[key].layers]
    return max(float((getattr(a, f) - getattr(b, f)).abs().max()) for a, b in pairs for f in "AB")
