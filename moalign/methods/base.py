"""What a method is: it trains several preferences at once, each as one adapter of a bank."""

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
    """A method's settings, as a pydantic model, its training function, and whether it needs pairs or prompts."""

    Settings: type[BaseModel]
    train: Train
    learns_from: Literal["pairs", "prompts"] = "pairs"
