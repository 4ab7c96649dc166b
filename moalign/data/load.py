"""Whole sources: rows are read, bad ones refused or set aside with their count."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions, PreferencePairs, Prompt
from moalign.data.formats import RowError, parse_completion, parse_pair, parse_prompt, parse_scored
from moalign.data.sources import Row, read_rows
from moalign.errors import DataError, unknown
from moalign.files import atomic_write_text

T = TypeVar("T")


@dataclass(frozen=True)
class ScoredResponses:
    """n responses with a score per objective, NaN where a row lacks it; `source` says where each stands.

    >>> ScoredResponses(["Hi"], ["Hello"], {"warm": np.array([4.0])}, ["ratings.jsonl:1"]).scores["warm"]
    array([4.])
    """

    prompts: list[Prompt]
    responses: list[str]
    scores: Mapping[str, Float[np.ndarray, " n"]]
    source: list[str]


class LoadedPairs(NamedTuple):
    """Pairs, and how many bad rows were set aside."""

    pairs: PreferencePairs
    skipped: int


class LoadedScored(NamedTuple):
    """Scored responses, and how many bad rows were set aside."""

    scored: ScoredResponses
    skipped: int


class LoadedCompletions(NamedTuple):
    """Completions, and how many bad rows were set aside."""

    completions: Completions
    skipped: int


def load_pairs(
    source: str, *, base: Path | None = None, limit: int | None = None, quarantine: Path | None = None
) -> LoadedPairs:
    """The pairs of a source, each an observed choice (probability 1).

    `limit` stops after so many good rows. A bad row raises DataError with its place and reason, unless `quarantine`
    names a file: then bad rows are written there, one line of {where, reason, row} each, and counted. Raises DataError
    as well if there is no row, or no good one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text('{"prompt": "Hi", "chosen": "Hello.", "rejected": "Hm."}')
    ...     load_pairs("a.jsonl", base=Path(folder)).pairs.chosen
    ['Hello.']
    """
    rows, where, skipped = _collect(source, base, limit, quarantine, parse_pair)
    prompts, chosen, rejected = map(list, zip(*rows, strict=True))
    return LoadedPairs(PreferencePairs(prompts, chosen, rejected, np.ones(len(rows)), where), skipped)


def load_prompts(
    source: str, *, base: Path | None = None, limit: int | None = None, quarantine: Path | None = None
) -> list[Prompt]:
    """The prompts of a source, in its order, repeated ones included.

    Errors as `load_pairs` has them; the bad rows set aside are as many as the lines of the quarantine file.
    """
    return _collect(source, base, limit, quarantine, parse_prompt)[0]


def load_completions(
    source: str, *, base: Path | None = None, limit: int | None = None, quarantine: Path | None = None
) -> LoadedCompletions:
    """The prompts of a source with the answers to imitate, in its order: prompt-completion rows or conversations.

    Errors as `load_pairs` has them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text('{"prompt": "Hi", "completion": "Hello."}')
    ...     load_completions("a.jsonl", base=Path(folder)).completions.responses
    ['Hello.']
    """
    rows, _, skipped = _collect(source, base, limit, quarantine, parse_completion)
    prompts, responses = map(list, zip(*rows, strict=True))
    return LoadedCompletions(Completions(prompts, responses), skipped)


def load_scored(
    source: str,
    column: str | None = None,
    *,
    base: Path | None = None,
    limit: int | None = None,
    quarantine: Path | None = None,
) -> LoadedScored:
    """The scored responses of a source: the numeric `column`, and all names of `scores` mappings in rows without it.

    Errors as `load_pairs` has them; also DataError, with the near name, if `column` is given and no row has it.
    """
    rows, where, skipped = _collect(source, base, limit, quarantine, lambda values: parse_scored(values, column))
    names = list(dict.fromkeys(name for _, _, scores in rows for name in scores))
    if column is not None and column not in names:
        raise DataError(f"{source}: {unknown('score', column, names)}")
    table = {name: np.array([scores.get(name, np.nan) for _, _, scores in rows]) for name in names}
    prompts, responses = [prompt for prompt, _, _ in rows], [response for _, response, _ in rows]
    return LoadedScored(ScoredResponses(prompts, responses, table, where), skipped)


def _collect(
    source: str,
    base: Path | None,
    limit: int | None,
    quarantine: Path | None,
    parse: Callable[[dict[str, Any]], T],
) -> tuple[list[T], list[str], int]:
    """The parsed rows, where each stands, and how many were bad."""
    good: list[T] = []
    where: list[str] = []
    bad: list[tuple[Row, str]] = []
    for row in read_rows(source, base):
        if limit is not None and len(good) >= limit:
            break
        try:
            if row.fault is not None:
                raise RowError(row.fault)
            good.append(parse(row.values))
            where.append(row.where)
        except RowError as error:
            if quarantine is None:
                raise DataError(f"{row.where}: {error} (skip_bad_rows: true sets such rows aside)") from None
            bad.append((row, str(error)))
    if quarantine is not None and (bad or quarantine.exists()):  # a list of an earlier time is out of date
        atomic_write_text(quarantine, "".join(_quarantined(row, reason) for row, reason in bad))
    if not good and bad:
        raise DataError(f"{source}: all {len(bad)} rows are bad; the first: {bad[0][0].where}: {bad[0][1]}")
    if not good:
        raise DataError(f"{source}: there are no rows in it")
    return good, where, len(bad)


def _quarantined(row: Row, reason: str) -> str:
    # default=str: parquet has dates and bytes, which JSON has not.
    return json.dumps({"where": row.where, "reason": reason, "row": row.values}, default=str) + "\n"
