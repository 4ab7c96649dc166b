"""A small port to experiment trackers; metrics.jsonl is always written, these only where they are asked for."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from moalign.errors import ConfigError


@runtime_checkable  # the tests check annotations at run time
class Tracker(Protocol):
    """Takes numbers by name."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step."""
        ...

    def finish(self) -> None:
        """Write what is left."""
        ...


def open_trackers(names: Sequence[str], folder: Path) -> list[Tracker]:
    """The trackers that a config names. Raises ConfigError with the command that installs a missing one."""
    return [_TRACKERS[name](folder) for name in names]


def _installed(module: str, extra: str):
    try:
        return import_module(module)
    except ImportError:
        raise ConfigError(f"tracker {extra!r} is not installed; pip install 'moalign[{extra}]'") from None


class _TensorBoard:
    def __init__(self, folder: Path):
        module = _installed("torch.utils.tensorboard", "tensorboard")
        self._writer = module.SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


class _RunTracker:
    """trackio and wandb share one interface."""

    def __init__(self, module: str, folder: Path):
        self._module = _installed(module, module)
        self._module.init(project="moalign", name=folder.name)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log(dict(values), step=step)

    def finish(self) -> None:
        self._module.finish()


_TRACKERS = {
    "tensorboard": _TensorBoard,
    "trackio": lambda folder: _RunTracker("trackio", folder),
    "wandb": lambda folder: _RunTracker("wandb", folder),
}
