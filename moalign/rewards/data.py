"""What a reward model learns from: scored responses of one or more sources, a label per head where there is one."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from moalign.batches import Prompt
from moalign.data import ScoredResponses, load_scored, split_by_prompt
from moalign.errors import DataError, unknown
from moalign.files import digest
from moalign.rewards.settings import HeadSettings, RewardModelConfig, SourceSettings

_HELD_OUT, _VALIDATION = 0, 1  # seeds of the two splits; not the run's, so that runs are compared on the same prompts


@dataclass(frozen=True)
class Labelled:
    """n responses with a label for each of m heads, NaN where there is none.

    >>> Labelled(("warm",), ["Hi"], ["Hello"], np.array([[4.0]])).select([0]).responses
    ['Hello']
    """

    heads: tuple[str, ...]
    prompts: Sequence[Prompt]
    responses: Sequence[str]
    labels: Float[np.ndarray, "n m"]

    def __len__(self) -> int:
        return len(self.responses)

    def select(self, indices: Sequence[int]) -> "Labelled":
        """The rows at `indices`, in that order."""
        prompts, responses = [self.prompts[i] for i in indices], [self.responses[i] for i in indices]
        return Labelled(self.heads, prompts, responses, self.labels[np.asarray(indices, dtype=int)])

    @property
    def prompt_keys(self) -> Int[np.ndarray, " n"]:
        """A number for each prompt, the same for the same prompt."""
        keys = [json.dumps(prompt, sort_keys=True) for prompt in self.prompts]
        return np.unique(np.array(keys, dtype=object), return_inverse=True)[1].reshape(len(keys))

    @property
    def digest(self) -> str:
        """A name made from all of it."""
        contents = [list(self.heads), list(self.prompts), list(self.responses), self.labels.tolist()]
        return digest(json.dumps(contents))


class Sides(NamedTuple):
    """Rows to learn from, to choose an epoch on, and to report on: no prompt stands on two sides."""

    training: list[int]
    validation: list[int]
    heldout: list[int]


def read_labelled(config: RewardModelConfig, quarantine: Path, notice: Callable[[str], None]) -> Labelled:
    """The rows of all sources that have a label for one of the heads at least.

    A row keeps the labels that it has; rows of one response in two sources stay two rows. Bad rows are refused, or
    counted and set aside in the folder `quarantine`. Raises DataError for a bad row, and for a head that no row has.
    """
    parts = [
        _renamed(_load(source, number, config, quarantine, notice), source) for number, source in enumerate(config.data)
    ]
    columns = list(dict.fromkeys(name for part in parts for name in part.scores))
    heads = config.heads or {name: HeadSettings(column=name) for name in columns}
    for name, head in heads.items():
        if head.column not in columns:
            raise DataError(f"head {name!r}: no row has it: {unknown('attribute', head.column, columns)}")
    labels = np.concatenate([_table(part, list(heads.values())) for part in parts])
    prompts = [prompt for part in parts for prompt in part.prompts]
    responses = [response for part in parts for response in part.responses]
    every = Labelled(tuple(heads), prompts, responses, labels)
    kept = np.flatnonzero(~np.isnan(labels).all(axis=1)).tolist()
    if len(kept) < len(every):
        notice(f"{len(every) - len(kept)} of {len(every)} rows have a label for none of the heads and are left out")
    return every.select(kept)


def split_labelled(data: Labelled, holdout: float, validation: float) -> Sides:
    """The three sides, whole prompts each; the same prompts every time, however the data grow.

    `validation` is a share of the prompts that are not held out; 0 has no such side. Raises DataError if there are too
    few prompts for it, or a head's labels to learn from are fewer than two or all alike.
    """
    learnt, heldout = split_by_prompt(data.prompts, holdout, _HELD_OUT)
    inner, chosen_on = split_by_prompt([data.prompts[i] for i in learnt], validation, _VALIDATION)
    if validation and not chosen_on:
        raise DataError(
            "all rows to learn from have one prompt, which cannot be split into rows to train and to choose on; "
            "expected at least 2 prompts beside those held out, or 'train: heads'"
        )
    sides = Sides([learnt[i] for i in inner], [learnt[i] for i in chosen_on], heldout)
    for name, column in zip(data.heads, data.labels[sides.training].T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) < 2:
            raise DataError(f"head {name!r} has {len(known)} labelled rows to train on; expected at least 2")
        if np.ptp(known) == 0:
            raise DataError(
                f"head {name!r} is {known[0]:g} in all {len(known)} rows to train on, so there is nothing to learn; "
                "leave it out of 'heads', or use data in which it differs"
            )
    return sides


def _load(
    source: SourceSettings, number: int, config: RewardModelConfig, quarantine: Path, notice: Callable[[str], None]
) -> ScoredResponses:
    """One source; of one without a mapping, each column is read by itself, and they are put together row by row."""
    parts = []
    for column in source.columns or [None]:
        name = f"data-{number}" + (f"-{column}" if column else "")
        aside = quarantine / f"{name}.jsonl" if config.skip_bad_rows else None
        loaded = load_scored(source.scores, column, limit=config.limit, quarantine=aside)
        if loaded.skipped:
            notice(f"{loaded.skipped} bad rows set aside in {aside}")
        parts.append(loaded.scored)
    return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: Sequence[ScoredResponses]) -> ScoredResponses:
    """The columns of one source, row by row."""
    texts = {
        where: (prompt, response)
        for part in parts
        for where, prompt, response in zip(part.source, part.prompts, part.responses, strict=True)
    }
    place = {where: row for row, where in enumerate(texts)}
    scores: dict[str, np.ndarray] = {}
    for part in parts:
        rows = [place[where] for where in part.source]
        for name, values in part.scores.items():
            scores.setdefault(name, np.full(len(texts), np.nan))[rows] = values
    prompts, responses = zip(*texts.values(), strict=True)
    return ScoredResponses(list(prompts), list(responses), scores, list(texts))


def _renamed(scored: ScoredResponses, source: SourceSettings) -> ScoredResponses:
    for name in source.names:
        if name not in scored.scores:
            raise DataError(f"names of {source.scores}: {unknown('attribute', name, scored.scores)}")
    names = [source.names.get(name, name) for name in scored.scores]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"names of {source.scores}: two attributes are called {twice!r}; expected different names")
    scores = dict(zip(names, scored.scores.values(), strict=True))
    return ScoredResponses(scored.prompts, scored.responses, scores, scored.source)


def _table(scored: ScoredResponses, heads: Sequence[HeadSettings]) -> Float[np.ndarray, "n m"]:
    absent = np.full(len(scored.responses), np.nan)
    return np.stack([head.scale * scored.scores.get(head.column, absent) for head in heads], axis=1)
