"""Sweeps of the tiny world that go wrong, and what a user may expect of that."""

from pathlib import Path
from typing import Any

import tiny_world
from command import Ended, moalign

QUICK: dict[str, Any] = {
    "preferences": {"corners": True},
    "settings": {"beta": 0.5, "steps": 2, "batch_size": 4},
    "evaluation": {"prompts": 2, "samples": 2, "max_new_tokens": 5},
}


def refused(ended: Ended, *names: str) -> None:
    """Exit 2 and one line, which names what is wrong."""
    assert ended.code == 2, ended.err
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("moalign: ")
    for name in names:
        assert name in line


def whole(folder: Path) -> None:
    """Nothing is half written: no temporary file, no adapter without its record, no claim that others wait for."""
    assert list(folder.rglob("*.tmp")) == []
    assert list(folder.rglob(".*")) == []
    assert list(folder.rglob("*.claim")) == []
    for adapter in (folder / "adapters").glob("*"):
        assert (adapter / "record.json").is_file()


class World:
    """Configs in a folder, and the command on them."""

    def __init__(self, folder: Path, base: Path):
        self.folder, self.base, self.run = folder, base, folder / "run"

    def sweep(self, **changes: Any) -> Ended:
        config = tiny_world.write_config(self.folder, changes.pop("base", self.base), **QUICK | changes)
        return moalign("sweep", config, "--out", self.run)

    def config(self, text: str) -> Ended:
        (self.folder / "sweep.yaml").write_text(text)
        return moalign("sweep", self.folder / "sweep.yaml", "--out", self.run)

    def write(self, name: str, rows: list[dict[str, Any]]) -> str:
        return tiny_world.write_rows(self.folder / name, rows).name
