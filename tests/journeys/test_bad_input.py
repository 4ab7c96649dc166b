"""Whatever the user gets wrong: one line that names it, exit 2, nothing half written, and the way on stays open."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_world
import torch
from command import Ended, moalign
from mistakes import QUICK, World, refused, whole

from moalign.adapters import WEIGHTS_FILE
from moalign.config import load_config
from moalign.runs import Run
from moalign.sweep import run_sweep

WARM, BRIEF = {"type": "tiny_world:warm"}, {"type": "length"}


@pytest.fixture
def world(tmp_path: Path, base: Path) -> World:
    return World(tmp_path, base)


@pytest.fixture(scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_sweep(load_config(tiny_world.write_config(folder, base, **QUICK)), folder / "run")
    return folder / "run"


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A finished run, free to be damaged."""
    return shutil.copytree(_finished, tmp_path / "finished")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"preference": {"lattice": 2}}, ["sweep.yaml", "unknown key 'preference'", "'preferences'"]),
        ({"evaluation": {"sample": 2}}, ["unknown key 'sample'", "'samples'", "'evaluation'"]),
        ({"settings": {"learning_rat": 2}}, ["unknown key 'learning_rat'", "'learning_rate'"]),
        ({"method": "mopdo"}, ["unknown method 'mopdo'", "'modpo'"]),
        ({"preferences": {"list": [{"warm": -1, "brief": 2}]}}, ["weight of 'warm' is -1"]),
        ({"preferences": {"list": [{"warm": 0, "brief": 0}]}}, ["all weights are 0 (warm, brief)"]),
        ({"preferences": {"list": [{"warm": float("nan")}]}}, ["weight of 'warm' is nan"]),
        ({"preferences": {"list": [{"wram": 1}]}}, ["unknown objective 'wram'", "'warm'"]),
        ({"objectives": {"warm": {"type": "tiny_world:warm"}}}, ["objectives"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_in_the_settings_is_told_before_anything_is_written(
    world: World, changes: dict[str, Any], names: list[str]
) -> None:
    refused(world.sweep(**changes), *names)
    assert not world.run.exists()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["sweep.yaml", "holds a NoneType", "'base' and 'objectives'"]),
        ("base: [unfinished", ["sweep.yaml", "is not YAML"]),
        ("- base\n- objectives", ["sweep.yaml", "holds a list"]),
    ],
)
def test_a_file_that_is_no_config_is_told(world: World, text: str, names: list[str]) -> None:
    refused(world.config(text), *names)
    assert not world.run.exists()


def test_a_config_that_is_not_there_is_told(world: World) -> None:
    refused(moalign("sweep", world.folder / "sweeep.yaml"), "no such config", "sweeep.yaml")


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ({"type": "tiny_world:nan"}, ["objective 'odd' returned nan for response"]),
        ({"type": "tiny_world:too_few"}, ["objective 'odd' returned an array of shape"]),
        ({"type": "tiny_world:raises"}, ["objective 'odd' raised ZeroDivisionError"]),
        ({"type": "lenght"}, ["objective 'odd'", "'lenght'", "'length'"]),
        ({"type": "length", "pre": 3}, ["objective 'odd'", "'pre'", "'per'"]),
        ({"type": "nowhere:score"}, ["objective 'odd'", "'nowhere'"]),
        ({"pairs": "empty.jsonl"}, ["empty.jsonl", "no rows"]),
        ({"pairs": "one_sided.jsonl"}, ["one_sided.jsonl:2", "'rejected'"]),
        ({"pairs": "nowhere.jsonl"}, ["'nowhere.jsonl'"]),
        ({"pairs": "damaged.jsonl"}, ["damaged.jsonl:1", "not JSON"]),
        ({"scores": "flat.jsonl"}, ["objective 'odd'", "same score"]),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_an_objective_that_cannot_be_used_is_named(world: World, objective: dict[str, Any], names: list[str]) -> None:
    good = tiny_world.rows_preferring("thanks")
    world.write("empty.jsonl", [])
    world.write("one_sided.jsonl", [good[0], {"prompt": "q0 ?", "chosen": "yes now"}])
    (world.folder / "damaged.jsonl").write_text("{'prompt': 1}\n")
    scored = [{"prompt": "q0 ?", "response": text, "scores": {"odd": 1.0}} for text in tiny_world.ANSWERS]
    world.write("flat.jsonl", scored)
    refused(world.sweep(objectives={"warm": WARM, "odd": objective}), *names)
    whole(world.run)


def test_a_mended_config_goes_on_in_the_same_folder(world: World) -> None:
    """The first try has left nothing that stands in the way of the second."""
    refused(world.sweep(base="no/such/folder"), "base model 'no/such/folder' not found")
    refused(world.sweep(objectives={"warm": WARM, "odd": {"type": "lenght"}}), "'lenght'")
    ended = world.sweep()
    assert ended.code == 0, ended.err
    assert len(Run.open(world.run).front()) == 2


def test_conversations_need_a_chat_template(world: World) -> None:
    """The tiny world's base has none."""
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in tiny_world.rows_preferring("thanks")
    ]
    data = {"responses": world.write("talk.jsonl", rows), "prompts": "prompts.jsonl"}
    refused(world.sweep(data=data), "has no chat template", "conversational")
    whole(world.run)


def test_a_run_made_with_another_config_is_left_as_it_is(world: World, finished: Path) -> None:
    before = (finished / "config.yaml").read_bytes()
    config = tiny_world.write_config(world.folder, world.base, **QUICK, seed=1)
    refused(moalign("sweep", config, "--out", finished), str(finished), "seed", "--out")
    assert (finished / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("command", ["indicators", "report", "generate"])
def test_a_folder_that_is_no_run_is_told(world: World, finished: Path, command: str) -> None:
    options = ["--prefer", "warm=1", "Hi"] if command == "generate" else []
    refused(moalign(command, world.folder / "nowhere", *options), "nowhere is not a run folder", "finished")


def test_a_run_that_has_just_begun_has_nothing_to_show(finished: Path) -> None:
    shutil.rmtree(finished / "points")
    for command in (["indicators"], ["report"], ["generate", "--prefer", "warm=1", "Hi"]):
        refused(moalign(*command[:1], finished, *command[1:]), str(finished), "run its sweep first")


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("warm=-1,brief=2", "read no direction; ask for weights >= 0"),
        ("warm=0", "all weights are 0"),
        ("warm=nan", "'warm' is nan"),
        ("wram=1", "unknown objective 'wram'; did you mean 'warm'?"),
        ("warm", "cannot read 'warm'"),
        ("warm=1,warm=2", "'warm' is given twice"),
        ("", "at least one weight"),
    ],
)
def test_a_wish_that_is_no_preference_is_told(finished: Path, wish: str, name: str) -> None:
    refused(moalign("generate", finished, "--prefer", wish, "Hi"), name)


@pytest.mark.parametrize(("prompt", "expected"), [("", "no tokens"), ("q0 ? " * 20, "32 positions")])
def test_a_prompt_that_cannot_be_answered_is_told(finished: Path, prompt: str, expected: str) -> None:
    refused(moalign("generate", finished, "--prefer", "warm=1", "--max-new-tokens", 4, "-", stdin=prompt), expected)


def test_an_adapter_that_was_changed_is_refused(world: World, finished: Path) -> None:
    path = next((finished / "adapters").glob("warm*")) / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(moalign("generate", finished, "--prefer", "warm=1", "q0 ?", "--max-new-tokens", 3), str(path), "digest")
    (finished / "points" / f"{path.parent.name}.json").unlink()
    config = tiny_world.write_config(finished, world.base, **QUICK)
    shutil.copyfile(finished / "config.yaml", config)
    refused(moalign("sweep", config, "--out", finished), str(path), "digest", "delete the folder")


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickle_in_the_place_of_an_adapter_is_refused(finished: Path, name: str) -> None:
    path = next((finished / "adapters").glob("warm*")) / WEIGHTS_FILE
    torch.save({}, path.with_name(name))
    path.unlink()
    refused(moalign("generate", finished, "--prefer", "warm=1", "q0 ?", "--max-new-tokens", 3), name, WEIGHTS_FILE)


def test_a_pickle_in_the_place_of_a_base_is_refused(world: World) -> None:
    folder = shutil.copytree(world.base, world.folder / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(world.sweep(base=folder), str(folder), ".safetensors")
    whole(world.run)


def test_a_learning_rate_that_is_too_high_is_told(world: World) -> None:
    settings = QUICK["settings"] | {"learning_rate": 1e30, "steps": 5}
    refused(world.sweep(settings=settings), "no longer finite", "learning_rate")


def test_a_users_mistake_is_one_line_where_users_are_too(world: World) -> None:
    """In a process of its own, libraries' loggers and warnings included."""
    config = tiny_world.write_config(world.folder, world.base, **QUICK, sed=1)
    code = "import sys; from moalign.cli import main; sys.argv = ['moalign', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", code, "sweep", str(config), "--out", str(world.run)]
    ended = subprocess.run(command, capture_output=True, text=True)
    refused(Ended(ended.returncode, ended.stdout, ended.stderr), "unknown key 'sed'; did you mean 'seed'?")


def test_a_mistake_of_ours_is_not_dressed_up_as_the_users(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python prints its traceback and exits with 1."""

    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("moalign.config.load_config", broken)
    with pytest.raises(ZeroDivisionError):
        world.sweep()
