"""The numbers that a merge takes beside adapters and weights, as a command line gives them."""

import inspect
from collections.abc import Callable, Mapping

from moalign.adapters import Adapter
from moalign.errors import ConfigError, unknown

# Without these a merge is the plain soup, and its name would promise something else.
NEEDED = {"bone": "beta", "extrapolate": "strength"}


def options_of(method: str, merge: Callable[..., Adapter], given: Mapping[str, float]) -> dict[str, float]:
    """The options as the merge takes them: whole numbers where it counts. The rank is not among them.

    Raises ConfigError, with near names, for an option that the merge does not have, one that is no whole number where
    one is expected, and for one that it needs and that is missing.

    >>> from moalign.merging import dare
    >>> options_of("dare", dare, {"density": 0.5, "seed": 3.0})
    {'density': 0.5, 'seed': 3}
    """
    known = {
        name: parameter.annotation
        for name, parameter in inspect.signature(merge).parameters.items()
        if parameter.annotation in (int, float)
    }
    found: dict[str, float] = {}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(unknown(f"option of merge method {method!r}", name, known))
        if known[name] is int and value != int(value):
            raise ConfigError(f"option {name!r} of merge method {method!r} is {value:g}; expected a whole number")
        found[name] = known[name](value)
    needed = NEEDED.get(method)
    if needed is not None and needed not in found:
        raise ConfigError(
            f"merge method {method!r} is the plain soup unless it is told its {needed}: give {needed}=NUMBER"
        )
    return found
