"""What a method is: it trains several adapters at once, each of them in a bank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel

from moalign.adapters import Adapter
from moalign.workplace import Job, Workplace


@runtime_checkable  # the tests check annotations at run time
class Train(Protocol):
    """Train `jobs` side by side and return their adapters by key."""

    def __call__(self, jobs: Sequence[Job], workplace: Workplace, settings: Any) -> dict[str, Adapter]:
        """Adapters by the jobs' keys."""
        ...


@dataclass(frozen=True)
class Method:
    """A method's settings, as a pydantic model, its training function, and what a sweep trains with it.

    `adapters`: one for "each" preference; those of the "corners", between which every preference is a row; or one that
    follows any direction its prompt states, trained in "rounds". `together`: all adapters of a wave in one bank.
    Settings have `learns_from` ("pairs" or "prompts"), `steps_for`, `facts`, `oracle_beta`, `reference`, `start` and
    `warm_start`.
    """

    Settings: type[BaseModel]
    train: Train
    adapters: Literal["each", "corners", "rounds"] = "each"
    together: bool = False
