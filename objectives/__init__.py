"""Objectives: what there is to trade off. Each is a number per completion, and higher is always better.

base          Objective (the Protocol), ObjectiveSet (a fixed order: the columns of all scores)
length        Length: minus the words or characters
format        Format: matches a pattern, contains a text, or is JSON
lexical       Lexical: weights of the phrases found
repetition    Repetition: minus the share of repeated n-grams
reward_model  RewardModel: a head of any sequence-classification model
implicit      Implicit: beta times the log-ratio of an adapter; built where the bank is, not from settings
custom        Custom: any `package.module:function`
"""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from moalign.errors import ConfigError, unknown
from moalign.objectives.base import Objective, ObjectiveSet, checked_scores, fingerprint
from moalign.objectives.custom import Custom, find_function, load_custom
from moalign.objectives.format import Format
from moalign.objectives.implicit import Implicit
from moalign.objectives.length import Length
from moalign.objectives.lexical import Lexical
from moalign.objectives.repetition import Repetition
from moalign.objectives.reward_model import RewardModel

OBJECTIVES: dict[str, type] = {
    "format": Format,
    "length": Length,
    "lexical": Lexical,
    "repetition": Repetition,
    "reward_model": RewardModel,
}


def build_objective(name: str, settings: dict[str, Any], base: Path | None = None) -> Objective:
    """The objective that a configuration describes: ``{"type": "length", "per": 10}``.

    `type` is a name in OBJECTIVES, or `package.module:function` for a function of your own; the other settings are its
    parameters, and its module is looked for in `base`, the folder of the configuration, too. Raises ConfigError for an
    unknown type or setting (near name suggested), a missing one, or one of the wrong type.

    >>> build_objective("brief", {"type": "length", "per": 10})
    Length(name='brief', unit='words', per=10.0)
    >>> build_objective("brief", {"type": "length", "pre": 10})
    Traceback (most recent call last):
    moalign.errors.ConfigError: unknown setting of objective 'brief' (type length) 'pre'; did you mean 'per'? ...
    """
    parameters = dict(settings)
    kind = parameters.pop("type", None)
    if not isinstance(kind, str):
        raise ConfigError(
            f"objective {name!r} has no type; expected one of {', '.join(OBJECTIVES)}, or module:function"
        )
    if ":" in kind:
        return load_custom(name, kind, parameters, base)
    if kind not in OBJECTIVES:
        raise ConfigError(unknown(f"type of objective {name!r}", kind, [*OBJECTIVES, "package.module:function"]))
    parameters = _checked(name, kind, parameters)
    return OBJECTIVES[kind](name, **parameters)


def _checked(name: str, kind: str, parameters: dict[str, Any]) -> dict[str, Any]:
    known = {field.name: field for field in fields(OBJECTIVES[kind]) if field.name != "name"}
    types = get_type_hints(OBJECTIVES[kind])
    for key, value in parameters.items():
        if key not in known:
            raise ConfigError(unknown(f"setting of objective {name!r} (type {kind})", key, known))
        try:
            parameters[key] = TypeAdapter(types[key], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(f"objective {name!r}: {key} is {value!r}; {reason[0].lower()}{reason[1:]}") from error
    for key, field in known.items():
        if key not in parameters and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"objective {name!r} (type {kind}) needs the setting {key!r}")
    return parameters


__all__ = [
    "OBJECTIVES",
    "Custom",
    "Format",
    "Implicit",
    "Length",
    "Lexical",
    "Objective",
    "ObjectiveSet",
    "Repetition",
    "RewardModel",
    "build_objective",
    "checked_scores",
    "find_function",
    "fingerprint",
    "load_custom",
]
