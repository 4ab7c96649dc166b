"""The command line's contract: what is printed where, and how commands end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import moalign
from made_runs import THREE, made_run

from moalign import __version__
from moalign.adapters import Adapter
from moalign.files import write_json
from moalign.models import load_base
from moalign.runs import Run

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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, random_adapter: Callable[..., Adapter]) -> Run:
    model = load_base(str(tiny_base)).model
    adapters = {key: random_adapter(model, seed) for seed, key in enumerate(THREE)}
    return made_run(tmp_path_factory.mktemp("runs") / "mine", tiny_base, adapters=adapters)


def strict(text: str) -> Any:
    """JSON as others read it: one object, and no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_indicators_are_one_object_with_the_promised_fields(run: Run) -> None:
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


def test_a_table_shows_what_could_not_be_estimated(tmp_path: Path) -> None:
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


def test_generate_prints_the_text_alone(run: Run) -> None:
    """Another line on standard output would end up in somebody's file."""
    arguments = ("generate", run.folder, "--prefer", "warm=3,brief=1", "--max-new-tokens", 8)
    plain, full = moalign(*arguments, "Hello?"), moalign(*arguments, "Hello?", "--json")
    assert (plain.code, plain.err, full.code, full.err) == (0, "", 0, "")
    said = strict(full.out)
    assert plain.out == said["text"] + "\n"
    assert set(said) == {"text", "preference", "row", "scores"}
    assert said["preference"] == {"brief": 0.25, "warm": 0.75}
    assert said["row"] == pytest.approx({"w": 0.5, "m": 0.5})
    assert set(said["scores"]) == {"warm", "brief"}


def test_generate_reads_the_prompt_from_standard_input(run: Run) -> None:
    arguments = ("generate", run.folder, "--prefer", "warm=1", "--max-new-tokens", 8, "--json")
    assert moalign(*arguments, "-", stdin="Hello?\n") == moalign(*arguments, "Hello?")


def test_the_same_seed_writes_the_same_text(run: Run) -> None:
    arguments = ("generate", run.folder, "Hello?", "--prefer", "warm=1", "--max-new-tokens", 8, "--seed")
    assert moalign(*arguments, 1) == moalign(*arguments, 1)
    assert moalign(*arguments, 1) != moalign(*arguments, 2)


def test_the_report_is_written_beside_the_points(run: Run) -> None:
    pytest.importorskip("moalign.dashboards")
    ended = moalign("report", run.folder, "--json")
    assert ended.code == 0, ended.err
    assert strict(ended.out) == {"report": str(run.folder / "report.html")}
    assert "<html" in (run.folder / "report.html").read_text()


def test_the_version_and_the_help_are_quick_to_come() -> None:
    assert moalign("--version") == (0, f"{__version__}\n", "")
    assert all(name in moalign("--help").out for name in ("sweep", "report", "indicators", "generate", "demo", "sft"))


def test_a_mistyped_command_ends_with_two() -> None:
    ended = moalign("swep")
    assert ended.code == 2
    assert "swep" in ended.err
