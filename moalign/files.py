"""Writing so that nothing is ever half written, and names made from contents."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from moalign.errors import StorageError


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` into one clear line."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cannot write {path}: {reason}; what was finished before is intact, free some space and "
            "give the same command again"
        ) from error


def flush(folder: Path) -> None:
    """Make sure that the files of a folder are on the disk, before it is renamed in."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write beside `path`, flush to the disk, and rename in: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    with storing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` for UTF-8 text."""
    atomic_write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: JSON has neither."""
    atomic_write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value that `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_line(path: Path, text: str) -> None:
    """Append one line in a single write, so that several workers may append to one file."""
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            data = (text + "\n").encode()
            if os.write(handle, data) != len(data):  # a nearly full disk takes a part and reports no error
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)


def digest(*parts: bytes | str) -> str:
    """A name made from contents: 32 hexadecimal digits of SHA-256, each part prefixed by its length.

    >>> digest("a", "bc") == digest("ab", "c")
    False
    """
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's contents, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def create_once(path: Path, value: Any) -> None:
    """Write `value` as JSON unless the file exists; of several writers the first wins, and none sees a part of it."""
    beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    write_json(beside, value)
    with storing(path):
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        finally:
            beside.unlink(missing_ok=True)
