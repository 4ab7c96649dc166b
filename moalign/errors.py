"""Every error that moalign raises on purpose.

MoalignError
+- BusyError            a server that has no room for one more request now
+- UserError            the user can mend it: the command line prints one line and exits with 2
   +- ConfigError       a setting is unknown, missing or impossible
   +- PreferenceError   weights that are no preference, or that name an unknown objective
   +- DataError         a row, a file or a data set that cannot be used
   +- ObjectiveError    an objective that raised, returned NaN or the wrong length
   +- AdapterError      an adapter that is damaged or not linear in its row
   +- BaseModelError    a base model that cannot be found or lacks what is asked of it
   +- RunError          a run folder that does not fit the command
   +- StorageError      the disk refused; what was finished before is intact
   +- MemoryLimitError  the smallest possible piece of work does not fit in memory
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MoalignError(Exception):
    """Root of the tree."""


class BusyError(MoalignError):
    """A server has no room for one more request; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0):
        super().__init__(message)
        self.retry_after = retry_after


class UserError(MoalignError):
    """Something the user can mend; its text is one clear line."""


class ConfigError(UserError):
    """A setting is unknown, missing or impossible."""


class PreferenceError(UserError, ValueError):
    """Weights that are no preference, or that name an unknown objective."""


class DataError(UserError, ValueError):
    """A row, a file or a data set that cannot be used."""


class ObjectiveError(UserError):
    """An objective raised, returned NaN or the wrong number of scores."""


class AdapterError(UserError):
    """An adapter is damaged, or is not linear in its row."""


class BaseModelError(UserError):
    """A base model cannot be found, or lacks what is asked of it."""


class RunError(UserError):
    """A run folder does not fit the command."""


class StorageError(UserError, OSError):
    """The disk refused; what was finished before is intact."""


class MemoryLimitError(UserError):
    """The smallest possible piece of work does not fit in memory."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that does not exist: what came, the near name, and what there is.

    >>> unknown("objective", "helpfull", ["brief", "helpful"])
    "unknown objective 'helpfull'; did you mean 'helpful'? (known: brief, helpful)"
    >>> unknown("objective", "x", [])
    "unknown objective 'x' (known: none)"
    """
    names = [str(item) for item in known]
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(names) or 'none'})"
