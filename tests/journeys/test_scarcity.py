"""A disk that is full, a memory that is small: the run stays whole, and goes on when there is more."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mistakes import World, refused, whole

from moalign.logprobs import Scorer
from moalign.runs import Run


@pytest.fixture
def world(tmp_path: Path, base: Path) -> World:
    return World(tmp_path, base)


class FullDisk:
    """Every write from the n-th on is refused, as on a disk that has filled up."""

    def __init__(self, patch: pytest.MonkeyPatch, writes: int):
        self.left = writes
        for name in ("fsync", "write"):
            patch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments)

        return counted


@pytest.mark.parametrize("writes", [0, 3, 8, 14, 21])
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_space(world: World, writes: int) -> None:
    """Full at the config, in the cache, at a checkpoint, between two adapters, while measuring."""
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, writes)
        refused(world.sweep(), "cannot write", str(world.run), "No space left on device", "same command again")
    whole(world.run)
    ended = world.sweep()
    assert ended.code == 0, ended.err
    assert len(Run.open(world.run).front()) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("mount") is None, reason="needs Linux's tmpfs")
def test_a_disk_that_is_really_full(world: World, small_disk: Path) -> None:
    """The adapters alone do not fit; with more space the same command ends well."""
    world.run = small_disk / "run"
    refused(world.sweep(adapter={"rank": 8}), "cannot write", "No space left on device")
    whole(world.run)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    ended = world.sweep(adapter={"rank": 8})
    assert ended.code == 0, ended.err
    assert len(Run.open(world.run).front()) == 2
    for line in (world.run / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_out_of_memory_halves_the_pass_and_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that holds two pairs of the eight in a step."""
    logprobs = Scorer.logprobs

    def small(self: Scorer, tokens: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and tokens.responses > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return logprobs(self, tokens)

    monkeypatch.setattr(Scorer, "logprobs", small)
    ended = world.sweep()
    assert ended.code == 0, ended.err
    assert "note: out of memory with 8 pairs in one pass; going on with 4" in ended.err
    assert "note: out of memory with 4 pairs in one pass; going on with 2" in ended.err
    assert len(Run.open(world.run).front()) == 2


def test_a_pair_that_does_not_fit_by_itself_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    logprobs = Scorer.logprobs

    def tiny(self: Scorer, tokens: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return logprobs(self, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "logprobs", tiny)
        ended = world.sweep()
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("moalign: out of memory with a single pair")
    whole(world.run)
    assert world.sweep().code == 0
