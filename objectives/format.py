"""Whether a response has the form that was asked for: 1 or 0."""

import json
import re
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives.base import fingerprint


@dataclass(frozen=True)
class Format:
    """1 for a response of the right form, 0 for any other.

    score(y) = [form(y)], where exactly one form is given: `pattern`, a regular expression that the whole response must
    match (write ``(?s)`` in front for a dot that matches line breaks); `contains`, a text that must stand in it; or
    `json`, that it must be one JSON value as RFC 8259 has it (NaN is none). Nothing is stripped before the test. The
    empty response scores as the form says: 0 for JSON. Raises ConfigError if none or several forms are given, or the
    pattern is no regular expression.

    >>> Format("starred", pattern=r"[*] .+").score(Completions(["a", "b"], ["* yes", "yes"]))
    array([1., 0.])
    """

    name: str
    pattern: str | None = None
    contains: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        forms = (self.pattern is not None) + (self.contains is not None) + self.json
        if forms != 1:
            raise ConfigError(
                f"objective {self.name!r}: {forms} forms are given; expected one of pattern, contains, json: true"
            )
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ConfigError(f"objective {self.name!r}: pattern is no regular expression: {error}") from error

    @property
    def fingerprint(self) -> str:
        """The form."""
        return fingerprint("format", pattern=self.pattern, contains=self.contains, json=self.json)

    def score(self, completions: Completions) -> Float[np.ndarray, " n"]:
        """1.0 or 0.0 for each response."""
        return np.array([self._fits(text) for text in completions.responses], dtype=np.float64)

    def _fits(self, text: str) -> bool:
        if self.pattern is not None:
            return re.fullmatch(self.pattern, text) is not None
        if self.contains is not None:
            return self.contains in text
        return _is_json(text)


def _is_json(text: str) -> bool:
    try:
        # Numbers stay text: an integer of 5,000 digits is JSON, though Python declines to read it.
        json.loads(text, parse_constant=_refuse, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
