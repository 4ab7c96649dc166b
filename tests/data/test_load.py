"""Whole sources: good rows in order, bad rows refused or set aside."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moalign.data import load_completions, load_pairs, load_prompts, load_scored
from moalign.errors import DataError, StorageError

SHARED = Path(__file__).parents[3] / "shared" / "data"
GOOD = {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}
BAD = {"prompt": "Hi", "chosen": "Hello.", "rejected": ""}


def _source(folder: Path, *rows: dict[str, Any] | str) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "train.jsonl")


def test_pairs_are_observed_choices(tmp_path: Path) -> None:
    """Probability 1, and the place of each row."""
    pairs, skipped = load_pairs(_source(tmp_path, GOOD, {**GOOD, "prompt": "Ho"}))
    assert (list(pairs.prompts), skipped) == (["Hi", "Ho"], 0)
    assert pairs.probability.tolist() == [1.0, 1.0]
    assert list(pairs.source) == ["train.jsonl:1", "train.jsonl:2"]


def test_a_bad_row_stops_with_file_line_and_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_pairs(_source(tmp_path, GOOD, BAD))
    assert str(caught.value) == "train.jsonl:2: 'rejected' is empty (skip_bad_rows: true sets such rows aside)"
    with pytest.raises(DataError, match=r"^train\.jsonl:1: not JSON: .* at character 1 of the line \(skip_bad_rows"):
        load_pairs(_source(tmp_path, "oh no", GOOD))


def test_bad_rows_are_set_aside_with_their_count(tmp_path: Path) -> None:
    """Two of three rows are bad; what was wrong, and the row itself, stand in the quarantine file."""
    quarantine = tmp_path / "quarantine" / "helpful.jsonl"
    source = _source(tmp_path, BAD, GOOD, '{"prompt": "H')
    pairs, skipped = load_pairs(source, quarantine=quarantine)
    assert (len(pairs), skipped) == (1, 2)
    first, second = map(json.loads, quarantine.read_text().splitlines())
    assert first == {"where": "train.jsonl:1", "reason": "'rejected' is empty", "row": BAD}
    assert second["where"] == "train.jsonl:3"
    assert second["row"] == {"line": '{"prompt": "H'}
    load_pairs(_source(tmp_path, GOOD), quarantine=quarantine)
    assert quarantine.read_text() == ""  # mended: the old list is out of date


def test_no_quarantine_file_without_bad_rows(tmp_path: Path) -> None:
    assert load_pairs(_source(tmp_path, GOOD), quarantine=tmp_path / "q.jsonl").skipped == 0
    assert not (tmp_path / "q.jsonl").exists()


def test_only_bad_rows_or_none_is_an_error(tmp_path: Path) -> None:
    quarantine = tmp_path / "q.jsonl"
    with pytest.raises(DataError, match=r"all 2 rows are bad; the first: train\.jsonl:1: 'rejected' is empty"):
        load_pairs(_source(tmp_path, BAD, BAD), quarantine=quarantine)
    assert len(quarantine.read_text().splitlines()) == 2
    with pytest.raises(DataError, match="there are no rows in it"):
        load_pairs(_source(tmp_path, ""))


def test_the_limit_counts_good_rows_and_reads_no_further(tmp_path: Path) -> None:
    """The bad row after the second good one is never met."""
    source = _source(tmp_path, GOOD, GOOD, BAD)
    assert len(load_pairs(source, limit=2).pairs) == 2
    with pytest.raises(DataError, match=r"train\.jsonl:3"):
        load_pairs(source, limit=3)


def test_a_quarantine_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        load_pairs(_source(tmp_path, GOOD, BAD), quarantine=tmp_path / "file" / "q.jsonl")


def test_prompts_keep_their_order(tmp_path: Path) -> None:
    assert load_prompts(_source(tmp_path, {"prompt": "b"}, GOOD, {"prompt": "b"})) == ["b", "Hi", "b"]
    with pytest.raises(DataError, match=r"train\.jsonl:1: no 'prompt' field"):
        load_prompts(_source(tmp_path, {"text": "b"}))


def test_completions_keep_their_order_and_set_bad_rows_aside(tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "completion": prompt.upper()} for prompt in ("b", "a")]
    source = _source(tmp_path, rows[0], "oh no", rows[1], rows[0])
    loaded = load_completions(source, quarantine=tmp_path / "q.jsonl")
    assert (loaded.completions.prompts, loaded.completions.responses) == (["b", "a", "b"], ["B", "A", "B"])
    assert loaded.skipped == 1
    assert len(load_completions(source, limit=1).completions) == 1
    with pytest.raises(DataError, match=r"train\.jsonl:2: not JSON"):
        load_completions(source)


def test_scores_that_a_row_lacks_are_nan(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "response": str(i), "scores": scores} for i, scores in enumerate(({"a": 1}, {"b": 2}))]
    scored, skipped = load_scored(_source(tmp_path, *rows))
    np.testing.assert_array_equal(scored.scores["a"], [1, np.nan])
    np.testing.assert_array_equal(scored.scores["b"], [np.nan, 2])
    assert (scored.responses, scored.source, skipped) == (["0", "1"], ["train.jsonl:1", "train.jsonl:2"], 0)


def test_a_column_is_one_score(tmp_path: Path) -> None:
    """A column that no row has is answered with the near name of a score that some row has."""
    source = _source(tmp_path, {"prompt": "Hi", "response": "a", "likes": 3})
    assert load_scored(source, "likes").scored.scores["likes"].tolist() == [3.0]
    source = _source(tmp_path, {"prompt": "Hi", "response": "a", "scores": {"likes": 3}})
    with pytest.raises(DataError, match=r"unknown score 'like'; did you mean 'likes'\?"):
        load_scored(source, "like")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_data_load(tmp_path: Path) -> None:
    """Three of the 1762 helpful pairs have an empty response, the first in line 89; ratings have five attributes."""
    with pytest.raises(DataError, match=r"^pairs_hh_helpful\.jsonl\.gz:89: 'rejected' is empty"):
        load_pairs("pairs_hh_helpful.jsonl.gz", base=SHARED)
    pairs, skipped = load_pairs("pairs_hh_helpful.jsonl.gz", base=SHARED, quarantine=tmp_path / "q.jsonl")
    assert (len(pairs), skipped) == (1759, 3)
    ratings = load_scored("ratings_just_eval_multi.jsonl.gz", base=SHARED).scored
    assert set(ratings.scores) == {"helpfulness", "clarity", "factuality", "depth", "engagement"}
    stories = load_completions("sft_fairytale_qa.jsonl.gz", base=SHARED, limit=100).completions
    assert stories.responses[:2] == ["delightfully cold", "the sun"]
    assert len(load_prompts("pairs_hh_harmless.jsonl.gz", base=SHARED, limit=10)) == 10
