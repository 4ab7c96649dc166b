"""Commands that are stopped at some moment: by what has happened in their folder, not by the clock."""

import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import workers


def state(folder: Path) -> set[tuple[str, int, int]]:
    """What is in a folder, as names, times and sizes: it changes with every file that is written or removed."""
    found = set()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                found.add((path, status.st_mtime_ns, status.st_size))
    return found


def stopped_after(
    changes: int, arguments: list[str], folder: Path, log: Path, how: signal.Signals = signal.SIGKILL
) -> int | None:
    """Run the command until the folder has changed so many times, then send it a signal; how it ended."""
    process = workers.start(arguments, log)
    seen, deadline = state(folder), time.monotonic() + 150
    while changes > 0 and process.is_alive():
        assert time.monotonic() < deadline, log.read_text()
        now = state(folder)
        if now != seen:
            seen, changes = now, changes - 1
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join()
    return process.exitcode


def killed_at(flush: int, arguments: list[str], log: Path) -> int | None:
    """Run the command, which kills itself as it flushes so many files to the disk; how it ended."""
    process = multiprocessing.get_context("forkserver").Process(target=_kill_at, args=(flush, arguments, str(log)))
    process.start()
    process.join(150)
    return process.exitcode


def _kill_at(flush: int, arguments: list[str], log: str) -> None:
    left, fsync = flush, os.fsync

    def counted(handle: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = counted
    workers._run(arguments, log)


def finish(arguments: list[str], log: Path) -> None:
    """Run the command to its good end."""
    process = workers.start(arguments, log)
    process.join(150)
    assert process.exitcode == 0, log.read_text()
