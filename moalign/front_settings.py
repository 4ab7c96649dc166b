"""The settings of how a front is searched: by an explorer while it is swept, by branches when its gaps are filled."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from moalign.errors import unknown
from moalign.frontiers.explorers import EXPLORERS
from moalign.settings import Settings


class ExplorerSettings(Settings):
    """Who says which preferences are trained: all of `preferences`, or an explorer that looks at what was attained."""

    type: str = "grid"
    points: PositiveInt | None = None  # adapters in all; otherwise as many as `preferences` has
    batch: PositiveInt | None = None  # asked for at a time; otherwise one for each objective

    @property
    def adaptive(self) -> bool:
        """Whether what is trained next depends on what was attained, or on a budget."""
        return self.type != "grid" or self.points is not None

    @model_validator(mode="after")
    def _known(self) -> "ExplorerSettings":
        if self.type not in EXPLORERS:
            raise ValueError(unknown("explorer", self.type, EXPLORERS))
        if self.batch is not None and not self.adaptive:
            raise ValueError("'batch' is of an explorer that asks; give 'points' or another type than grid")
        return self


class FillSettings(Settings):
    """How `moalign fill` trains branches into the gaps of a front (C-MORL, stage 2)."""

    select: PositiveInt = 4  # adapters per round that branches set out from, one branch for each objective
    steps: PositiveInt = 60  # of a branch
    pace: PositiveFloat = 0.25  # of the run's learning rate: a branch is to creep along the front, not to leap
    every: PositiveInt = 15  # steps between two offers to the set
    constraint: Literal["barrier", "lagrangian"] = "barrier"
    retain: float = Field(
        default=0.9, gt=0, le=1
    )  # share of each other objective that a branch keeps (C-MORL's beta) ...
    to_the_middle: bool = True  # ... unless the gap's other end has less of it: then down to halfway between the two
    sharpness: PositiveFloat = 20.0  # of the barrier
    validate_every: PositiveInt = 5  # steps between two looks at the constraints
    prompts: PositiveInt = 16  # training prompts that constraints are looked at on
    completions: PositiveInt = 4  # of each
