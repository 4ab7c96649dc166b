"""Nothing is ever half written: an old file, or a new one, or one clear line and the old file."""

import errno
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moalign.errors import StorageError
from moalign.files import (
    append_line,
    atomic_write_bytes,
    atomic_write_text,
    create_once,
    digest,
    file_digest,
    read_json,
    storing,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_written_whole_and_nothing_beside(tmp_path):
    """Missing folders are made, an old file is replaced, and no temporary file stays."""
    path = tmp_path / "deep" / "er" / "file.txt"
    for text in ("one", "zwei, drei: ä €"):
        atomic_write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    atomic_write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    """The disk refuses at the last moment: the old contents stand, and the line says what to do."""
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")

    def refuse(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), refuse)
    with pytest.raises(StorageError, match=r"cannot write .*file.txt: No space left on device; .*same command again"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_append_to_a_full_disk():
    """A device that is always full."""
    with pytest.raises(StorageError, match="cannot write /dev/full: No space left on device"):
        append_line(Path("/dev/full"), "a line")


def test_a_folder_in_the_way(tmp_path):
    """A file where a folder should be, and a folder where a file should be."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "inner.txt", tmp_path):
        with pytest.raises(StorageError, match="cannot write"):
            atomic_write_text(path, "x")
    assert names(tmp_path) == ["file"]


def test_kill_leaves_the_old_file(tmp_path):
    """A process killed between the write and the rename: the file is the old one, whole."""
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    program = (
        "import os, sys; from pathlib import Path; from moalign import files\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), 9)\n"
        "files.atomic_write_text(Path(sys.argv[1]), 'new' * 100000)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["file.txt"]


def test_readers_never_see_a_part(tmp_path):
    """One thread writes 4 MB over and over; another only ever reads one of the two versions."""
    path = tmp_path / "file.txt"
    versions = {"a" * 2_000_000, "b" * 2_000_000}
    atomic_write_text(path, min(versions))
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for text in versions:
                atomic_write_text(path, text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(path.read_text() in versions for _ in range(30))
    finally:
        stop.set()
        writer.join()


def test_appended_lines_do_not_mix(tmp_path):
    """Eight writers, fifty lines each: every line is whole, and none is lost."""
    path = tmp_path / "logs" / "metrics.jsonl"
    writers = [
        threading.Thread(target=lambda n=n: [append_line(path, json.dumps([n, i, "x" * 500])) for i in range(50)])
        for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [tuple(json.loads(line)[:2]) for line in path.read_text().splitlines()]
    assert sorted(found) == [(n, i) for n in range(8) for i in range(50)]


def test_json_there_and_back(tmp_path):
    value = {"a": [1, 2.5, None, True, "ä"], "b": {}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_json_has_no_nan(tmp_path, value):
    """Refused before anything is written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", value)
    assert names(tmp_path) == []


def test_the_first_of_several_writers_wins(tmp_path):
    """Eight writers at once: one file, one of their values, and the same for ever after."""
    path = tmp_path / "fixed.json"
    writers = [threading.Thread(target=create_once, args=(path, n)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    first = read_json(path)
    assert first in range(8)
    create_once(path, 99)
    assert read_json(path) == first
    assert names(tmp_path) == ["fixed.json"]


def test_storing_lets_other_errors_through(tmp_path):
    """Only the operating system's refusals become StorageError; the error that came stays its cause."""
    with pytest.raises(KeyError), storing(tmp_path):
        raise KeyError("x")
    with pytest.raises(StorageError) as caught, storing(tmp_path):
        raise OSError("said without a number")
    assert "said without a number" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_digest_knows_where_parts_end():
    """Length before contents: ("a", "bc"), ("ab", "c") and ("abc",) are three names; text is its UTF-8 bytes."""
    parts = [("a", "bc"), ("ab", "c"), ("abc",), ("abc", ""), ()]
    assert len({digest(*part) for part in parts}) == len(parts)
    assert digest("ä", b"x") == digest("ä".encode(), "x")
    assert len(digest("a")) == 32


def test_file_digest(tmp_path):
    """SHA-256 of the three bytes "abc", as FIPS 180-2 prints it."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
