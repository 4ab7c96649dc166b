"""A trade-off as a folder: what PEFT loads from it is the bank's row, and what it says of itself is true."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_runs import THREE, made_run, point
from torch import Tensor
from transformers import PreTrainedModel

from moalign import recipes
from moalign.adapters import WEIGHTS_FILE, Adapter, LowRank, read_adapter
from moalign.cards import card, fenced, number
from moalign.direction import Direction
from moalign.errors import AdapterError, ConfigError, PreferenceError, RunError
from moalign.files import file_digest, read_json
from moalign.merging import MERGES, soup
from moalign.merging.options import NEEDED
from moalign.preference import Preference
from moalign.recipes import merge_run, plain, recipe_of, single_row
from moalign.runs import Run
from moalign.serving.plan import Planner
from moalign.store import AdapterStore

WISH = Preference.of({"warm": 0.4, "brief": 0.6})  # 0.8 of m and 0.2 of b
ROW = {"m": 0.8, "b": 0.2}


@pytest.fixture
def three(llama: PreTrainedModel, random_adapter: Callable[..., Adapter]) -> dict[str, Adapter]:
    """The adapters of a run; they differ in rank, scale and layers."""
    return {
        "w": random_adapter(llama, 1, rank=4, alpha=8.0),
        "m": random_adapter(llama, 2, rank=2, alpha=3.0),
        "b": random_adapter(llama, 3, rank=3, alpha=6.0, only="attn"),
    }


@pytest.fixture
def run(tmp_path: Path, three: dict[str, Adapter]) -> Run:
    """Three adapters, trained for warm, the middle and brief."""
    return made_run(tmp_path / "run", adapters=three)


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids).logits


def test_peft_loads_the_row_of_the_bank(
    tmp_path: Path,
    run: Run,
    three: dict[str, Adapter],
    llama: PreTrainedModel,
    ids: Tensor,
    load_with_peft: Callable[..., Any],
    merged: Callable[..., Any],
) -> None:
    """Without a rank nothing is cut: the logits are those of sum_k w_k dW_k added to the weights in float64."""
    made = merge_run(run, WISH, tmp_path / "out")
    assert (made.error, made.worst_layer, made.distance, made.rank) == (0.0, None, None, 5)
    found = logits(load_with_peft(llama, tmp_path / "out"), ids)
    torch.testing.assert_close(found, logits(merged(llama, three, ROW), ids), rtol=1e-5, atol=1e-5)


def test_a_rank_is_kept_and_what_it_lost_is_said(tmp_path: Path, run: Run, three: dict[str, Adapter]) -> None:
    """||D - D_r||_F / ||D||_F of dense deltas: over all layers, and of the worst."""
    made = merge_run(run, WISH, tmp_path / "out", rank=2)
    cut, whole = read_adapter(tmp_path / "out").layers, soup([three["m"], three["b"]], [0.8, 0.2]).layers
    assert {layer.rank for layer in cut.values()} == {2} == {made.rank}
    lost = {name: (cut[name].delta() - layer.delta()).square().sum().item() for name, layer in whole.items()}
    length = {name: layer.delta().square().sum().item() for name, layer in whole.items()}
    assert made.error == pytest.approx((sum(lost.values()) / sum(length.values())) ** 0.5, rel=1e-4)
    worst = max(lost, key=lambda name: lost[name] / length[name])
    assert made.worst_layer is not None
    assert made.worst_layer == {"name": worst, "error": pytest.approx((lost[worst] / length[worst]) ** 0.5, rel=1e-4)}
    assert made.differs == ("cut to rank 2",)


@pytest.mark.parametrize("method", [name for name in MERGES if name not in NEEDED])
def test_one_adapter_is_written_as_it_is_whatever_the_method(tmp_path: Path, run: Run, method: str) -> None:
    """The file of the weights is the same to the byte."""
    merge_run(run, Preference.of({"warm": 1.0}), tmp_path / "out", method=method)
    before, after = run.store.folder / "w" / WEIGHTS_FILE, tmp_path / "out" / WEIGHTS_FILE
    assert after.read_bytes() == before.read_bytes()


@pytest.mark.parametrize("method", [name for name in MERGES if name != "factors"])
def test_every_method_writes_what_it_makes(tmp_path: Path, run: Run, three: dict[str, Adapter], method: str) -> None:
    options = {NEEDED[method]: 0.7} if method in NEEDED else {}
    merge_run(run, WISH, tmp_path / "out", method=method, options=options)
    expected = MERGES[method]([three["b"], three["m"]], [0.2, 0.8], **options).layers
    found = read_adapter(tmp_path / "out").layers
    for name, layer in expected.items():
        torch.testing.assert_close(found[name].delta(), layer.delta())


def test_averaged_factors_say_how_far_they_are_from_the_soup(
    tmp_path: Path, llama: PreTrainedModel, random_adapter: Callable[..., Adapter]
) -> None:
    """||D - S||_F / ||S||_F of dense deltas; in the record and on the card too."""
    two = {key: random_adapter(llama, seed) for key, seed in (("m", 1), ("b", 2))}
    run = made_run(tmp_path / "run", points={key: THREE[key] for key in two}, adapters=two)
    made = merge_run(run, Preference.of({"warm": 0.25, "brief": 0.75}), tmp_path / "out", method="factors")
    exact, averaged = soup(list(two.values()), [0.5, 0.5]).layers, read_adapter(tmp_path / "out").layers
    apart = sum((averaged[name].delta() - layer.delta()).square().sum().item() for name, layer in exact.items())
    whole = sum(layer.delta().square().sum().item() for layer in exact.values())
    assert made.distance == pytest.approx((apart / whole) ** 0.5, rel=1e-4)
    page = (tmp_path / "out" / "README.md").read_text()
    assert f"{100 * made.distance:.3g} % of the soup's length" in page
    assert "These are values of the exact soup; this adapter was merged by factors." in page


def test_the_record_is_that_of_a_store_and_holds_the_recipe(tmp_path: Path, run: Run) -> None:
    made = merge_run(run, WISH, tmp_path / "here" / "mine", rank=4, policy="interpolate")
    store = AdapterStore(tmp_path / "here")
    assert store.keys() == ["mine"]
    assert store.load("mine").layers
    record = store.record("mine")
    digests = {key: file_digest(run.store.folder / key / WEIGHTS_FILE) for key in ROW}
    assert record["recipe"] == {
        "parents": {key: {"weight": ROW[key], "sha256": digests[key]} for key in ROW},
        "merge": "soup",
        "options": {},
        "rank": 4,
    }
    assert record["preference"] == {"warm": 0.4, "brief": 0.6}
    assert record["measured"]["b"]["values"] == {"warm": 0.25, "brief": 1.0}
    assert record["measured"]["b"]["intervals"]["warm"] == pytest.approx([0.05, 0.45])
    assert record["objectives"] == {
        "warm": {"type": "tiny_world:warm"},
        "brief": {"type": "length", "unit": "words", "per": 1.0},
    }
    assert record["plan"] == made.plan.as_dict()
    assert record["command"] == (
        f"moalign merge {run.folder} --prefer brief=0.6,warm=0.4 --out {tmp_path}/here/mine --rank 4 "
        "--policy interpolate"
    )
    json.dumps(made.as_dict())


def test_the_card_says_what_the_record_holds(tmp_path: Path, run: Run) -> None:
    merge_run(run, WISH, tmp_path / "out", rank=2)
    page = (tmp_path / "out" / "README.md").read_text()
    assert page.startswith('---\nbase_model: "org/base"\nlibrary_name: peft\n')
    assert "| m | 0.8 | brief 0.5, warm 0.5 | 0.75 (0.55 to 0.95) | 0.5 (0.3 to 0.7) |" in page
    assert "Merged by soup. Cut to rank 2, it lost " in page
    assert "These are values of the exact soup; this adapter was cut to rank 2." in page
    assert "| warm | tiny\\_world:warm |  |" in page
    assert "vllm serve org/base --enable-lora --max-lora-rank 8" in page


def test_the_folder_is_in_the_form_that_every_server_reads(
    tmp_path: Path, run: Run, llama: PreTrainedModel, ids: Tensor, load_with_peft: Callable[..., Any], merged: Any
) -> None:
    """One rank and one whole alpha though b has fewer layers, and weights that others than their owner may read."""
    merge_run(run, Preference.of({"warm": 0.2, "brief": 0.8}), str(tmp_path / "out"))
    three = {key: run.store.load(key) for key in ("m", "b")}
    assert three["m"].layers.keys() != three["b"].layers.keys()
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["rank_pattern"], config["alpha_pattern"], config["r"]) == ({}, {}, 5)
    assert isinstance(config["lora_alpha"], int)
    found = logits(load_with_peft(llama, tmp_path / "out"), ids)
    expected = logits(merged(llama, three, {"m": 0.4, "b": 0.6}), ids)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1


def test_a_base_that_is_a_folder_is_named_by_its_path_and_not_as_a_model_of_a_hub(
    tmp_path: Path, three: dict[str, Adapter], tiny_base: Path
) -> None:
    run = made_run(tmp_path / "run", tiny_base, adapters=three)
    merge_run(run, WISH, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_base
    )
    assert "base_model:" not in (tmp_path / "out" / "README.md").read_text()


def test_names_and_settings_stand_on_the_card_as_text(tmp_path: Path, three: dict[str, Adapter]) -> None:
    """Pipes would end a table's cell, a fence would end a block, and a newline would end both."""
    phrases = {"a | b": 1, "<script>*": 2}
    objectives = {"warm": {"type": "lexical", "phrases": phrases}, "brief": {"type": "length"}}
    run = made_run(tmp_path / "run", "```\n# org|x", adapters=three, objectives=objectives)
    merge_run(run, WISH, tmp_path / "o|d `d`")
    page = (tmp_path / "o|d `d`" / "README.md").read_text()
    assert "# o\\|d \\`d\\`\n" in page
    assert r"\{\"phrases\": \{\"a \| b\": 1" in page.replace('"', '\\"')
    assert r"\<script\>\*" in page
    assert r"for \`\`\` \# org\|x, made by" in page
    assert "\n# org" not in page.split("````", 1)[0]
    assert fenced("a ``` b") == "````\na ``` b\n````"
    assert number(1.0, (None, 2.0)) == "1"


def test_a_folder_that_is_there_is_kept_if_it_is_the_same_and_refused_if_not(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder gives way
    first = merge_run(run, WISH, out, rank=2)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert merge_run(run, Preference.of({"warm": 4.0, "brief": 6.0}), out, rank=2) == first
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    for change in ({"rank": 3}, {"rank": 2, "method": "ties"}):
        with pytest.raises(ConfigError, match="exists and holds something else; choose another folder"):
            merge_run(run, WISH, out, **change)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("notes", "file"):
        with pytest.raises(ConfigError, match="exists and holds something else"):
            merge_run(run, WISH, tmp_path / name)
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_a_merge_that_is_killed_leaves_nothing_that_reads_as_an_adapter(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the weights and the card, before anything could be cleared away."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "card", killed)
        patch.setattr(recipes.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            merge_run(run, WISH, tmp_path / "here" / "mine")
    assert AdapterStore(tmp_path / "here").keys() == []
    assert not (tmp_path / "here" / "mine").exists()
    assert all(path.name.startswith(".mine.") for path in (tmp_path / "here").iterdir())
    merge_run(run, WISH, tmp_path / "here" / "mine")
    assert AdapterStore(tmp_path / "here").keys() == ["mine"]


def test_of_two_who_write_the_same_folder_the_first_wins_and_both_are_served(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_is_first(name: str, record: Any) -> str:
        monkeypatch.setattr(recipes, "card", card)
        merge_run(run, WISH, tmp_path / "out")
        return card(name, record)

    monkeypatch.setattr(recipes, "card", other_is_first)
    made = merge_run(run, WISH, tmp_path / "out")
    assert made.folder == tmp_path / "out"
    assert [path.name for path in tmp_path.glob(".out*")] == []


def test_wishes_that_cannot_be_merged(tmp_path: Path, run: Run) -> None:
    with pytest.raises(PreferenceError, match="did you mean 'warm'"):
        merge_run(run, Preference.of({"warmth": 1.0}), tmp_path / "out")
    with pytest.raises(ConfigError, match="unknown merge method 'slurp'; did you mean 'slerp'"):
        merge_run(run, WISH, tmp_path / "out", method="slurp")
    with pytest.raises(ConfigError, match="rank is 0"):
        merge_run(run, WISH, tmp_path / "out", rank=0)
    with pytest.raises(RunError):
        merge_run(made_run(tmp_path / "none", points={}), WISH, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plans_that_are_no_single_mixture(run: Run) -> None:
    plan = Planner.of(run).plan(WISH)
    assert single_row(run, plan) == pytest.approx(ROW)
    with pytest.raises(ConfigError, match="combines the outputs of 2 mixtures"):
        single_row(run, replace(plan, policy="decode", rows=({"w": 1.0}, {"b": 1.0}), shares=(0.4, 0.6)))
    with pytest.raises(ConfigError, match="nothing to merge"):
        single_row(run, replace(plan, rows=({"w": 0.0},)))


def test_a_direction_is_refused_with_the_words_that_state_it(tmp_path: Path, three: dict[str, Adapter]) -> None:
    run = made_run(tmp_path / "run", points={}, adapters={"round2": three["w"]}, method="dpa")
    told = point("told", (1.0, 0.0), (1.0, 0.25), row={"round2": 1.0}, direction={"warm": 1.0})
    run.add_point(told)
    with pytest.raises(ConfigError, match=r"let each prompt say .*warm\*71 \+ brief\*-71"):
        merge_run(run, Direction.parse("warm=1,brief=-1"), tmp_path / "out")


def test_adapters_of_two_bases_are_not_merged(tmp_path: Path, three: dict[str, Adapter]) -> None:
    run = made_run(tmp_path / "run", adapters={"m": three["m"]})
    record = {"base": {"digest": "1", "name": "x"}}
    run.store.save("b", three["b"], record, "x")
    shutil.rmtree(run.store.folder / "m")
    run.store.save("m", three["m"], {"base": {"digest": "2", "name": "y"}}, "y")
    with pytest.raises(AdapterError, match="different base models"):
        merge_run(run, WISH, tmp_path / "out")


def test_another_adapter_under_the_same_key_is_another_recipe(run: Run, three: dict[str, Adapter]) -> None:
    before = recipe_of(run, ROW, "soup", {}, None)
    shutil.rmtree(run.store.folder / "m")
    run.store.save("m", three["w"], {}, "org/base")
    assert recipe_of(run, ROW, "soup", {}, None) != before


@pytest.mark.parametrize(("scale", "rank", "alpha"), [(2.0, 4, 8.0), (1.5, 3, 3.0), (0.1, 4, 4.0)])
def test_the_plain_form_has_one_rank_and_a_whole_alpha(scale: float, rank: int, alpha: float) -> None:
    """2 x 4 = 8 is whole already; 1.5 x 3 and 0.1 x 4 are not: the scale goes into B, and alpha is the rank."""
    layers = {name: LowRank(torch.randn(r, 5), torch.randn(6, r), scale) for name, r in (("q", rank), ("k", 1))}
    found = plain(recipes.Blend(Adapter(layers, ("q", "k")))).adapter.layers
    for name, layer in layers.items():
        assert found[name].rank == rank
        assert found[name].scale * rank == alpha
        torch.testing.assert_close(found[name].delta(), layer.delta())
    if scale == 2.0:
        assert torch.equal(found["q"].A, layers["q"].A)


def test_options_of_a_method_are_used_kept_and_checked(run: Run, tmp_path: Path) -> None:
    """Twice as far from the base as the soup: its delta is the soup's times two, also for one adapter alone."""
    for i, wish in enumerate((WISH, Preference.of({"warm": 1.0}))):
        soup, far = tmp_path / f"soup{i}", tmp_path / f"far{i}"
        merge_run(run, wish, soup)
        merge_run(run, wish, far, method="extrapolate", options={"strength": 2.0})
        once, twice = read_adapter(soup), read_adapter(far)
        for name, layer in once.layers.items():
            torch.testing.assert_close(twice.layers[name].delta(), 2 * layer.delta())
        record = read_json(far / "record.json")
        assert record["recipe"]["options"] == {"strength": 2.0}
        assert "--option strength=2.0" in record["command"]
        assert "extrapolate, strength 2" in (far / "README.md").read_text()
        with pytest.raises(ConfigError, match="holds something else"):
            merge_run(run, wish, far, method="extrapolate", options={"strength": 3.0})


@pytest.mark.parametrize(
    ("method", "options", "line"),
    [
        ("ties", {"densty": 0.5}, "unknown option of merge method 'ties' 'densty'; did you mean 'density'"),
        ("soup", {"beta": 0.5}, "unknown option of merge method 'soup' 'beta'"),
        ("dare", {"seed": 0.5}, "expected a whole number"),
        ("bone", {}, "plain soup unless it is told its beta: give beta=NUMBER"),
        ("extrapolate", {}, "give strength=NUMBER"),
        ("bone", {"beta": 0.5}, "beta"),
    ],
)
def test_options_that_a_method_cannot_take_are_refused(
    run: Run, tmp_path: Path, method: str, options: dict[str, float], line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        merge_run(run, WISH, tmp_path / "out", method=method, options=options)
    assert not (tmp_path / "out").exists()
