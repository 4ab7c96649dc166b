"""A folder of PEFT folders, each with the record of how it came to be."""

import json
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

from moalign.adapters import WEIGHTS_FILE, Adapter, read_adapter, write_adapter
from moalign.errors import AdapterError, unknown
from moalign.files import file_digest, flush, read_json, storing

RECORD_FILE = "record.json"


class AdapterStore:
    """Adapters by key. A key's folder appears whole, by a rename, or not at all.

    The record holds what the trainer says of the adapter (base, method, preference, data, seed, parents, versions)
    and the SHA-256 of its weights, which is checked whenever they are read.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def keys(self) -> list[str]:
        """The keys that are stored, in alphabetical order; unfinished folders are not among them."""
        if not self.folder.is_dir():
            return []
        return sorted(path.parent.name for path in self.folder.glob(f"[!.]*/{RECORD_FILE}"))

    def __contains__(self, key: str) -> bool:
        return (self.folder / key / RECORD_FILE).is_file()

    def save(self, key: str, adapter: Adapter, record: dict[str, Any], base_name: str) -> None:
        """Store under `key`; an adapter that is already there is left as it is. Raises StorageError on a full disk."""
        final = self.folder / key
        beside = self.folder / f".{key}.{uuid4().hex[:8]}"
        try:
            write_adapter(adapter, beside, base_name)
            with storing(final):
                record = {**record, "sha256": file_digest(beside / WEIGHTS_FILE)}
                (beside / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
                flush(beside)
                self._move_in(beside, final)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _move_in(self, beside: Path, final: Path) -> None:
        try:
            beside.rename(final)
        except OSError:
            if final.name not in self:  # else another worker was first
                raise

    def load(self, key: str) -> Adapter:
        """The adapter. Raises AdapterError if there is none of that key or its weights are not those recorded."""
        record = self.record(key)
        path = self.folder / key / WEIGHTS_FILE
        if path.is_file() and file_digest(path) != record.get("sha256"):
            raise AdapterError(
                f"{path} does not match the digest in its {RECORD_FILE}: it was damaged or changed; delete the folder "
                "to train it again"
            )
        return read_adapter(self.folder / key)

    def record(self, key: str) -> dict[str, Any]:
        """How the adapter came to be."""
        if key not in self:
            raise AdapterError(unknown("adapter", key, self.keys()))
        return read_json(self.folder / key / RECORD_FILE)
