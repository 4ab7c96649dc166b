"""Rows of a file, a folder or a `datasets` name, each with the place it came from."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from moalign.errors import DataError, unknown


@dataclass(frozen=True)
class Row:
    """One row: its fields, and where it stands, such as "train.jsonl.gz:17" (the first row is 1).

    `fault` is set if the row could not be read at all; `values` then holds the raw line.
    """

    values: dict[str, Any]
    where: str
    fault: str | None = None


def read_rows(source: str, base: Path | None = None) -> Iterator[Row]:
    """The rows of a source, one by one.

    A source is a .jsonl, .jsonl.gz or .parquet file, a folder that `datasets` saved, or a name on the `datasets` hub
    ("org/name"). A folder that holds several splits and a hub name take ":split" (default "train"). A relative path is
    looked for in `base`, the folder of the configuration, then in the working directory. Blank lines are skipped, but
    counted.

    Raises DataError at once if there is no such source (near file names suggested), and on the way if a file is
    damaged; a single line that is no JSON object comes as a Row with a `fault`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "train.jsonl").write_text('{"prompt": "Hi"}')
    ...     list(read_rows("train.jsonl", base=Path(folder)))
    [Row(values={'prompt': 'Hi'}, where='train.jsonl:1', fault=None)]
    """
    path, split = _locate(source, base)
    if path is None:
        return _hub_rows(source, split)
    if path.is_dir():
        return _saved_rows(path, split)
    if split is not None:
        raise DataError(f"{source}: {path.name} is a file and has no splits; leave out ':{split}'")
    for ending, reader in READERS.items():
        if path.name.endswith(ending):
            return reader(path)
    raise DataError(f"{source}: cannot read a file of this kind; expected {', '.join(READERS)}")


def _locate(source: str, base: Path | None) -> tuple[Path | None, str | None]:
    """The path that `source` names, or None for a name on the hub, and the split that it asks for."""
    name, colon, split = source.rpartition(":")
    readings: list[tuple[str, str | None]] = [(source, None)]
    if colon and split and "/" not in split:
        readings.append((name, split))
    looked: list[Path] = []
    for text, wanted in readings:
        for folder in (base, Path()):
            path = (folder or Path()) / Path(text).expanduser()
            if path.exists():
                return path, wanted
            looked.append(path)
    text, wanted = readings[-1]
    if _may_be_hub_name(text):
        return None, wanted
    places = list(dict.fromkeys(str(path) for path in looked[-2:]))
    names = {found.name for path in looked[-2:] if path.parent.is_dir() for found in path.parent.iterdir()}
    near = get_close_matches(Path(text).name, sorted(names), n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise DataError(
        f"there is no file or folder {text!r} (looked for {' and '.join(places)}){hint or '; '}"
        + ("" if hint else "expected a .jsonl, .jsonl.gz or .parquet file, a saved data set, or a hub name org/name")
    )


def _may_be_hub_name(text: str) -> bool:
    parts = text.split("/")
    return len(parts) == 2 and all(parts) and not text.startswith((".", "~")) and not text.endswith(tuple(READERS))


def _json_lines(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _json_row(line.rstrip(b"\r\n"), f"{path.name}:{number}")
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path.name}:{number + 1}: cannot read on in {path} ({error}); it is damaged or cut short, fetch it again"
        ) from error


def _json_row(line: bytes, where: str) -> Row:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Row({"line": repr(line)}, where, f"not UTF-8 at byte {error.start + 1} of the line")
    except json.JSONDecodeError as error:
        return Row({"line": line.decode()}, where, f"not JSON: {error.msg} at character {error.pos + 1} of the line")
    except (ValueError, RecursionError) as error:
        return Row({"line": line.decode()}, where, f"not JSON that can be read: {error}")
    if not isinstance(values, dict):
        return Row({"line": values}, where, f"a JSON {type(values).__name__}; expected an object, {{...}}")
    return Row(values, where)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path.name}:{number}")
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path.name}:{number + 1}: {path} is no parquet file or is damaged: {reason}") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".jsonl.gz": _json_lines,
    ".parquet": _parquet,
}


def _saved_rows(path: Path, split: str | None) -> Iterator[Row]:
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:  # a damaged folder fails in pyarrow, json, fsspec or datasets itself
        raise DataError(
            f"{path} is not a folder that `datasets` saved ({_short(error)}); expected the result of save_to_disk, or "
            f"name one of its files: {', '.join(sorted(p.name for p in path.iterdir())[:5])}"
        ) from error
    name = path.name
    if isinstance(data, datasets.DatasetDict):
        split = split or "train"
        if split not in data:
            raise DataError(unknown(f"split of {path}", split, map(str, data)))
        data, name = data[split], f"{name}:{split}"
    elif split is not None:
        raise DataError(f"{path} is one data set without splits; leave out ':{split}'")
    return _rows_of(data, name)


def _hub_rows(source: str, split: str | None) -> Iterator[Row]:
    import datasets

    split = split or "train"
    name = source.removesuffix(f":{split}")
    try:
        data = datasets.load_dataset(name, split=split)
    except Exception as error:  # what is raised depends on the hub, the network and the data set's format
        raise DataError(
            f"there is no file or folder {name!r}, and `datasets` could not load it as a hub name ({_short(error)})"
        ) from error
    return _rows_of(data, f"{name}:{split}")


def _rows_of(data: Any, name: str) -> Iterator[Row]:
    return (Row(dict(values), f"{name}:{number}") for number, values in enumerate(data, 1))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
