"""Who weighs the objectives while a policy trains online. Numpy alone: the trainer measures, a weighter decides.

base         Observation (what it sees), Weighting (what it answers), RewardWeighter (the Protocol)
fixed        Fixed: the preference, always
hypervolume  Hypervolume: the preference, and larger updates while the validated front advances
gradient     Gradient: mirror descent on the weights by the objectives' influence on each other
constrained  Constrained: one objective climbs, the others stay above thresholds (C-MORL's second stage)

`WEIGHTERS` names them; one of your own is `package.module:Class` (examples/tchebycheff.py).
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError

from moalign.errors import ConfigError, ObjectiveError, UserError, unknown
from moalign.weighting.averaged import Averaged
from moalign.weighting.base import Observation, RewardWeighter, Weighting
from moalign.weighting.constrained import Constrained, barrier_multipliers, thresholds_from
from moalign.weighting.fixed import Fixed
from moalign.weighting.gradient import Gradient
from moalign.weighting.hypervolume import Hypervolume

WEIGHTERS: dict[str, type] = {
    "fixed": Fixed,
    "hypervolume": Hypervolume,
    "gradient": Gradient,
    "constrained": Constrained,
}


def build_weighter(
    kind: str, preference: Float[np.ndarray, " m"], settings: dict[str, Any], base: Path | None = None
) -> RewardWeighter:
    """The weighter that a configuration names, for one preference: one weight >= 0 per objective, of sum 1.

    `kind` is a name in WEIGHTERS, or `package.module:Class` for one of your own, which is looked for among what is
    installed, in `base`, the folder of the configuration, and in the working directory. The settings are the keyword
    arguments of the class, and are checked against their annotations, of a user's class too. Raises ConfigError, in
    one line, for an unknown kind or setting (near name suggested), a setting that is missing or of the wrong type, a
    class that cannot be found or made, and one that is no weighter.

    >>> build_weighter("gradient", np.array([0.5, 0.5]), {"mu": 0.1}).needs
    frozenset({'gram'})
    >>> build_weighter("hypervolume", np.array([0.5, 0.5]), {"evry": 2})
    Traceback (most recent call last):
    moalign.errors.ConfigError: unknown setting of weighting 'hypervolume' 'evry'; did you mean 'every'? ...
    """
    if ":" not in kind and kind not in WEIGHTERS:
        raise ConfigError(unknown("weighting", kind, [*WEIGHTERS, "package.module:Class"]))
    make = _find(kind, base) if ":" in kind else WEIGHTERS[kind]
    try:
        weighter = make(preference, **_checked(kind, make, settings))
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(f"weighting {kind!r}: making it raised {type(error).__name__}: {error}") from error
    expected = ("needs", "validation_every", "update", "state_dict", "load_state_dict")
    missing = [name for name in expected if not hasattr(weighter, name)]
    if missing:
        raise ConfigError(f"weighting {kind!r} has no {', '.join(missing)}; see moalign.weighting.RewardWeighter")
    return weighter


def _find(kind: str, base: Path | None) -> Callable[..., Any]:
    from moalign.objectives import find_function  # here, because objectives bring torch

    try:
        return find_function(f"weighting {kind!r}", kind, base)
    except ObjectiveError as error:
        raise ConfigError(str(error)) from error


def _checked(kind: str, make: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, each in the type that the signature of `make` gives it: an integer for a float becomes one."""
    parameters = list(inspect.signature(make).parameters.values())
    if not parameters:
        raise ConfigError(f"weighting {kind!r} takes no parameters; expected Class(preference, **settings)")
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {p.name: p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    # Checked are the types, not the ranges: those are the class's own to know.
    types = get_type_hints(make.__init__ if inspect.isclass(make) else make)
    checked = dict(settings)
    for key, value in settings.items():
        if key == parameters[0].name or (key not in known and not takes_any):
            raise ConfigError(unknown(f"setting of weighting {kind!r}", key, known))
        if key in known and key in types:
            try:
                checked[key] = TypeAdapter(types[key]).validate_python(value, strict=True)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                line = f"weighting {kind!r}: {key} is {value!r}; {reason[0].lower()}{reason[1:]}"
                raise ConfigError(line) from error
    for key, parameter in known.items():
        if key not in settings and parameter.default is parameter.empty:
            raise ConfigError(f"weighting {kind!r} needs the setting {key!r}")
    return checked


__all__ = [
    "WEIGHTERS",
    "Averaged",
    "Constrained",
    "Fixed",
    "Gradient",
    "Hypervolume",
    "Observation",
    "RewardWeighter",
    "Weighting",
    "barrier_multipliers",
    "build_weighter",
    "thresholds_from",
]
