"""Held-out prompts: the same ones every time, however the data grow."""

import json
from collections.abc import Sequence

from moalign.batches import Prompt
from moalign.errors import ConfigError
from moalign.files import digest


def split_by_prompt(prompts: Sequence[Prompt], holdout: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out, so that all rows of one prompt stand on one side.

    held out  <=>  hash(seed, prompt) < holdout, the hash uniform on [0, 1)

    A prompt's side depends on nothing but the prompt, the seed and `holdout`, so rows that are added later move no
    other row. The one exception: of two prompts or more, at least one stands on each side; where chance leaves a side
    empty, the prompt with the nearest hash crosses over. `holdout` 0 holds nothing out, and a single prompt is
    trained on. Raises ConfigError if `holdout` is not in [0, 1).

    >>> split_by_prompt(["a", "b", "a"], holdout=0.5, seed=0)
    ([1], [0, 2])
    """
    if not 0 <= holdout < 1:
        raise ConfigError(f"holdout is {holdout:g}; expected a share of the prompts, from 0 up to but not including 1")
    keys = [json.dumps(prompt, sort_keys=True) for prompt in prompts]
    place = {key: _uniform(seed, key) for key in keys}
    if holdout == 0 or len(place) < 2:
        return list(range(len(keys))), []
    held = {key for key, number in place.items() if number < holdout}
    held = held or {min(place, key=place.__getitem__)}
    if len(held) == len(place):
        held.remove(max(place, key=place.__getitem__))
    train = [i for i, key in enumerate(keys) if key not in held]
    return train, [i for i, key in enumerate(keys) if key in held]


def _uniform(seed: int, key: str) -> float:
    # 52 bits, so that the quotient is exact and stays below 1.
    return int(digest(str(seed), key)[:13], 16) / 2**52
