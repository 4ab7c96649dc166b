"""The settings of online alignment."""

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from moalign.errors import ConfigError
from moalign.losses import Aggregation, Estimator
from moalign.weighting import build_weighter


class OnlineSettings(BaseModel):
    """Settings of online alignment; with the defaults, GDPO (arXiv 2601.05242) with an exact KL penalty."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    learns_from: ClassVar[Literal["pairs", "prompts"]] = "prompts"

    estimator: Estimator = "grpo"
    aggregation: Aggregation = "normalize_then_sum"
    weighting: str | dict[str, Any] = "fixed"  # hypervolume, gradient, package.module:Class; {type: ..., its settings}
    reference: Literal["base"] | dict[str, FiniteFloat] = "base"  # or a soup: PEFT folder -> weight (SALSA)
    start: str | None = None  # a PEFT folder; otherwise the first of a soup, or a fresh adapter
    kl: Literal["k1", "k2", "k3"] = "k1"  # k1 has the true gradient; k2 and k3 are the usual losses per token
    beta: NonNegativeFloat = 0.1  # strength of the KL penalty against the (normalised) advantage
    steps: PositiveInt = 100  # batches of rollouts
    prompts: PositiveInt = 8  # per batch
    completions: PositiveInt = 8  # per prompt and preference
    updates: PositiveInt = 1  # optimiser steps per batch of rollouts; 1 is exactly on-policy
    clip: PositiveFloat = 0.2  # the ratio stays within 1 - clip ...
    clip_high: PositiveFloat | None = None  # ... and 1 + clip_high, which is clip unless given
    max_new_tokens: PositiveInt | None = None  # of a rollout; otherwise evaluation.max_new_tokens
    mask_truncated: bool = False  # completions without an end are no lesson
    learning_rate: PositiveFloat = 2e-4
    weight_decay: NonNegativeFloat = 0.0
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of the steps
    max_gradient_norm: PositiveFloat = 1.0  # of each adapter by itself
    validation_prompts: PositiveInt = 16  # for weightings that look at progress; kept out of the rollouts
    validation_completions: PositiveInt = 4
    kl_budget: PositiveFloat | None = None  # nats per completion; a preference that passes it stops before it did
    length_budget: PositiveFloat | None = None  # mean tokens per completion; the same
    entropy_floor: float = Field(default=0.1, ge=0, lt=1)  # share of the first entropy below which a collapse is told
    warm_start: bool = False  # begin between the corners, at their soup, and take `warm_share` of the steps
    warm_share: float = Field(default=0.4, gt=0, le=1)

    @model_validator(mode="after")
    def _groups_to_compare(self) -> "OnlineSettings":
        if self.completions == 1 and self.estimator != "reinforce":
            raise ValueError(
                f"completions is 1, but estimator {self.estimator!r} compares the completions of a prompt; expected at "
                "least 2 (4 to 16 are usual), or estimator 'reinforce'"
            )
        return self

    @model_validator(mode="after")
    def _known_weighting(self) -> "OnlineSettings":
        kind, settings = self.weighter
        if ":" not in kind:  # a class of the user's own is looked for when its run is known
            try:
                build_weighter(kind, np.array([0.5, 0.5]), settings)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return self

    @property
    def weighter(self) -> tuple[str, dict[str, Any]]:
        """The kind of `weighting`, and its own settings."""
        asked = {"type": self.weighting} if isinstance(self.weighting, str) else dict(self.weighting)
        return str(asked.pop("type", "fixed")), asked

    def steps_for(self, _prompts: int) -> int:
        """Steps do not depend on how many prompts there are."""
        return self.steps

    @property
    def facts(self) -> dict[str, str]:
        """What a report says of the method, beside its name."""
        return {
            "beta": f"{self.beta:g}, {self.kl}",
            "estimator": f"{self.estimator}, {self.aggregation.replace('_', ' ')}",
            "weighting": self.weighter[0],
        }

    @property
    def oracle_beta(self) -> float | None:
        """The beta of the optimum that this aims at; None where advantages have no units, and beta none of theirs."""
        unitless = self.aggregation == "normalize_then_sum" or self.estimator == "grpo"
        return None if unitless or not self.beta else self.beta
