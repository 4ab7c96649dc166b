"""Adapters on disk: whole or not at all, and never another than the one that was stored."""

import json
from pathlib import Path

import pytest
import torch

from moalign.adapters import WEIGHTS_FILE, Adapter, LowRank
from moalign.errors import AdapterError, StorageError
from moalign.store import RECORD_FILE, AdapterStore


def adapter(value: float = 1.0) -> Adapter:
    return Adapter({"q": LowRank(torch.full((2, 3), value), torch.ones(4, 2), 2.0)}, ("q",))


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    store = AdapterStore(tmp_path / "adapters")
    store.save("a1", adapter(), {"seed": 3}, "org/base")
    return store


def test_an_adapter_comes_back_with_its_record(store: AdapterStore) -> None:
    found = store.load("a1")
    assert torch.equal(found.layers["q"].A, torch.ones(2, 3))
    assert found.layers["q"].scale == 2.0
    assert store.record("a1")["seed"] == 3
    assert "a1" in store
    assert store.keys() == ["a1"]


def test_a_store_that_nobody_has_written_to_is_empty(tmp_path: Path) -> None:
    assert AdapterStore(tmp_path / "none").keys() == []
    assert "a1" not in AdapterStore(tmp_path / "none")


def test_what_is_stored_stays_as_it_is(store: AdapterStore) -> None:
    """Of two workers that finish one adapter, the first wins; the second leaves nothing behind."""
    store.save("a1", adapter(5.0), {"seed": 4}, "org/base")
    assert torch.equal(store.load("a1").layers["q"].A, torch.ones(2, 3))
    assert [path.name for path in store.folder.iterdir()] == ["a1"]


def test_an_unfinished_folder_is_no_adapter(store: AdapterStore) -> None:
    """What a kill leaves is hidden, or lacks its record, which is written last."""
    (store.folder / ".a2.1234abcd").mkdir()
    (store.folder / ".a2.1234abcd" / RECORD_FILE).write_text("{}")
    (store.folder / "a3").mkdir()
    assert store.keys() == ["a1"]
    assert "a3" not in store


def test_weights_that_are_not_those_recorded_are_refused(store: AdapterStore) -> None:
    path = store.folder / "a1" / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # one bit of the last number
    path.write_bytes(data)
    with pytest.raises(AdapterError, match=r"a1.adapter_model.safetensors does not match the digest"):
        store.load("a1")


def test_a_pickle_in_the_place_of_safetensors_is_refused(store: AdapterStore) -> None:
    weights = store.folder / "a1" / WEIGHTS_FILE
    weights.rename(weights.with_name("adapter_model.bin"))
    with pytest.raises(AdapterError, match=r"adapter_model.bin, a pickle that can run code"):
        store.load("a1")


def test_an_unknown_key_is_answered_with_the_near_one(store: AdapterStore) -> None:
    with pytest.raises(AdapterError, match="unknown adapter 'a11'; did you mean 'a1'"):
        store.load("a11")


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_a_full_disk_leaves_nothing_half_written(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = "moalign.files.os.fsync" if moment == "fsync" else "pathlib.Path.rename"
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        with pytest.raises(StorageError, match=r"adapters/a2: No space left on device; what was finished .* intact"):
            store.save("a2", adapter(), {}, "org/base")
    assert [path.name for path in store.folder.iterdir()] == ["a1"]
    store.save("a2", adapter(), {}, "org/base")
    assert store.keys() == ["a1", "a2"]


def test_the_record_is_json_that_people_can_read(store: AdapterStore) -> None:
    record = json.loads((store.folder / "a1" / RECORD_FILE).read_text())
    assert set(record) == {"seed", "sha256"}
    assert len(record["sha256"]) == 64
