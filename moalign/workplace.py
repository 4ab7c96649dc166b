"""What a method is handed: the adapters to train, the data as constants, and where to leave its state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.batches import TokenPairs
from moalign.logprobs import Scorer
from moalign.preference import Preference
from moalign.rollouts import Environment
from moalign.weighting import RewardWeighter


@dataclass(frozen=True)
class Job:
    """One adapter to train: its key on disk, its preference, and where it starts.

    `stage` counts the adapters of the same run that it continues: the round of DPA. `weighter` decides the weights of
    the objectives while it trains, in place of what the method's settings name.
    """

    key: str
    preference: Preference
    primary: str  # the objective whose pairs it is trained on
    start: Adapter
    steps: int
    stage: int = 0
    weighter: RewardWeighter | None = None


@dataclass(frozen=True)
class PairData:
    """The pairs of one objective as constants of the whole sweep, computed once.

    `reference` is log pi_ref(chosen) - log pi_ref(rejected); `margins[:, j]` is r_j(chosen) - r_j(rejected), in the
    order of the sweep's objectives, NaN where nobody needs it.
    """

    tokens: TokenPairs
    probability: Float[np.ndarray, " n"]
    margins: Float[np.ndarray, "n m"]
    reference: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.tokens)


def _nobody_validates(bank: AdapterBank, keys: Sequence[str]) -> Float[np.ndarray, "k m"]:
    raise NotImplementedError("a weighter wants to see what adapters attain, and nobody here can say")


@dataclass(frozen=True)
class Workplace:
    """What a method works with, beside its jobs: the model, the data, and where to leave its state.

    Offline methods read `data`, online ones the `environment`. `on_step(step, steps, numbers)` is called after every
    step, `on_record(kind, values)` with what belongs into the log, `on_stop(key, why)` for a job that ended early;
    `notice(line)` tells the user something unexpected; `on_bank(step, bank)` may look at the adapters after every step.
    `validate(bank, keys)` gives the mean objectives of adapters on validation prompts, for weighters of offline jobs.
    """

    scorer: Scorer
    pad_id: int
    objectives: tuple[str, ...]
    data: Mapping[str, PairData]
    seed: int
    environment: Environment | None = None
    folder: Path | None = None  # where classes of the user's own are looked for
    checkpoint: Path | None = None
    checkpoint_seconds: float = 30.0
    passes: int = 1  # forward passes that one step is split into
    on_step: Callable[[int, int, dict[str, float]], None] = field(default=lambda *_: None)
    on_record: Callable[[str, dict[str, Any]], None] = field(default=lambda *_: None)
    on_stop: Callable[[str, dict[str, Any]], None] = field(default=lambda *_: None)
    notice: Callable[[str], None] = field(default=lambda *_: None)
    scratch: Path | None = None  # a folder for what a method wants back after a kill, beside its checkpoint
    on_bank: Callable[[int, AdapterBank], None] = field(default=lambda *_: None)
    validate: Callable[[AdapterBank, Sequence[str]], Float[np.ndarray, "k m"]] = field(default=_nobody_validates)
