"""Every kind of source gives the same rows, each with its place; what cannot be read is named."""

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moalign.data import Row, read_rows
from moalign.errors import DataError

ROWS = [
    {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"},
    {"prompt": "Grüße", "chosen": "Schön!", "rejected": "…"},
]
SHARED = Path(__file__).parents[3] / "shared" / "data"


def _lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _write(kind: str, folder: Path) -> str:
    """Write ROWS as a source of this kind in `folder`; the source's name relative to it."""
    if kind == "jsonl":
        (folder / "a.jsonl").write_bytes(_lines(ROWS))
        return "a.jsonl"
    if kind == "jsonl.gz":
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(_lines(ROWS)))
        return "a.jsonl.gz"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
        return "a.parquet"
    data = datasets.Dataset.from_list(ROWS)
    if kind == "saved":
        data.save_to_disk(str(folder / "saved"))
        return "saved"
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(str(folder / "splits"))
    return "splits"


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("jsonl", "a.jsonl:2"),
        ("jsonl.gz", "a.jsonl.gz:2"),
        ("parquet", "a.parquet:2"),
        ("saved", "saved:2"),
        ("splits", "splits:train:2"),
    ],
)
def test_every_kind_gives_the_same_rows(kind: str, where: str, tmp_path: Path) -> None:
    """One content in five containers: equal values, counted from 1."""
    rows = list(read_rows(_write(kind, tmp_path), base=tmp_path))
    assert [row.values for row in rows] == ROWS
    assert rows[1].where == where


def test_messages_and_scores_survive_parquet_and_saved_data_sets(tmp_path: Path) -> None:
    """Nested fields come back as lists and mappings; a key that a row lacks is null."""
    rows = [
        {"prompt": [{"role": "user", "content": "Hi"}], "scores": {"warm": 1.0}},
        {"prompt": [{"role": "user", "content": "Ho"}], "scores": {"warm": None, "brief": 2.0}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    for source in ("a.parquet", "saved"):
        values = [row.values for row in read_rows(source, base=tmp_path)]
        assert values[0]["prompt"] == rows[0]["prompt"]
        assert values[0]["scores"]["warm"] == 1.0
        assert values[1]["scores"]["warm"] is None


def test_a_split_is_named_after_a_colon(tmp_path: Path) -> None:
    """`splits:test` holds the second row only; `:dev` is unknown; one data set or a file has no splits."""
    _write("splits", tmp_path)
    assert [row.values for row in read_rows("splits:test", base=tmp_path)] == ROWS[1:]
    with pytest.raises(DataError, match=r"unknown split .*'tset'; did you mean 'test'\?"):
        list(read_rows("splits:tset", base=tmp_path))
    _write("saved", tmp_path)
    with pytest.raises(DataError, match="one data set without splits"):
        list(read_rows("saved:train", base=tmp_path))
    _write("jsonl", tmp_path)
    with pytest.raises(DataError, match=r"a\.jsonl is a file and has no splits"):
        read_rows("a.jsonl:train", base=tmp_path)


def test_the_config_folder_comes_before_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same name in both places: `base` wins; a name in the working directory only is found there."""
    for folder in ("config", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text(json.dumps({"prompt": folder}))
    (tmp_path / "here" / "b.jsonl").write_text(json.dumps({"prompt": "only here"}))
    monkeypatch.chdir(tmp_path / "here")
    read = [next(read_rows(name, base=tmp_path / "config")).values["prompt"] for name in ("a.jsonl", "b.jsonl")]
    assert read == ["config", "only here"]
    assert next(read_rows("a.jsonl")).values["prompt"] == "here"
    assert next(read_rows(str(tmp_path / "config" / "a.jsonl"))).values["prompt"] == "config"


def test_a_missing_file_is_named_with_its_neighbours(tmp_path: Path) -> None:
    """One letter off: the file that is there is suggested, before a single row is read."""
    _write("jsonl.gz", tmp_path)
    with pytest.raises(
        DataError, match=r"no file or folder 'b\.jsonl\.gz' \(looked for .*did you mean 'a\.jsonl\.gz'\?"
    ):
        read_rows("b.jsonl.gz", base=tmp_path)
    with pytest.raises(DataError, match=r"no file or folder 'nowhere/x/y' .*expected a \.jsonl"):
        read_rows("nowhere/x/y", base=tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt\nHi\n")
    with pytest.raises(DataError, match=r"cannot read a file of this kind; expected \.jsonl, \.jsonl\.gz, \.parquet"):
        read_rows("a.csv", base=tmp_path)


def test_a_folder_that_datasets_did_not_save_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jsonl").write_bytes(_lines(ROWS))
    with pytest.raises(DataError, match=r"is not a folder that `datasets` saved .*a\.jsonl"):
        list(read_rows("folder", base=tmp_path))


def test_a_line_that_is_no_object_is_a_fault_with_its_place(tmp_path: Path) -> None:
    """Blank lines are skipped but counted: the faults are lines 3 (cut off), 4 (a list) and 5 (Latin-1)."""
    data = b'\xef\xbb\xbf{"prompt": "Hi"}\n\n{"prompt": "H\n[1]\n{"prompt": "Gr\xfc\xdfe"}\n'
    (tmp_path / "a.jsonl").write_bytes(data)
    rows = list(read_rows("a.jsonl", base=tmp_path))
    assert rows[0] == Row({"prompt": "Hi"}, "a.jsonl:1")
    assert [row.where for row in rows[1:]] == ["a.jsonl:3", "a.jsonl:4", "a.jsonl:5"]
    assert rows[1].fault is not None
    assert rows[1].fault.startswith("not JSON: Unterminated string")
    assert rows[1].values == {"line": '{"prompt": "H'}
    assert rows[2].fault == "a JSON list; expected an object, {...}"
    assert rows[3].fault == "not UTF-8 at byte 15 of the line"


def test_a_damaged_gzip_stops_at_the_line(tmp_path: Path) -> None:
    """Half of a compressed file: the rows before the end come, then an error that names the next line."""
    lines = _lines([{"prompt": str(i) * 50} for i in range(2000)])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines)[:-20])
    rows = read_rows("a.jsonl.gz", base=tmp_path)
    assert next(rows).where == "a.jsonl.gz:1"
    with pytest.raises(DataError, match=r"a\.jsonl\.gz:\d+: cannot read on .*damaged or cut short"):
        list(rows)
    (tmp_path / "b.jsonl.gz").write_bytes(lines)
    with pytest.raises(DataError, match=r"b\.jsonl\.gz:1: cannot read on .*Not a gzipped file"):
        list(read_rows("b.jsonl.gz", base=tmp_path))


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"a\.parquet:1: .* is no parquet file or is damaged"):
        list(read_rows("a.parquet", base=tmp_path))


def test_a_hub_name_is_loaded_by_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """`org/name:test` asks `datasets` for that split; no file of that name is needed."""
    asked = []

    def load_dataset(name: str, split: str) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert next(read_rows("org/name")).where == "org/name:train:1"
    assert next(read_rows("org/name:test")).where == "org/name:test:1"
    assert asked == [("org/name", "train"), ("org/name", "test")]


def test_a_hub_name_that_fails_says_both_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, split: str) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"no file or folder 'org/name', and .*\(ConnectionError: no route\)$"):
        list(read_rows("org/name"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_files_are_read() -> None:
    """The row counts that the data's README states."""
    counts = {"pairs_hh_helpful": 1762, "pairs_hh_harmless": 1699, "ratings_summeval": 1232}
    for name, count in counts.items():
        rows = list(read_rows(f"{name}.jsonl.gz", base=SHARED))
        assert (len(rows), rows[-1].fault) == (count, None)
