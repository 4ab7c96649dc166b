"""What a user sees while a sweep runs: bars with the time left, and one line when a point lands."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from moalign.frontiers import AddStatus, ParetoPoint


class Reporter:
    """Progress on standard error, so that standard output stays free for results.

    Bars are drawn only on a terminal; lines are always printed. `quiet` prints nothing.
    """

    def __init__(self, *, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def running(self) -> Iterator["Reporter"]:
        """Draw bars while the block runs."""
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        # Off a terminal even an undrawn bar would leave an empty line behind.
        off = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=off) as self._bars:
            try:
                yield self
            finally:
                self._bars, self._tasks = None, {}

    def bar(self, name: str, done: int, total: int, detail: str = "") -> None:
        """Set a bar; a full one disappears."""
        if self._bars is None:
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        text = escape(f"{name}  {detail}" if detail else name)
        self._bars.update(self._tasks[name], completed=done, total=total, description=text)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(name))

    def say(self, line: str) -> None:
        """Print one line."""
        self.console.print(escape(line))

    def notice(self, line: str) -> None:
        """Print one line about something unexpected that was dealt with."""
        self.console.print(f"[yellow]note:[/] {escape(line)}")

    def landed(self, point: ParetoPoint, status: AddStatus, hypervolume: float, done: int, total: int) -> None:
        """One line for a point that was measured: its values, whether it counts, and the volume so far."""
        values = "  ".join(
            f"{escape(name)} [bold]{value:+.3f}[/]{_error(point.standard_errors[name])}"
            for name, value in point.values.items()
        )
        colour = {AddStatus.NEW: "green", AddStatus.REPLACES: "cyan", AddStatus.DOMINATED: "dim"}[status]
        self.console.print(
            f"[dim]{done:>3}/{total}[/] {escape(str(point.preference))}  {values}  kl {point.kl_to_reference:.2f}  "
            f"[{colour}]{status.name}[/]  hypervolume {hypervolume:.4f}"
        )


def _error(error: float) -> str:
    """One prompt has no standard error over prompts."""
    return "" if math.isnan(error) else f" ±{error:.3f}"
