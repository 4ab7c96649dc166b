"""Settings of methods that train by the losses of another one."""

from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moalign.methods.modpo_settings import ModpoSettings
from moalign.methods.online_settings import OnlineSettings
from moalign.settings import explain

_INNER: dict[str, type[ModpoSettings] | type[OnlineSettings]] = {"modpo": ModpoSettings, "online": OnlineSettings}


class InnerSettings(BaseModel):
    """Whose losses, and with which settings; what a sweep asks of settings is answered by these."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["modpo", "online"] = "modpo"
    settings: dict[str, Any] = Field(default_factory=dict)  # of that method

    @model_validator(mode="after")
    def _inner_settings(self) -> "InnerSettings":
        model = _INNER[self.by]
        try:
            inner = model.model_validate(self.settings)
        except ValidationError as error:
            raise ValueError(explain(error, model, "settings.settings.")) from None
        if inner.warm_start:
            raise ValueError(
                "settings.settings.warm_start: only corners are trained, and nothing lies between them yet"
            )
        # Written out, so that a default and the same setting given are the same settings, on disk and in keys.
        object.__setattr__(self, "settings", inner.model_dump(mode="json"))
        return self

    @cached_property
    def inner(self) -> ModpoSettings | OnlineSettings:
        """The settings of the method whose losses are used."""
        return _INNER[self.by].model_validate(self.settings)

    @property
    def learns_from(self) -> Literal["pairs", "prompts"]:
        """What the losses need."""
        return self.inner.learns_from

    @property
    def beta(self) -> float:
        """Strength of the KL penalty."""
        return self.inner.beta

    @property
    def oracle_beta(self) -> float | None:
        """The beta of the optimum that this aims at."""
        return self.inner.oracle_beta

    @property
    def reference(self) -> Literal["base"] | dict[str, float]:
        """What KL is measured from."""
        return self.inner.reference

    @property
    def start(self) -> str | None:
        """Where training begins."""
        return self.inner.start

    @property
    def warm_start(self) -> bool:
        """Never: the corners are all there is."""
        return False

    @property
    def max_new_tokens(self) -> int | None:
        """Of a rollout."""
        return self.inner.max_new_tokens if isinstance(self.inner, OnlineSettings) else None

    @property
    def facts(self) -> dict[str, str]:
        """What a report says of the method, beside its name."""
        return {"losses": self.by, **self.inner.facts}

    def steps_for(self, amount: int) -> int:
        """Steps over so many pairs or prompts."""
        return self.inner.steps_for(amount)
