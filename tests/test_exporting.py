"""A run for other servers: adapters in the form they read, and scripts that find them wherever the folder is moved."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_runs import THREE, made_run, point
from torch import Tensor
from transformers import PreTrainedModel

from moalign.adapters import Adapter, LowRank, read_adapter
from moalign.errors import AdapterError, ConfigError, RunError
from moalign.exporting import export_run
from moalign.runs import BASE, Run
from moalign.store import AdapterStore
from moalign.targets import TARGETS

Adapters = dict[str, Adapter]
MIXED = {"w": 0.5, "b": 0.5}


@pytest.fixture
def adapters(llama: PreTrainedModel, random_adapter: Callable[..., Adapter]) -> Adapters:
    """Two corners that differ in rank and scale; the second changes fewer layers."""
    return {
        "w": random_adapter(llama, 1, rank=4, alpha=8.0),
        "b": random_adapter(llama, 3, rank=3, alpha=5.0, only="attn"),
    }


@pytest.fixture
def run(tmp_path: Path, adapters: Adapters) -> Run:
    """The corners, and a mixture of them that is a point of its own."""
    run = made_run(tmp_path / "run", points={key: THREE[key] for key in ("w", "b")}, adapters=adapters)
    run.add_point(replace(point("mixed", *THREE["m"]), row=MIXED))
    return run


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("to", TARGETS)
def test_each_named_point_is_a_folder_that_peft_loads_as_the_mixture(
    tmp_path: Path,
    run: Run,
    adapters: Adapters,
    llama: PreTrainedModel,
    ids: Tensor,
    load_with_peft: Callable[..., Any],
    merged: Callable[..., Any],
    to: str,
) -> None:
    """One rank and one whole alpha in all layers, nothing by pattern; the logits are those of the summed deltas."""
    made = export_run(run, tmp_path / "out", to=to)
    rows = {"warm100": {"w": 1.0}, "brief100": {"b": 1.0}, "brief50-warm50": MIXED}
    assert {each.name for each in made.adapters} == set(rows)
    assert made.rank == 7
    for each in made.adapters:
        config = json.loads((tmp_path / "out" / each.folder / "adapter_config.json").read_text())
        assert (config["rank_pattern"], config["alpha_pattern"], config["use_rslora"]) == ({}, {}, False)
        assert isinstance(config["lora_alpha"], int)
        assert config["r"] == each.rank
        found = logits(load_with_peft(llama, tmp_path / "out" / each.folder), ids)
        expected = logits(merged(llama, adapters, rows[each.name]), ids)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert set(AdapterStore(tmp_path / "out").keys()) == set(rows)
    assert json.loads(json.dumps(made.as_dict()))["files"] == list(made.files)


def test_a_rank_cuts_what_is_larger_and_says_so(tmp_path: Path, run: Run) -> None:
    made = export_run(run, tmp_path / "out", to="vllm", rank=4)
    errors = {each.name: each.error for each in made.adapters}
    assert made.rank == 4
    assert errors["warm100"] == errors["brief100"] == 0.0
    assert 0 < errors["brief50-warm50"] < 1
    page = (tmp_path / "out" / "README.md").read_text()
    assert f"| brief50-warm50 | brief50-warm50 | {100 * errors['brief50-warm50']:.3g} % |" in page
    assert "| warm100 | warm100 | nothing |" in page


def started(folder: Path, program: str, *arguments: str, **environment: str) -> list[str]:
    """What the export's script starts the server with; the server is a stand-in that prints its arguments."""
    bin_folder = folder.parent / "bin"
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / program).write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    (bin_folder / program).chmod(0o755)
    settings = {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", **environment}
    done = subprocess.run([folder / "serve.sh", *arguments], env=settings, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def test_vllm_is_started_with_every_adapter_wherever_the_folder_is(tmp_path: Path, run: Run) -> None:
    """NAME=PATH is split at its one `=`, as vLLM's parser does; the least rank that it takes and that holds 7 is 8."""
    export_run(run, tmp_path / "out", to="vllm")
    moved = tmp_path / "a place"
    (tmp_path / "out").rename(moved)
    given = started(moved, "vllm", "--port", "9000", BASE="my base")
    assert given[:8] == [
        "serve",
        "my base",
        "--enable-lora",
        "--max-lora-rank",
        "8",
        "--max-loras",
        "3",
        "--max-cpu-loras",
    ]
    assert given[9:12] == ["--port", "9000", "--lora-modules"]
    assert started(moved, "vllm")[1] == "org/base"
    listed = json.loads((moved / "lora_modules.json").read_text())
    modules = dict(item.split("=") for item in given[12:])
    assert modules == {each["name"]: str(moved / each["path"]) for each in listed}
    for each in listed:
        assert each["base_model_name"] == "org/base"
        assert read_adapter(Path(modules[each["name"]])).layers


def test_sglang_is_started_with_every_adapter(tmp_path: Path, run: Run) -> None:
    export_run(run, tmp_path / "out", to="sglang")
    given = started(tmp_path / "out", "python3")
    assert given[:5] == ["-m", "sglang.launch_server", "--model-path", "org/base", "--enable-lora"]
    assert given[5:10] == ["--max-lora-rank", "7", "--max-loras-per-batch", "3", "--lora-paths"]
    listed = json.loads((tmp_path / "out" / "lora_paths.json").read_text())
    assert given[10:] == [f"{each['lora_name']}={tmp_path / 'out' / each['lora_path']}" for each in listed]
    assert '"model": "org/base:' in (tmp_path / "out" / "README.md").read_text()


def test_lorax_finds_adapters_by_absolute_paths_in_its_container(tmp_path: Path, run: Run) -> None:
    export_run(run, tmp_path / "out", to="lorax")
    given = started(tmp_path / "out", "docker")
    host, inside, _ = given[given.index("-v") + 1].split(":")
    assert given[-2:] == ["--model-id", "org/base"]
    for each in json.loads((tmp_path / "out" / "adapters.json").read_text()):
        assert each["adapter_source"] == "local"
        assert (Path(host) / Path(each["adapter_id"]).relative_to(inside) / "adapter_config.json").is_file()


def test_the_example_request_is_one_shell_command_with_json(tmp_path: Path, run: Run) -> None:
    for to in TARGETS:
        export_run(run, tmp_path / to, to=to)
        page = (tmp_path / to / "README.md").read_text()
        words = shlex.split(page[page.index("curl ") :].split("```")[0].replace("\\\n", ""))
        assert json.loads(words[words.index("-d") + 1])


@pytest.mark.parametrize("to", ["vllm", "sglang"])
def test_the_example_is_a_chat_where_the_adapters_learned_chats(tmp_path: Path, run: Run, to: str) -> None:
    """A base for plain texts may have no chat template, and then a chat request fails."""
    export_run(run, tmp_path / "plain", to=to)
    run.write_samples(BASE, [{"prompt": [{"role": "user", "content": "Hello?"}]}])
    export_run(run, tmp_path / "chats", to=to)
    pages = [(tmp_path / name / "README.md").read_text() for name in ("plain", "chats")]
    assert ["/v1/chat/completions" in page for page in pages] == [False, True]
    assert ["/v1/completions" in page for page in pages] == [True, False]


def test_a_folder_that_a_kill_left_empty_is_taken(tmp_path: Path, run: Run) -> None:
    """But for a file that was on its way there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".export.json.12345678.tmp").write_text("{")
    assert export_run(run, str(tmp_path / "out"), to="vllm").adapters


def test_the_same_call_again_writes_only_what_is_missing(tmp_path: Path, run: Run, adapters: Adapters) -> None:
    out = tmp_path / "out"
    first = export_run(run, out, to="vllm")
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/adapter_model.safetensors")}
    shutil.rmtree(out / "warm100")
    run.store.save("n", adapters["w"], {}, "org/base")
    run.add_point(point("n", (0.75, 0.25), (0.9, 0.3)))
    again = export_run(run, out, to="vllm")
    assert {each.name for each in again.adapters} - {each.name for each in first.adapters} == {"brief25-warm75"}
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/adapter_model.safetensors")}
    changed = {path.parent.name for path in after if after[path] != before.get(path)}
    assert changed == {"warm100", "brief25-warm75"}
    assert "brief25-warm75" in (out / "serve.sh").read_text()


def test_a_folder_that_is_not_of_this_export_is_left_alone(tmp_path: Path, run: Run) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="exists and holds something else than an export"):
        export_run(run, mine, to="vllm")
    assert (mine / "README.md").read_text() == "mine"
    export_run(run, tmp_path / "out", to="vllm")
    for change in ({"to": "sglang"}, {"to": "vllm", "rank": 2}):
        with pytest.raises(ConfigError, match=r"holds another export, of .*/run on org/base for vllm; choose another"):
            export_run(run, tmp_path / "out", **change)


def test_what_cannot_be_exported(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="unknown target 'vlm'; did you mean 'vllm'"):
        export_run(run, out, to="vlm")
    with pytest.raises(ConfigError, match="rank is 0"):
        export_run(run, out, to="vllm", rank=0)
    with pytest.raises(RunError):
        export_run(made_run(tmp_path / "empty", points={}), out, to="vllm")
    assert not out.exists()
    (run.store.folder / "w" / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(AdapterError, match="does not match the digest"):
        export_run(run, out, to="vllm")


def test_vllm_takes_no_rank_above_512(tmp_path: Path) -> None:
    wide = {"w": Adapter({"q": LowRank(torch.ones(513, 2), torch.ones(2, 513), 1.0)}, ("q",))}
    run = made_run(tmp_path / "run", points={"w": THREE["w"]}, adapters=wide)
    with pytest.raises(ConfigError, match="rank 513, and vLLM takes 512 at most; give --rank"):
        export_run(run, tmp_path / "out", to="vllm")
    assert export_run(run, tmp_path / "cut", to="vllm", rank=8).rank == 2  # of 2 x 2 layers


def test_a_run_that_reads_directions_is_one_adapter_and_the_words_for_the_prompt(
    tmp_path: Path, adapters: Adapters
) -> None:
    """100 (1, 0) and 100 (1, -1) / sqrt 2, in the paper's wording."""
    run = made_run(tmp_path / "run", points={}, adapters={"round2": adapters["w"]}, method="dpa")
    for key, direction in (("one", {"warm": 1.0, "brief": 0.0}), ("two", {"warm": 0.5**0.5, "brief": -(0.5**0.5)})):
        run.add_point(replace(point(key, *THREE["w"]), row={"round2": 1.0}, direction=direction))
    made = export_run(run, tmp_path / "out", to="vllm")
    assert [(each.name, each.folder) for each in made.adapters] == [("round2", "round2")]
    texts = sorted(text.partition(" = ")[2] for text in made.directions.values())
    assert texts == ["warm*100 + brief*0", "warm*71 + brief*-71"]
    assert "warm\\*71 + brief\\*-71 |" in (tmp_path / "out" / "README.md").read_text()
    assert "moalign.integrations.vllm" not in (tmp_path / "out" / "README.md").read_text()  # it merges wishes
    page = (tmp_path / "out" / "round2" / "README.md").read_text()
    assert "The adapter reads a direction in its prompt" in page
    assert "| round2 | 1 | directions |" in page
    assert "Asked for" not in page


def test_many_objectives_do_not_make_a_folder_name_that_is_too_long(tmp_path: Path, adapters: Adapters) -> None:
    names = [f"objective_{n}_" + "x" * 30 for n in range(7)]
    objectives = {name: {"type": "length"} for name in names}
    run = made_run(tmp_path / "run", points={}, objectives=objectives, adapters={"w": adapters["w"]})
    weights = dict.fromkeys(names, 1 / 7)
    whole = replace(point("w", *THREE["w"]), values=weights, standard_errors=weights, intervals={})
    run.fix_reference(whole, dict.fromkeys(names, 0.0))
    run.add_point(replace(whole, preference=whole.preference.of(weights)))
    made = export_run(run, tmp_path / "out", to="vllm").adapters[0]
    assert len(made.name) > 300
    assert len(made.folder) < 120
    assert (tmp_path / "out" / made.folder / "adapter_config.json").is_file()
