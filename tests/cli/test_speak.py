"""The commands that let a trade-off speak: one object, or one text, or one line that says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import moalign
from made_runs import made_run
from mistakes import refused

from moalign.adapters import read_adapter
from moalign.runs import Run
from moalign.store import AdapterStore

Strict = Callable[[str], Any]
PLAN = {"policy", "preference", "direction", "lanes", "predicted", "source"}
MERGED = {
    "folder": str,
    "method": str,
    "rank": int,
    "error": float,
    "worst_layer": dict,
    "distance_from_soup": type(None),
    "differs": list,
    "plan": dict,
}
EXPORTED = {
    "folder": str,
    "to": str,
    "base": str,
    "rank": int,
    "adapters": list,
    "directions": dict,
    "files": list,
}


def test_generate_prints_the_text_alone(run: Run, strict: Strict) -> None:
    """Another line on standard output would end up in somebody's file."""
    arguments = ("generate", run.folder, "--prefer", "warm=3,brief=1", "--max-new-tokens", 8)
    plain, full = moalign(*arguments, "Hello?"), moalign(*arguments, "Hello?", "--json")
    assert (plain.code, plain.err, full.code, full.err) == (0, "", 0, "")
    said = strict(full.out)
    assert plain.out == said["text"] + "\n"
    assert set(said) == {"text", "preference", "policy", "row", "predicted", "source", "scores"}
    assert said["preference"] == {"brief": 0.25, "warm": 0.75}
    assert (said["policy"], said["source"]) == ("interpolate", "interpolated")
    assert said["row"] == pytest.approx({"w": 0.5, "m": 0.5})
    assert set(said["predicted"]["warm"]) == {"value", "standard_error", "interval"}
    assert set(said["scores"]) == set(said["predicted"]) == {"warm", "brief"}


def test_generate_by_a_policy_of_several_lanes_says_which(run: Run, strict: Strict) -> None:
    """Nothing is predicted for adapters that are combined token by token."""
    arguments = ("generate", run.folder, "Hello?", "--prefer", "warm=3,brief=1", "--max-new-tokens", 4)
    said = strict(moalign(*arguments, "--policy", "decode", "--json").out)
    assert "row" not in said
    assert said["lanes"] == [{"row": {"b": 1.0}, "share": 0.25}, {"row": {"w": 1.0}, "share": 0.75}]
    assert (said["predicted"], said["source"]) == ({}, "unknown")


def test_generate_reads_the_prompt_from_standard_input(run: Run) -> None:
    arguments = ("generate", run.folder, "--prefer", "warm=1", "--max-new-tokens", 8, "--json")
    assert moalign(*arguments, "-", stdin="Hello?\n") == moalign(*arguments, "Hello?")


def test_the_same_seed_writes_the_same_text(run: Run) -> None:
    """At temperature 0 every seed does."""
    arguments = ("generate", run.folder, "Hello?", "--prefer", "warm=1", "--max-new-tokens", 8, "--seed")
    assert moalign(*arguments, 1) == moalign(*arguments, 1)
    assert moalign(*arguments, 1) != moalign(*arguments, 2)
    assert moalign(*arguments, 1, "--temperature", 0) == moalign(*arguments, 2, "--temperature", 0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--prefer", "wram=1"], "unknown objective 'wram'; did you mean 'warm'"),
        (["--prefer", "warm"], "cannot read 'warm'; expected NAME=WEIGHT"),
        (["--prefer", "warm=1", "--policy", "soap"], "unknown policy 'soap'; did you mean 'soup'"),
        (["--prefer", "warm=1", "--policy", "calibrated"], "policy 'calibrated' needs a map"),
        (["--prefer", "warm=1", "--policy", "direction"], "adapters read no direction"),
        (["--prefer", "warm=-1", "--policy", "soup"], "policy 'soup' reads no direction"),
    ],
)
def test_generate_refuses_before_it_loads_the_base(tmp_path: Path, arguments: list[str], named: str) -> None:
    """There is no base here to load: that would be the error otherwise."""
    folder = made_run(tmp_path, "no/such-base").folder
    refused(moalign("generate", folder, "Hello?", *arguments), named)


def test_merge_prints_one_object_and_writes_one_folder(tmp_path: Path, run: Run, strict: Strict) -> None:
    """(3/4, 1/4) is half of w and half of m; both of rank 4, so that rank 3 loses something."""
    arguments = ("merge", run.folder, "--prefer", "warm=3,brief=1", "--rank", 3, "--out", tmp_path / "out")
    ended = moalign(*arguments, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = strict(ended.out)
    assert {name: type(value) for name, value in found.items()} == MERGED
    assert set(found["plan"]) == PLAN
    assert found["plan"]["lanes"] == [{"row": pytest.approx({"w": 0.5, "m": 0.5}), "share": 1.0}]
    assert (found["folder"], found["method"], found["rank"]) == (str(tmp_path / "out"), "soup", 3)
    assert found["differs"] == ["cut to rank 3"]
    assert 0 < found["error"] <= found["worst_layer"]["error"] < 1
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {layer.rank for layer in read_adapter(tmp_path / "out").layers.values()} == {3}
    assert strict(moalign(*arguments, "--json").out) == found  # there already, and left as it is


def test_merge_tells_people_what_it_is_what_it_attains_and_what_was_lost(tmp_path: Path, run: Run) -> None:
    ended = moalign("merge", run.folder, "--prefer", "warm=3,brief=1", "--rank", 3, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "soup: 0.5 of m, 0.5 of w"
    assert lines[1:3] == ["  warm +0.875 ±0.100 (interpolated)", "  brief +0.375 ±0.100 (interpolated)"]
    assert lines[3] == "  these are values of the exact soup; this adapter was cut to rank 3"
    assert lines[4].startswith("rank 3: ")
    assert " % of the change of the weights is lost, at most " in lines[4]
    assert lines[5:] == [f"wrote {tmp_path / 'out'}"]
    alone = moalign("merge", run.folder, "--prefer", "warm=1", "--out", tmp_path / "alone").out.splitlines()
    assert (alone[0], alone[3]) == ("w", "rank 4: nothing is lost")


def test_options_of_a_method_are_given_one_by_one(tmp_path: Path, run: Run, strict: Strict) -> None:
    arguments = ("merge", run.folder, "--prefer", "warm=3,brief=1", "--method", "dare", "--json", "--out")
    found = strict(moalign(*arguments, tmp_path / "out", "--option", "density=0.5", "--option", "seed=3").out)
    assert found["differs"] == ["merged by dare"]
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["recipe"]["options"] == {"density": 0.5, "seed": 3}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--prefer", "wram=1"], "unknown objective 'wram'; did you mean 'warm'"),
        (["--prefer", "warm=0,brief=0"], "all weights are 0"),
        (["--prefer", "warm=nan"], "weight of 'warm' is nan"),
        (["--prefer", "warm=1,brief=-1"], "adapters read no direction"),
        (["--method", "tie"], "unknown merge method 'tie'; did you mean 'ties'"),
        (["--method", "ties", "--option", "densty=1"], "'densty'; did you mean 'density'"),
        (["--method", "ties", "--option", "density"], "cannot read 'density'; expected NAME=NUMBER"),
        (["--method", "ties", "--option", "density=7"], "density is 7"),
        (["--method", "bone"], "give beta=NUMBER"),
        (["--option", "density=0.5"], "unknown option of merge method 'soup' 'density'"),
        (["--policy", "near"], "unknown policy 'near'; did you mean 'nearest'"),
        (["--policy", "decode"], "policy 'decode' combines the outputs of 2 mixtures"),
    ],
)
def test_wishes_that_merge_refuses(tmp_path: Path, run: Run, arguments: list[str], named: str) -> None:
    prefer = [] if "--prefer" in arguments else ["--prefer", "warm=3,brief=1"]
    refused(moalign("merge", run.folder, *prefer, *arguments, "--out", tmp_path / "out"), named)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_merge_and_export_refuse(tmp_path: Path, run: Run) -> None:
    """No run there, something of the user's, a file in the way: all is left as it was."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    commands = [("merge", "--prefer", "warm=1", "--out"), ("export", "--to", "vllm")]
    for name, *options in commands:
        refused(moalign(name, run.folder, *options, tmp_path / "mine"), "mine exists and holds something else")
        refused(moalign(name, run.folder, *options, tmp_path / "mine" / "notes" / "x"), "cannot write", "notes/x")
        refused(moalign(name, tmp_path / "mine", *options, tmp_path / "out"), "is not a run folder")
        refused(moalign(name, made_run(tmp_path / name, points={}).folder, *options, tmp_path / "out"), "no trained")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "merge", "export"}
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]


def test_export_prints_one_object_and_writes_every_adapter(tmp_path: Path, run: Run, strict: Strict) -> None:
    arguments = ("export", run.folder, tmp_path / "out", "--to", "vllm")
    ended = moalign(*arguments, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = strict(ended.out)
    assert {name: type(value) for name, value in found.items()} == EXPORTED
    assert {each["folder"] for each in found["adapters"]} == set(AdapterStore(tmp_path / "out").keys())
    assert {each["name"] for each in found["adapters"]} == {"warm100", "brief50-warm50", "brief100"}
    assert all(set(each) == {"name", "folder", "rank", "error"} for each in found["adapters"])
    assert all((tmp_path / "out" / name).is_file() for name in found["files"])
    told = moalign(*arguments)
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines() == [
        *(f"{each['name']}: rank 4" for each in found["adapters"]),
        f"wrote {tmp_path / 'out'}: see lora_modules.json, serve.sh, README.md",
    ]


def test_what_export_refuses(tmp_path: Path, run: Run) -> None:
    refused(moalign("export", run.folder, tmp_path / "out", "--to", "vlm"), "unknown target 'vlm'; did you mean 'vllm'")
    assert not (tmp_path / "out").exists()
    assert moalign("export", run.folder, tmp_path / "out", "--to", "vllm").code == 0
    other = moalign("export", run.folder, tmp_path / "out", "--to", "lorax")
    refused(other, f"{tmp_path / 'out'} holds another export", "for vllm")


@pytest.mark.parametrize("arguments", [["merge", "--prefer", "warm=1", "--out"], ["export", "--to", "vllm"]])
def test_a_rank_of_nothing_is_no_rank(tmp_path: Path, run: Run, arguments: list[str]) -> None:
    name, *options = arguments
    ended = moalign(name, run.folder, *options, tmp_path / "out", "--rank", 0)
    assert (ended.code, ended.out) == (2, "")
    assert "'--rank'" in ended.err
    assert list(tmp_path.iterdir()) == []
