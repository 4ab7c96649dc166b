"""A cache of floats that survives kills, damage and company; and scores that are computed once."""

import logging
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign import cache
from moalign.batches import Completions, Prompt
from moalign.cache import FloatCache, score_cached
from moalign.errors import ObjectiveError, StorageError
from moalign.objectives import Length, ObjectiveSet


class Counting:
    """Scores a text by its length, and remembers what it was asked."""

    def __init__(self, name: str = "counted", fingerprint: str = "v1", bad: str | None = None) -> None:
        self.name, self.fingerprint, self.bad = name, fingerprint, bad
        self.asked: list[tuple[Prompt, str]] = []

    def score(self, completions: Completions) -> np.ndarray:
        self.asked += zip(completions.prompts, completions.responses, strict=True)
        return np.array([math.nan if text == self.bad else len(text) / 3 for text in completions.responses])


def _score(objective: Counting, folder: Path, *texts: str, prompt: Prompt = "p") -> list[float]:
    completions = Completions([prompt] * len(texts), texts)
    return score_cached(ObjectiveSet([objective]), completions, folder)[:, 0].tolist()


@settings(max_examples=40)  # each writes to the disk, and waits for it
@given(values=st.dictionaries(st.text(max_size=5), st.floats(), max_size=8))
def test_floats_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, values: dict[str, float]) -> None:
    """Every double, -0.0, infinity and NaN included, from the disk and from memory."""
    folder = tmp_path_factory.mktemp("cache")
    writer = FloatCache(folder, "n")
    writer.put_many(values)
    for reader in (writer, FloatCache(folder, "n")):
        found = reader.get_many(list(values))
        assert {k: (math.copysign(1, v), repr(v)) for k, v in found.items() if v == v} == {
            k: (math.copysign(1, v), repr(v)) for k, v in values.items() if v == v
        }
        assert {k for k, v in found.items() if v != v} == {k for k, v in values.items() if v != v}


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    assert FloatCache(tmp_path / "none", "n").get_many(["a"]) == {}
    FloatCache(tmp_path, "n").put_many({})
    assert list(tmp_path.iterdir()) == []


def test_namespaces_are_apart(tmp_path: Path) -> None:
    FloatCache(tmp_path, "n").put_many({"a": 1.0})
    assert FloatCache(tmp_path, "m").get_many(["a"]) == {}


def test_another_workers_shards_are_noticed(tmp_path: Path) -> None:
    """Both opened before anything was written."""
    one, other = FloatCache(tmp_path, "n"), FloatCache(tmp_path, "n")
    assert other.get_many(["a"]) == {}
    one.put_many({"a": 1.0})
    assert other.get_many(["a"]) == {"a": 1.0}
    one.put_many({"b": 2.0})
    assert other.get_many(["a", "b"]) == {"a": 1.0, "b": 2.0}


WRITE_FIFTY = """
import sys
from pathlib import Path
from moalign.cache import FloatCache

store, worker = FloatCache(Path(sys.argv[1]), "n"), int(sys.argv[2])
for i in range(50):
    store.put_many({f"{worker}/{i}": worker + i / 7, "shared": 0.1})
"""


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """Two writers, 50 shards each: all 100 values are there, and nothing else is."""
    workers = [subprocess.Popen([sys.executable, "-c", WRITE_FIFTY, str(tmp_path), str(i)]) for i in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    keys = [f"{worker}/{i}" for worker in range(2) for i in range(50)]
    found = FloatCache(tmp_path, "n").get_many([*keys, "shared"])
    assert found == {f"{w}/{i}": w + i / 7 for w in range(2) for i in range(50)} | {"shared": 0.1}


def test_a_damaged_shard_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One digit changed: still JSON, but not what its name says. The other shard counts; a new put mends it."""
    store = FloatCache(tmp_path, "n")
    store.put_many({"a": 1.5})
    (shard,) = (tmp_path / "n").iterdir()
    store.put_many({"b": 2.5})
    shard.write_text(shard.read_text().replace("1.5", "7.5"))
    with caplog.at_level(logging.WARNING, logger="moalign"):
        reader = FloatCache(tmp_path, "n")
        assert reader.get_many(["a", "b"]) == {"b": 2.5}
        assert reader.get_many(["a", "b"]) == {"b": 2.5}
    assert [record.getMessage() for record in caplog.records] == [f"cache shard {shard} is damaged and is left out"]
    reader.put_many({"a": 1.5})
    assert FloatCache(tmp_path, "n").get_many(["a"]) == {"a": 1.5}


def test_a_shard_that_cannot_be_read_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "n" / "folder.jsonl").mkdir(parents=True)
    assert FloatCache(tmp_path, "n").get_many(["a"]) == {}
    assert "cannot be read" in caplog.text


def test_half_written_files_are_not_read(tmp_path: Path) -> None:
    """What a kill leaves is a hidden .tmp file beside the shards."""
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / ".abc.jsonl.1234.tmp").write_text('["a", 1.0')
    assert FloatCache(tmp_path, "n").get_many(["a"]) == {}


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot write"):
        FloatCache(tmp_path, "n").put_many({"a": 1.0})


def test_nothing_is_scored_twice(tmp_path: Path) -> None:
    """Repeats in one call, a second call, and a new process's first call: three texts, scored once each."""
    first, second = Counting(), Counting()
    assert _score(first, tmp_path, "a", "bb", "a") == [1 / 3, 2 / 3, 1 / 3]
    assert _score(first, tmp_path, "bb", "ccc", "a") == [2 / 3, 1.0, 1 / 3]
    assert [text for _, text in first.asked] == ["a", "bb", "ccc"]
    assert _score(second, tmp_path, "ccc", "a", "bb") == [1.0, 1 / 3, 2 / 3]
    assert second.asked == []


def test_the_key_is_objective_prompt_and_response(tmp_path: Path) -> None:
    """Another fingerprint or prompt is scored anew; another name is not; conversations count by content."""
    _score(Counting(), tmp_path, "a")
    renamed, changed, asked = Counting("renamed"), Counting(fingerprint="v2"), Counting()
    _score(renamed, tmp_path, "a")
    _score(changed, tmp_path, "a")
    _score(asked, tmp_path, "a", prompt="q")
    _score(asked, tmp_path, "a", prompt=[{"role": "user", "content": "q"}])
    _score(asked, tmp_path, "a", prompt=[{"content": "q", "role": "user"}])
    assert (len(renamed.asked), len(changed.asked), len(asked.asked)) == (0, 1, 2)


def test_an_interruption_loses_one_chunk_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 2: the NaN is in the third, so four scores are kept; the error counts in the caller's list."""
    monkeypatch.setattr(cache, "CHUNK", 2)
    with pytest.raises(ObjectiveError, match="objective 'counted' returned nan for response 6 "):
        _score(Counting(bad="f"), tmp_path, "a", "b", "a", "c", "d", "e", "f")
    again = Counting()
    _score(again, tmp_path, "a", "b", "a", "c", "d", "e", "f")
    assert [text for _, text in again.asked] == ["e", "f"]


def test_columns_are_those_of_the_set(tmp_path: Path) -> None:
    """As `ObjectiveSet.score` gives them, fresh or from the disk; no completion gives no row."""
    objectives = ObjectiveSet([Length("brief"), Counting(), Length("short", unit="characters")])
    completions = Completions(["p", "q"], ["one two", ""])
    for _ in range(2):
        np.testing.assert_array_equal(score_cached(objectives, completions, tmp_path), objectives.score(completions))
    assert score_cached(objectives, Completions([], []), tmp_path).shape == (0, 3)
