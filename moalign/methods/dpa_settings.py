"""The settings of directional preference alignment."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from moalign.conditioning import TEMPLATE, Wording
from moalign.direction import Direction, Spread
from moalign.errors import ConfigError
from moalign.methods.sft import SftSettings


class DpaSettings(BaseModel):
    """Settings of directional preference alignment; the wording and the cone of the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    learns_from: ClassVar[Literal["pairs", "prompts"]] = "prompts"
    warm_start: ClassVar[bool] = False
    oracle_beta: ClassVar[float | None] = None  # it has no KL penalty, so no optimum of one beta

    rounds: PositiveInt = 4  # of sampling, selecting and fine-tuning, each from the adapter of the one before
    plain_rounds: NonNegativeInt = 1  # first rounds whose prompts state no direction, since nobody could follow it yet
    prompts: PositiveInt | None = None  # per round, fresh ones while there are any; otherwise all in every round
    completions: PositiveInt = 8  # per prompt and direction, of which one is kept
    directions_per_prompt: PositiveInt = 1  # each with completions of its own
    reuse_across_directions: PositiveInt = 1  # directions that choose from the same ones, drawn under the first alone
    kind: Spread = "uniform_angle"
    centre: dict[str, FiniteFloat] | None = None  # a direction; otherwise all objectives alike
    cone: float = Field(default=45.0, gt=0, le=180)  # largest angle to the centre, in degrees
    directions: list[dict[str, FiniteFloat]] | None = None  # to measure at; otherwise one for each preference
    standardise: bool = True  # divide each objective by its deviation over the round's completions
    template: str = TEMPLATE
    names: dict[str, str] = {}  # objective -> its word in the prompt
    order: list[str] | None = None  # of the objectives in the prompt; otherwise the run's
    scale: PositiveInt = 100  # of the integers in the prompt
    style: Literal["numbers", "tally"] = "numbers"  # tally: a word for each unit, for bases that cannot read numbers
    place: Literal["system", "user"] = "system"
    separator: str = "\n\n"  # between the direction and what stands beside it
    reference: Literal["base"] | dict[str, FiniteFloat] = "base"  # of the measured KL; or a soup: folder -> weight
    start: str | None = None  # a PEFT folder; otherwise the first of a soup, or a fresh adapter
    max_new_tokens: PositiveInt | None = None  # of a completion; otherwise evaluation.max_new_tokens
    epochs: PositiveFloat = 2.0  # over what was kept, in each round
    steps: PositiveInt | None = None  # of each round, instead of epochs
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-4
    weight_decay: NonNegativeFloat = 0.0
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of the steps
    max_gradient_norm: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _possible(self) -> "DpaSettings":
        if self.plain_rounds > self.rounds:
            raise ValueError(f"plain_rounds is {self.plain_rounds}, of {self.rounds} rounds; expected at most as many")
        if self.centre is not None:
            Direction.of(self.centre)
        try:
            Wording(tuple(self.order or ["?"]), self.template)  # names are checked when the objectives are known
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def wording(self, objectives: Sequence[str]) -> Wording:
        """How prompts state a direction of these objectives. Raises ConfigError if `order` or `names` do not fit."""
        order = tuple(self.order or objectives)
        Direction.of(dict.fromkeys(order, 1.0)).vector(objectives)  # names what is unknown ...
        Direction.of(dict.fromkeys(objectives, 1.0)).vector(order)  # ... and what is missing
        return Wording(order, self.template, self.names, self.scale, self.style, self.place, self.separator)

    def middle(self, objectives: Sequence[str]) -> Float[np.ndarray, " m"]:
        """The centre of the cone. Raises PreferenceError, with the near name, if it names an unknown objective."""
        return Direction.of(self.centre or dict.fromkeys(objectives, 1.0)).vector(objectives)

    def tuning(self, steps: int | None = None) -> SftSettings:
        """How a round is fine-tuned on what it kept, in so many steps or in its epochs."""
        return SftSettings(
            epochs=self.epochs,
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            max_gradient_norm=self.max_gradient_norm,
        )

    def steps_for(self, prompts: int) -> int:
        """Steps of one round, where there are so many training prompts."""
        each = self.directions_per_prompt * self.reuse_across_directions
        return self.tuning(self.steps).steps_for(each * min(self.prompts or prompts, prompts))

    @property
    def facts(self) -> dict[str, str]:
        """What a report says of the method, beside its name."""
        shared = self.reuse_across_directions
        note = f"; {shared} choose from completions drawn under the first" if shared > 1 else ""
        return {
            "rounds": f"{self.rounds}, best of {self.completions}",
            "directions": f"within {self.cone:g} degrees, {self.kind.replace('_', ' ')}{note}",
        }
