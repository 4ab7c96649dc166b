"""Numbers that are computed once: a cache of floats on disk, named by the content they belong to."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions
from moalign.files import atomic_write_bytes, digest
from moalign.objectives.base import Objective, ObjectiveSet, checked_scores

logger = logging.getLogger("moalign")

# Scores are written after so many completions: what a kill can lose.
CHUNK = 512


class FloatCache:
    """Floats by key, in `folder/namespace`; any number of processes may read and write at once.

    Every put is one shard file, named by the digest of its contents and renamed in whole, so that no writer waits for
    another and a kill leaves no half of one. Shards of other workers are noticed when a key is missing. A shard whose
    contents do not match its name is left out, and logged by name. Floats come back bit for bit, NaN and infinity too.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     FloatCache(Path(folder), "scores").put_many({"a": 0.1})
    ...     FloatCache(Path(folder), "scores").get_many(["a", "b"])
    {'a': 0.1}
    """

    def __init__(self, folder: Path, namespace: str) -> None:
        self._folder = folder / namespace
        self._values: dict[str, float] = {}
        self._seen: set[str] = set()

    def get_many(self, keys: Sequence[str]) -> dict[str, float]:
        """The values that are known; a key without one is left out."""
        if any(key not in self._values for key in keys):
            self._read_new_shards()
        return {key: self._values[key] for key in keys if key in self._values}

    def put_many(self, values: Mapping[str, float]) -> None:
        """Store `values` in one new shard. Raises StorageError if the disk refuses; nothing is half written."""
        if not values:
            return
        lines = [json.dumps([key, float(value)]) for key, value in values.items()]
        data = ("\n".join(lines) + "\n").encode()
        name = f"{digest(data)}.jsonl"
        atomic_write_bytes(self._folder / name, data)
        self._seen.add(name)
        self._values.update((key, float(value)) for key, value in values.items())

    def _read_new_shards(self) -> None:
        names = {path.name for path in self._folder.glob("*.jsonl")} - self._seen
        for name in sorted(names):
            self._seen.add(name)
            try:
                data = (self._folder / name).read_bytes()
            except OSError as error:
                logger.warning("cache shard %s cannot be read (%s) and is left out", self._folder / name, error)
                continue
            if f"{digest(data)}.jsonl" != name:
                logger.warning("cache shard %s is damaged and is left out", self._folder / name)
                continue
            self._values.update(map(json.loads, data.splitlines()))


def score_cached(
    objectives: ObjectiveSet, completions: Completions, cache_folder: Path, *, finite: bool = True
) -> Float[np.ndarray, "n m"]:
    """`objectives.score(completions)`, where nothing is ever scored twice, in this run or the next.

    A score's key is the digest of the objective's fingerprint, the prompt and the response. Only what is missing is
    scored, each distinct completion once, and written every 512 completions. Raises ObjectiveError as
    `checked_scores` does; what was scored before is kept. Without `finite`, NaN and infinity are scores like any other.

    >>> import tempfile
    >>> from moalign.objectives import Length
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     score_cached(ObjectiveSet([Length("brief")]), Completions(["Hi"] * 2, ["yes", "oh no"]), Path(folder))
    array([[-1.],
           [-2.]])
    """
    return np.stack([_scores(each, completions, cache_folder, finite) for each in objectives.objectives], axis=1)


def _scores(objective: Objective, completions: Completions, folder: Path, finite: bool) -> Float[np.ndarray, " n"]:
    # By fingerprint and not by name, so that a renamed objective finds its scores.
    fingerprint = objective.fingerprint
    cache = _opened(folder, f"scores-{digest(fingerprint)[:12]}")
    keys = [
        digest(fingerprint, json.dumps(prompt, sort_keys=True), response)
        for prompt, response in zip(completions.prompts, completions.responses, strict=True)
    ]
    values = cache.get_many(keys)
    if finite:  # a NaN that an online method has met is refused here, by scoring it again
        values = {key: value for key, value in values.items() if math.isfinite(value)}
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    missing = sorted(i for key, i in first.items() if key not in values)
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        part = Completions([completions.prompts[i] for i in chunk], [completions.responses[i] for i in chunk])
        scores = checked_scores(objective, part, chunk, finite=finite)
        new = {keys[i]: float(score) for i, score in zip(chunk, scores, strict=True)}
        cache.put_many(new)
        values.update(new)
    return np.array([values[key] for key in keys], dtype=np.float64)


@lru_cache(maxsize=64)  # an online method scores every few seconds: shards are read once, and not at each step
def _opened(folder: Path, namespace: str) -> FloatCache:
    return FloatCache(folder, namespace)
