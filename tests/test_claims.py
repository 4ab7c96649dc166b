"""Who works on what: one worker at a time, and nobody waits for a worker that is gone."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moalign import claims
from moalign.claims import STALE_SECONDS, claim
from moalign.errors import StorageError


def put(folder: Path, *, host: str | None = None, pid: int | None = None, age: float = 0.0) -> Path:
    """A claim that another worker left behind."""
    path = folder / "a1.claim"
    path.write_text(json.dumps({"host": host or socket.gethostname(), "pid": pid or os.getpid()}))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_claimed_is_not_claimed_twice_and_is_free_afterwards(tmp_path: Path) -> None:
    with claim(tmp_path, "a1") as first, claim(tmp_path, "a1") as second, claim(tmp_path, "a2") as other:
        assert (first, second, other) == (True, False, True)
    with claim(tmp_path, "a1") as again:
        assert again
    assert list(tmp_path.iterdir()) == []


def test_an_error_gives_the_claim_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), claim(tmp_path, "a1"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_claim_of_a_dead_process_lapses_at_once(tmp_path: Path) -> None:
    put(tmp_path, pid=gone())
    with claim(tmp_path, "a1") as mine:
        assert mine
    assert list(tmp_path.iterdir()) == []


def test_a_claim_on_another_machine_lapses_when_its_heart_stops(tmp_path: Path) -> None:
    """Nobody can ask there whether the process lives; a minute without a beat is the answer."""
    put(tmp_path, host="elsewhere", pid=1)
    with claim(tmp_path, "a1") as mine:
        assert not mine
    put(tmp_path, host="elsewhere", pid=1, age=STALE_SECONDS + 1)
    with claim(tmp_path, "a1") as mine:
        assert mine


def test_a_claim_that_is_being_written_counts(tmp_path: Path) -> None:
    """It exists before its text does; that it is empty does not mean that nobody holds it."""
    (tmp_path / "a1.claim").write_text("")
    with claim(tmp_path, "a1") as mine:
        assert not mine


def test_the_heart_beats_while_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_BEAT_SECONDS", 0.01)
    with claim(tmp_path, "a1"):
        path = tmp_path / "a1.claim"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_of_two_workers_that_find_a_lapsed_claim_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one has looked before the faster one claims; it must not move the fresh claim away."""
    path = put(tmp_path, pid=gone())
    looked = claims._lapsed

    def look_and_dawdle(which: Path) -> bool:
        found = looked(which)
        if which == path:
            monkeypatch.setattr(claims, "_lapsed", looked)
            put(tmp_path)  # meanwhile the other, which lives, has taken its place
        return found

    monkeypatch.setattr(claims, "_lapsed", look_and_dawdle)
    with claim(tmp_path, "a1") as mine:
        assert not mine
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert [item.name for item in tmp_path.iterdir()] == ["a1.claim"]


def test_a_full_disk_leaves_no_claim_that_others_would_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(claims.os, "write", full)
        with pytest.raises(StorageError, match="No space left on device"), claim(tmp_path, "a1"):
            pass
    assert list(tmp_path.iterdir()) == []
