"""The settings of MODPO."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, PositiveFloat, PositiveInt


class ModpoSettings(BaseModel):
    """Settings of MODPO. Defaults follow the paper, but for the learning rate: theirs is for a scale of 1/64."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    learns_from: ClassVar[Literal["pairs", "prompts"]] = "pairs"

    beta: PositiveFloat = 0.1  # strength of the KL penalty; also of the implicit rewards
    epochs: PositiveFloat = 3.0
    steps: PositiveInt | None = None  # instead of epochs
    batch_size: PositiveInt = 16  # pairs per step
    learning_rate: PositiveFloat = 2e-4
    weight_decay: NonNegativeFloat = 0.0
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of the steps
    max_gradient_norm: PositiveFloat = 1.0  # of each adapter by itself
    grad_renorm: bool = False  # multiply the loss by w_k: the same optimum, without gradients of size 1/w_k
    standardise_margins: bool = False  # divide each margin by its deviation over the data: weights without units
    reference: Literal["base"] | dict[str, FiniteFloat] = "base"  # or a soup: PEFT folder -> weight (SALSA)
    start: str | None = None  # a PEFT folder; otherwise the first of a soup, or a fresh adapter
    warm_start: bool = False  # begin between the corners, at their soup, and take `warm_share` of the steps
    warm_share: float = Field(default=0.4, gt=0, le=1)

    @property
    def facts(self) -> dict[str, str]:
        """What a report says of the method, beside its name."""
        return {"beta": f"{self.beta:g}"}

    @property
    def oracle_beta(self) -> float | None:
        """The beta of the optimum that this aims at."""
        return self.beta

    def steps_for(self, pairs: int) -> int:
        """Steps over a data set of so many pairs."""
        return self.steps or max(1, round(self.epochs * max(1, pairs // self.batch_size)))
