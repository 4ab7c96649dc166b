"""Settings from YAML: unknown keys are refused, and what is wrong is said in one line."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from moalign.errors import ConfigError, unknown


class Settings(BaseModel):
    """A block of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The settings in a YAML file, unchecked; `expected` names some of their keys in errors."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = ", ".join(sorted(item.name for item in path.parent.glob("[!.]*.y*ml"))) if path.parent.is_dir() else ""
        raise ConfigError(f"no such config: {path}" + (f" (beside it: {near})" if near else "")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; expected keys such as {expected}")
    return values


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One line for the first mistake; an unknown key is answered with its near name."""
    first = error.errors()[0]
    # Of the branches of a union that all failed, the one that came furthest is the one that was meant.
    alike = [e for e in error.errors() if e["loc"][:1] == first["loc"][:1]]
    first = max(alike, key=lambda e: (len(e["loc"]), e["type"] == "value_error"))
    location = ".".join(str(part) for part in first["loc"] if not _is_branch(part))
    if first["type"] == "extra_forbidden":
        *parents, key = (part for part in first["loc"] if not _is_branch(part))
        known = _fields(model, parents)
        return unknown("key", str(key), known) + (f" in '{prefix}{'.'.join(map(str, parents))}'" if parents else "")
    message = first["msg"].removeprefix("Value error, ")
    came = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
    return f"{prefix}{location}: {message}{came}" if location else message


def _is_branch(part: int | str) -> bool:
    """Whether a part of pydantic's location names the branch of a union, and no key."""
    return part in ("str", "finite-float") or str(part).endswith("Settings") or any(c in str(part) for c in "[{")


def _fields(model: type[BaseModel], parents: list[Any]) -> list[str]:
    for parent in parents:
        annotation = model.model_fields[parent].annotation if parent in model.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]
