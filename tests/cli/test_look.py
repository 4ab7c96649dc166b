"""The commands that look at a run: what they print where."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import moalign
from made_runs import THREE, made_run

from moalign.files import write_json
from moalign.runs import Run

Strict = Callable[[str], Any]
POINT = {
    "adapter": str,
    "method": str,
    "preference": dict,
    "values": dict,
    "standard_errors": dict,
    "kl_to_reference": float,
    "kl_to_oracle": type(None),
    "on_front": bool,
}
SUMMARY = {
    "objectives": list,
    "reference_point": list,
    "hypervolume": float,
    "expected_utility": float,
    "sparsity": float,
    "oracle_hypervolume": type(None),
    "hypervolume_ratio": type(None),
    "oracle_hypervolume_at_beta": type(None),
    "hypervolume_ratio_at_beta": type(None),
    "points": list,
}


def test_indicators_are_one_object_with_the_promised_fields(run: Run, strict: Strict) -> None:
    ended = moalign("indicators", run.folder, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = strict(ended.out)
    for name, kind in SUMMARY.items():
        assert isinstance(found[name], kind), name
    assert found["objectives"] == ["warm", "brief"]
    assert len(found["points"]) == 3
    for point in found["points"]:
        for name, kind in POINT.items():
            assert isinstance(point[name], kind), name
        for name in ("preference", "values", "standard_errors"):
            assert set(point[name]) == {"warm", "brief"}


def test_indicators_are_a_table_for_people(run: Run) -> None:
    ended = moalign("indicators", run.folder)
    assert ended.code == 0
    assert "hypervolume" in ended.out
    assert "0.5625" in ended.out
    assert "+1.000 ±0.100" in ended.out


def test_a_table_shows_what_could_not_be_estimated(tmp_path: Path, strict: Strict) -> None:
    """One evaluation prompt has no standard error over prompts."""
    run = made_run(tmp_path, points={"w": THREE["w"]})
    for path in (tmp_path / "points" / "w.json", tmp_path / "reference.json"):
        record = json.loads(path.read_text())
        (record if "values" in record else record["base"])["standard_errors"] = {"warm": None, "brief": None}
        write_json(path, record)
    ended = moalign("indicators", run.folder)
    assert (ended.code, ended.err) == (0, "")
    assert "nan" not in ended.out.lower()
    assert strict(moalign("indicators", run.folder, "--json").out)["points"][0]["standard_errors"]["warm"] is None


def test_the_report_is_written_beside_the_points(run: Run, strict: Strict) -> None:
    pytest.importorskip("moalign.dashboards")
    ended = moalign("report", run.folder, "--json")
    assert ended.code == 0, ended.err
    assert strict(ended.out) == {"report": str(run.folder / "report.html")}
    assert "<html" in (run.folder / "report.html").read_text()
