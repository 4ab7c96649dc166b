"""`moalign sft`: one adapter per seed, whatever else trains beside it, and however often it is stopped."""

import gzip
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import workers
import yaml
from command import Ended, moalign
from mistakes import refused, whole
from peft import PeftModel

import moalign.tuning as tuning
from moalign.adapters import WEIGHTS_FILE, Adapter
from moalign.claims import claim
from moalign.config import parse_config
from moalign.errors import ConfigError
from moalign.models import load_base
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.store import AdapterStore
from moalign.tuning import SftConfig, load_sft_config, run_sft

ROOT = Path(__file__).parents[1]
ROWS = [{"prompt": f"How many is {i} and {i}?", "completion": f" It is {2 * i}, I say."} for i in range(20)]
LONG = {"prompt": "Say a.", "completion": "a" * 600}  # a token per byte, and a base that reads 512
BAD = {"prompt": "Hi", "completion": ""}
STEPS = {"steps": 6, "batch_size": 4, "learning_rate": 0.003}


class Place:
    """Configs and data in a folder, and the command on them."""

    def __init__(self, folder: Path, base: Path):
        self.folder, self.base, self.run = folder, base, folder / "run"
        self.write("answers.jsonl", ROWS)

    def write(self, name: str, rows: list[Any]) -> str:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    def config(self, **changes: Any) -> Path:
        values = {
            "base": str(self.base),
            "data": "answers.jsonl",
            "settings": STEPS,
            "adapter": {"rank": 2, "alpha": 4},
            "checkpoint_seconds": 0,
        }
        path = self.folder / "sft.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    def sft(self, *arguments: str, out: Path | None = None, **changes: Any) -> Ended:
        return moalign("sft", self.config(**changes), "--out", out or self.run, *arguments)

    def adapters(self, *seeds: int, run: str = "run", **changes: Any) -> list[Adapter]:
        config = load_sft_config(self.config(seeds=list(seeds), **changes))
        folders = run_sft(config, self.folder / run)
        assert list(folders) == [f"seed-{seed}" for seed in seeds]
        return [AdapterStore(folder.parent).load(key) for key, folder in folders.items()]


@pytest.fixture
def place(tmp_path: Path, tiny_base: Path) -> Place:
    return Place(tmp_path, tiny_base)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Place:
    """A run that is done. Read only."""
    place = Place(tmp_path_factory.mktemp("finished"), tiny_base)
    place.adapters(0, 1)
    return place


def gap(one: Adapter, other: Adapter) -> float:
    pairs = [(one.layers[name], other.layers[name]) for name in one.layers]
    return max(max((a.A - b.A).abs().max().item(), (a.B - b.B).abs().max().item()) for a, b in pairs)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


def weights(place: Place, seed: int) -> bytes:
    return (place.run / "adapters" / f"seed-{seed}" / WEIGHTS_FILE).read_bytes()


def test_a_run_is_a_folder_of_peft_folders(
    finished: Place, tiny_base: Path, load_with_peft: Callable[..., PeftModel]
) -> None:
    assert set(files(finished.run)) == {"config.yaml", "metrics.jsonl", "origin.json"} | {
        f"adapters/seed-{seed}/{name}"
        for seed in (0, 1)
        for name in ("adapter_config.json", "adapter_model.safetensors", "record.json")
    }
    whole(finished.run)
    store = AdapterStore(finished.run / "adapters")
    for seed in (0, 1):
        record = store.record(f"seed-{seed}")
        assert (record["method"], record["seed"], record["steps"]) == ("sft", seed, 6)
        assert record["settings"]["learning_rate"] == 0.003
        assert record["base"]["name"] == str(tiny_base)
        model = load_with_peft(load_base(str(tiny_base)).model, finished.run / "adapters" / f"seed-{seed}")
        theirs = model.state_dict()
        for name, layer in store.load(f"seed-{seed}").layers.items():
            assert torch.equal(layer.B, theirs[f"base_model.model.{name}.lora_B.default.weight"])
    lines = [json.loads(line) for line in (finished.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "adapter", "adapter"]
    assert lines[0]["step"] == 6


def test_both_learn_and_differ(finished: Place) -> None:
    """Before is the base, the same for both; answers to prompts that none has seen become likelier."""
    store = AdapterStore(finished.run / "adapters")
    losses = [store.record(f"seed-{seed}")["heldout_loss"] for seed in (0, 1)]
    assert losses[0]["before"] == losses[1]["before"]
    assert all(loss["after"] < loss["before"] - 0.05 for loss in losses)
    assert losses[0]["after"] != losses[1]["after"]


@pytest.mark.parametrize("seeds", [(0,), (1,), (1, 0), (0, 7, 1)], ids=str)
def test_an_adapter_does_not_depend_on_the_seeds_beside_it(
    place: Place, finished: Place, seeds: tuple[int, ...]
) -> None:
    found = dict(zip(seeds, place.adapters(*seeds), strict=True))
    for seed in {0, 1} & set(seeds):
        assert gap(found[seed], AdapterStore(finished.run / "adapters").load(f"seed-{seed}")) < 1e-6


def test_a_finished_run_is_left_as_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base is not even loaded; and where it runs, or how often it is saved, makes no other run."""
    first = place.sft("--json")
    before = files(place.run)
    monkeypatch.setattr(tuning, "load_base", None)
    assert place.sft("--json") == first
    assert place.sft("--json", checkpoint_seconds=10, device="cpu") == first
    assert files(place.run) == before


def test_what_the_command_prints(finished: Place) -> None:
    ended = finished.sft("--json", seeds=[0, 1])
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)["adapters"]
    assert list(found) == ["seed-0", "seed-1"]
    folder, loss = found["seed-0"]["folder"], found["seed-0"]["heldout_loss"]
    assert folder == str(finished.run / "adapters" / "seed-0")
    line = f"{folder}  held-out loss {loss['before']:.3f} -> {loss['after']:.3f} nats per token"
    assert finished.sft().out.splitlines()[0] == line


def test_without_held_out_prompts_there_is_no_loss_of_them(place: Place) -> None:
    ended = place.sft("--json", holdout=0, seeds=[4])
    folder = str(place.run / "adapters" / "seed-4")
    assert json.loads(ended.out) == {"adapters": {"seed-4": {"folder": folder, "heldout_loss": None}}}
    assert place.sft(holdout=0, seeds=[4]).out == folder + "\n"


def test_a_deleted_adapter_is_trained_again(place: Place) -> None:
    before = place.adapters(0, 1)
    shutil.rmtree(place.run / "adapters" / "seed-1")
    kept = weights(place, 0)
    after = place.adapters(0, 1)
    assert weights(place, 0) == kept
    assert gap(before[1], after[1]) < 1e-6


# Formats


def test_the_forms_of_the_data_say_the_same(place: Place) -> None:
    """Messages with the prompt apart, whole conversations, packed, or in a table: the same adapter to the bit."""
    user = [[{"role": "user", "content": row["prompt"]}] for row in ROWS]
    answer = [[{"role": "assistant", "content": row["completion"]}] for row in ROWS]
    apart = [{"prompt": u, "completion": a} for u, a in zip(user, answer, strict=True)]
    conversations = [{"messages": u + a} for u, a in zip(user, answer, strict=True)]
    place.write("apart.jsonl", apart)
    place.write("whole.jsonl", conversations)
    (place.folder / "whole.jsonl.gz").write_bytes(gzip.compress((place.folder / "whole.jsonl").read_bytes()))
    pd.DataFrame(conversations).to_parquet(place.folder / "whole.parquet")
    found = []
    for name in ("apart.jsonl", "whole.jsonl", "whole.jsonl.gz", "whole.parquet"):
        place.run = place.folder / name.replace(".", "-")
        place.adapters(0, run=place.run.name, data=name, settings=STEPS | {"steps": 2})
        found.append(weights(place, 0))
    assert len(set(found)) == 1


def test_long_and_bad_rows_are_told_and_left_out(place: Place) -> None:
    place.write("answers.jsonl", [*ROWS[:3], BAD, LONG, *ROWS[3:8]])
    said: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.notice = said.append  # type: ignore[method-assign]
    config = load_sft_config(place.config(skip_bad_rows=True, limit=7, seeds=[0]))
    run_sft(config, place.run, reporter)
    quarantine = place.run / "quarantine" / "data.jsonl"
    assert said == [
        f"1 bad rows set aside in {quarantine}",
        "1 of 7 rows are longer than 512 tokens and left out",
    ]
    assert json.loads(quarantine.read_text())["row"] == BAD


# Folders


def test_other_settings_are_another_run(place: Place) -> None:
    place.adapters(0)
    before = files(place.run)
    refused(place.sft(seeds=[0, 1]), "holds a run with other settings (seeds differ)", "--out")
    refused(place.sft(seeds=[0], settings=STEPS | {"steps": 7}), "(settings differ)")
    refused(place.sft(seeds=[0], separator=" ", limit=3), "(limit, separator differ)")
    assert files(place.run) == before


def test_settings_that_stopped_a_run_can_be_mended(place: Place) -> None:
    """Nothing has come of it yet, so that nothing is lost."""
    refused(place.sft(adapter={"target_modules": ["q_prj"]}), "q_prj")
    assert place.sft(settings=STEPS | {"steps": 1}).code == 0


def test_other_data_or_another_base_under_the_same_name_are_told(place: Place, tmp_path: Path) -> None:
    """The adapters of one run are made from one thing; what a path holds may have changed."""
    place.base = Path(shutil.copytree(place.base, tmp_path / "base"))
    place.adapters(0)
    place.write("answers.jsonl", ROWS[1:])
    refused(place.sft(seeds=[0]), f"the data of {place.run} changed since it was begun")
    place.write("answers.jsonl", ROWS)
    assert place.sft(seeds=[0]).code == 0
    shutil.rmtree(place.run / "adapters" / "seed-0")  # so that there is something to train
    settings = place.base / "generation_config.json"
    settings.write_text(settings.read_text() + "\n")
    refused(place.sft(seeds=[0]), f"the base of {place.run} changed since it was begun")


def test_a_folder_of_something_else_is_not_touched(place: Place, tmp_path: Path) -> None:
    sweep = parse_config({"base": "a/b", "objectives": {"brief": {"type": "length"}, "varied": {"type": "repetition"}}})
    Run.create(tmp_path / "sweep", sweep)
    refused(place.sft(out=tmp_path / "sweep"), "holds a run that `moalign sft` did not begin")
    refused(place.sft(out=tmp_path), "is not empty and holds no run")


def test_two_at_once_are_told(place: Place) -> None:
    with claim(place.run / "claims", "sft"):
        (place.run / "config.yaml").write_text(load_sft_config(place.config()).to_yaml())
        refused(place.sft(), "is being trained by another process")


# Mistakes


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"data": "answer.jsonl"}, ("there is no file or folder", "did you mean 'answers.jsonl'")),
        ({"data": "empty.jsonl"}, ("empty.jsonl: there are no rows in it",)),
        ({"data": "bad.jsonl"}, ("bad.jsonl:1: 'completion' is empty", "skip_bad_rows")),
        ({"data": "bad.jsonl", "skip_bad_rows": True}, ("all 2 rows are bad; the first: bad.jsonl:1",)),
        ({"data": "long.jsonl"}, ("all 2 rows are longer than 512 tokens, the shortest has 607",)),
        ({"max_length": 5}, ("all 20 rows are longer than 5 tokens", "raise max_length")),
        ({"data": "pairs.jsonl"}, ("no 'completion' field; found: prompt, chosen, rejected",)),
        ({"base": "nowhere/at/all"}, ("base model 'nowhere/at/all' not found",)),
        ({"seeds": [3, 1, 3]}, ("seeds: 3 stands there twice",)),
        ({"seeds": []}, ("seeds: ",)),
        ({"seeds": [0, -1]}, ("seeds.1: ", "got -1")),
        ({"seed": 1}, ("unknown key 'seed'; did you mean 'seeds'?",)),
        ({"settings": {"learning_rat": 1}}, ("unknown key 'learning_rat'; did you mean 'learning_rate'?",)),
        ({"adapter": {"rank": 0}}, ("adapter.rank: ",)),
        ({"holdout": 1}, ("holdout: ",)),
        ({"settings": STEPS | {"learning_rate": 1e20}}, ("finite; a lower learning_rate helps",)),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(place: Place, changes: dict[str, Any], names: tuple[str, ...]) -> None:
    place.write("empty.jsonl", [])
    place.write("bad.jsonl", [BAD, BAD])
    place.write("long.jsonl", [LONG, LONG])
    place.write("pairs.jsonl", [{"prompt": "Hi", "chosen": "a", "rejected": "b"}])
    refused(place.sft(**changes), *names)


def test_a_config_that_cannot_be_read_is_told_by_file(place: Place) -> None:
    refused(moalign("sft", place.folder / "stf.yaml"), "no such config")
    path = place.folder / "list.yaml"
    path.write_text("- a")
    refused(moalign("sft", path), f"{path} holds a list; expected keys such as 'base' and 'data'")
    path.write_text("base: a/b")
    with pytest.raises(ConfigError, match="data: Field required"):
        load_sft_config(path)


def test_paths_are_taken_from_where_the_file_stands(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else from where the command is given; a file that is nowhere is missed beside the config, and a hub has names."""
    config = load_sft_config(place.config(base="org/name"))
    assert (config.base, config.data) == ("org/name", str(place.folder / "answers.jsonl"))
    assert SftConfig.model_validate(yaml.safe_load(config.to_yaml())) == config
    (place.folder / "here").mkdir()
    monkeypatch.chdir(place.folder / "here")
    place.write("here/own.jsonl", ROWS)
    expected = {
        "own.jsonl": "own.jsonl",
        "none.jsonl": str(place.folder / "none.jsonl"),
        "here:test": f"{place.folder / 'here'}:test",
        "org/name:test": "org/name:test",
    }
    for data, found in expected.items():
        assert load_sft_config(place.config(data=data)).data == found


def test_the_example_can_be_given_as_it_stands(tmp_path: Path) -> None:
    config = load_sft_config(ROOT / "examples" / "configs" / "sft.yaml")
    quick = config.model_copy(update={"settings": config.settings.model_copy(update={"steps": 1}), "limit": 12})
    assert list(run_sft(quick, tmp_path / "run")) == ["seed-0", "seed-1"]


# Stopped


def test_stopped_between_two_adapters(place: Place, finished: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 0 is stored and seed 1 is not; it is not trained again, because the last step was saved."""
    save = AdapterStore.save

    def stop(self: AdapterStore, key: str, *rest: Any) -> None:
        if key == "seed-1":
            raise KeyboardInterrupt
        save(self, key, *rest)

    monkeypatch.setattr(AdapterStore, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        place.adapters(0, 1)
    monkeypatch.setattr(AdapterStore, "save", save)
    place.adapters(0, 1)
    assert [weights(place, seed) for seed in (0, 1)] == [weights(finished, seed) for seed in (0, 1)]
    steps = [line for line in (place.run / "metrics.jsonl").read_text().splitlines() if '"step"' in line]
    assert len(steps) == 1
    assert not (place.run / "checkpoints").exists()


def killed_after(saves: int, arguments: list[str], checkpoints: Path, log: Path) -> int | None:
    """Run the command until it has saved so many times, then kill it; how it ended."""
    process, seen, deadline = workers.start(arguments, log), set(), time.monotonic() + 100
    while len(seen) <= saves and process.is_alive():
        assert time.monotonic() < deadline, log.read_text()
        seen |= {path.stat().st_mtime_ns for path in checkpoints.glob("[!.]*")}
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


def test_kills_change_nothing(place: Place, tmp_path: Path) -> None:
    """kill -9 after the first saved step, and twice in the middle; the same command again each time."""
    settings = STEPS | {"steps": 30}
    undisturbed = tmp_path / "undisturbed"
    assert place.sft(out=undisturbed, settings=settings).code == 0
    arguments, log = ["sft", str(place.config(settings=settings)), "--out", str(place.run)], tmp_path / "log"
    for saves in (1, 9, 4):
        assert killed_after(saves, arguments, place.run / "checkpoints", log) == -signal.SIGKILL, log.read_text()
    lines = (place.run / "metrics.jsonl").read_text() if (place.run / "metrics.jsonl").exists() else ""
    assert '"step": 30' not in lines  # it was in training each time
    assert place.sft(settings=settings).code == 0
    for seed in (0, 1):
        name = Path("adapters") / f"seed-{seed}" / WEIGHTS_FILE
        assert (place.run / name).read_bytes() == (undisturbed / name).read_bytes()
    whole(place.run)
