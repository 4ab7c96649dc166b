"""A small reward model of politeness, learned from real pairs: one answer said twice, politely and less so."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import SHARED
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, AutoTokenizer

PAIRS = SHARED / "data" / "pairs_polite.jsonl.gz"
SEPARATOR = " "  # between prompt and answer, in training as in the sweep
_HELD_OUT, _BATCH, _LEARNING_RATE = 0.2, 16, 5e-4


def train_politeness(base: Path, folder: Path, steps: int) -> tuple[float, float]:
    """Put a head of one logit on `base`, train all of it by Bradley and Terry's loss, and save it in `folder`.

    Returned is the share of held-out pairs whose polite answer it prefers, with the half of its 95 % interval. Whole
    prompts are held out: several pairs share one.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    training, held_out = _parted()
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps + 1)
    rng, queue = np.random.default_rng(0), []
    for _ in range(steps):
        if len(queue) < _BATCH:
            queue = rng.permutation(len(training)).tolist()
        batch, queue = queue[:_BATCH], queue[_BATCH:]
        loss = -logsigmoid(_margins(model, tokenizer, [training[i] for i in batch])).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with torch.no_grad():
        parts = [held_out[start : start + 2 * _BATCH] for start in range(0, len(held_out), 2 * _BATCH)]
        accuracy = float(torch.cat([_margins(model, tokenizer, part) > 0 for part in parts]).float().mean())
    return accuracy, 1.96 * (accuracy * (1 - accuracy) / len(held_out)) ** 0.5


def _parted() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The pairs to learn from, and those of the prompts held out."""
    with gzip.open(PAIRS, "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    prompts = sorted({pair["prompt"] for pair in pairs})
    drawn = np.random.default_rng(0).permutation(len(prompts))[: round(_HELD_OUT * len(prompts))]
    held = {prompts[i] for i in drawn}
    return [pair for pair in pairs if pair["prompt"] not in held], [pair for pair in pairs if pair["prompt"] in held]


def _margins(model: Any, tokenizer: Any, pairs: Sequence[dict[str, str]]) -> Float[Tensor, " n"]:
    """By how much the polite answer scores higher."""
    texts = [pair["prompt"] + SEPARATOR + pair[side] for side in ("chosen", "rejected") for pair in pairs]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    chosen, rejected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.view(2, -1)
    return chosen - rejected
