"""A reward of the user's own: any function named `package.module:function`."""

import contextlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions
from moalign.errors import ConfigError, ObjectiveError, unknown
from moalign.files import digest


@dataclass(frozen=True)
class Custom:
    """The numbers that `function(completions, **params)` returns, one per completion; higher is better.

    score(x, y) = function(x, y), at whatever scale and in whatever unit the function has. It must give the same number
    for the same text every time, whatever stands beside it, since each score is computed once and kept. `source` is
    the code that the fingerprint is made from; `load_custom` fills it in.

    >>> def shouted(completions, mark="!"):
    ...     return [text.count(mark) for text in completions.responses]
    >>> Custom("loud", shouted, {"mark": "?"}).score(Completions(["Hi"], ["What??"]))
    array([2.])
    """

    name: str
    function: Callable[..., Any]
    params: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def fingerprint(self) -> str:
        """The function's full name, the code of its module, and the parameters."""
        name = f"{self.function.__module__}:{getattr(self.function, '__qualname__', type(self.function).__name__)}"
        return digest("custom", name, self.source, json.dumps(self.params, sort_keys=True, default=repr))

    def score(self, completions: Completions) -> Float[np.ndarray, " n"]:
        """What the function returns, as float64."""
        return np.asarray(self.function(completions, **self.params), dtype=np.float64)


def load_custom(name: str, path: str, params: dict[str, Any], base: Path | None = None) -> Custom:
    """Find `package.module:function` among what is installed, then in `base`, then in the working directory.

    Raises ObjectiveError if the module is missing or fails to import, or has no such function (near name suggested),
    and ConfigError if the function does not take the parameters.

    >>> load_custom("root", "math:sqroot", {})
    Traceback (most recent call last):
    moalign.errors.ObjectiveError: objective 'root': unknown function of module math 'sqroot'; did you mean 'sqrt'? ...
    """
    function = find_function(f"objective {name!r}", path, base)
    _check_parameters(name, path, function, params)
    return Custom(name, function, params, _source(function))


def find_function(user: str, path: str, base: Path | None = None) -> Callable[..., Any]:
    """The function `package.module:function`, looked for as `load_custom` does; `user` begins the text of its errors.

    >>> find_function("oracle", "math:sqrt")(4.0)
    2.0
    """
    module_name, _, function_name = path.partition(":")
    module = _import(user, module_name, base)
    function = getattr(module, function_name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ObjectiveError(f"{user}: {unknown(f'function of module {module_name}', function_name, known)}")
    if not callable(function):
        raise ObjectiveError(f"{user}: {path} is a {type(function).__name__}, not a function")
    return function


def _import(user: str, module: str, base: Path | None) -> ModuleType:
    with _also_from(base):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
                places = " and ".join(dict.fromkeys(str(folder) for folder in (base, Path.cwd()) if folder))
                raise ObjectiveError(
                    f"{user}: there is no module {error.name!r} (looked among what is installed, and in "
                    f"{places}); put the file there or install its package"
                ) from error
            raise ObjectiveError(f"{user}: module {module!r} needs {error.name!r}, which is not installed") from error
        except Exception as error:
            raise ObjectiveError(f"{user}: importing {module!r} raised {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _also_from(base: Path | None) -> Iterator[None]:
    # At the end of the path, so that a folder of the user's called `datasets` does not hide the library.
    added = [str(folder) for folder in (base, Path.cwd()) if folder is not None and str(folder) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def _check_parameters(name: str, path: str, function: Callable[..., Any], params: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a function written in C may tell nothing about itself
    known = list(signature.parameters)[1:]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    for key in params:
        if key not in known and not takes_any:
            raise ConfigError(unknown(f"parameter of objective {name!r} ({path})", key, known))
    try:
        signature.bind(None, **params)
    except TypeError as error:
        raise ConfigError(
            f"objective {name!r}: {path}{signature} cannot be called with the completions and "
            f"{sorted(params) or 'no parameters'}: {error}"
        ) from error


def _source(function: Callable[..., Any]) -> str:
    # The whole module, because the function's helpers determine its scores too.
    module = inspect.getmodule(function)
    try:
        return inspect.getsource(module or function)
    except (OSError, TypeError):
        return ""  # built into Python, or typed at a prompt: the name alone must do
