"""Claims: who is working on what, so that any number of workers may share a run folder."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from moalign.files import storing

STALE_SECONDS = 60.0
_BEAT_SECONDS = 10.0


@contextlib.contextmanager
def claim(folder: Path, key: str) -> Iterator[bool]:
    """Try to claim `key`; yields whether it is ours while the block runs.

    The claim is a file that only one worker can create; its time of change is the heartbeat. It lapses when its
    process is gone (on this machine) or when the heart has not beaten for a minute (on another one).
    """
    path = folder / f"{key}.claim"
    if not _take(path):
        yield False
        return
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    heart.start()
    try:
        yield True
    finally:
        stop.set()
        heart.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    me = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
    for _ in range(2):
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                if not _lapsed(path):
                    return False
                _clear(path)
                continue
            try:
                os.write(handle, me)
            except OSError:
                path.unlink(missing_ok=True)  # an empty claim looks like one being written, and others would wait
                raise
            finally:
                os.close(handle)
            return True
    return False


def _clear(path: Path) -> None:
    """Move a lapsed claim away: of two workers that find it, only one can. A fresh one, if it is that, goes back."""
    aside = path.with_suffix(f".{uuid4().hex[:8]}.lapsed")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if not _lapsed(aside):  # between our look and our move, another worker took the claim
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)


def _lapsed(path: Path) -> bool:
    try:
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            return True
        owner = json.loads(path.read_text())
    except FileNotFoundError:
        return True
    except ValueError:
        return False  # being written just now
    return owner["host"] == socket.gethostname() and not _alive(owner["pid"])


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
